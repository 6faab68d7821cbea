package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/test/lab"
)

func TestOnlyTheObjectsOwnIdentityGetsItsConfig(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	for name, test := range map[string]struct {
		as     *source
		node   string
		reason string
	}{
		"another object's node ID":  {ca.issue("/contact", time.Hour), payKey.NodeID("pay-1"), reasonIdentity},
		"the operator's own ID":     {ca.issue("/paymesh/main/operator", time.Hour), payKey.NodeID("pay-1"), reasonIdentity},
		"no node ID":                {ca.issue("/pay", time.Hour), "", reasonNodeID},
		"a node ID of another form": {ca.issue("/pay", time.Hour), "payments/pay", reasonNodeID},
	} {
		t.Run(name, func(t *testing.T) {
			r := startReplica(t, ca)
			r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
			p := connect(t, r.dial(test.as), test.node, nil).subscribe(nil, nil)
			if err := p.wantEnd(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("the stream ended with %v, want PermissionDenied", err)
			}
			if len(p.got) > 0 {
				t.Errorf("it was sent %s", describe(<-p.got))
			}
			if got := r.refused(test.reason); got != 1 {
				t.Errorf("%d refusals are counted as %s, want 1", got, test.reason)
			}
		})
	}
}

func TestNobodyConnectsWithoutAGoodCertificate(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	for name, as := range map[string]*source{
		"an expired certificate":        ca.issue("/pay", -time.Minute),
		"a certificate of another root": {svid: newAuthority(t, "jia.app").issue("/pay", time.Hour).svid, of: ca.bundle()},
		"another trust domain":          {svid: newAuthority(t, "evil.example").issue("/pay", time.Hour).svid, of: ca.bundle()},
	} {
		t.Run(name, func(t *testing.T) {
			r := startReplica(t, ca)
			if _, err := ask(r, as); status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want no connection", err)
			}
			lab.Eventually(t, within, func() error {
				if r.refused(reasonHandshake) == 0 {
					return errors.New("no refused handshake is counted")
				}
				return nil
			})
		})
	}
}

// ask asks what proxies hold.
func ask(r *testReplica, as *source) (*statusv3.ClientStatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return statusv3.NewClientStatusDiscoveryServiceClient(r.dial(as)).FetchClientStatus(ctx, &statusv3.ClientStatusRequest{})
}

func TestOnlyTheOperatorIsToldWhatProxiesHold(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil).wantNext("Cluster contact")
	if answer, err := ask(r, ca.issue("/pay", time.Hour)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a workload was told %v, %v", answer, err)
	}
	operator := ca.issue(r.options.Cluster.OperatorID().Path(), time.Hour)
	lab.Eventually(t, within, func() error {
		answer, err := ask(r, operator)
		if err != nil {
			return err
		}
		if len(answer.GetConfig()) != 1 || answer.GetConfig()[0].GetNode().GetId() != payKey.NodeID("pay-1") {
			return fmt.Errorf("the operator was told %v", answer)
		}
		return nil
	})
}
