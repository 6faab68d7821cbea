// Package peers_test holds how a process without a sidecar calls others: it finds them by DNS, and both prove who they are
// with certificates of a real SPIRE.
package peers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/discovery/dnstest"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/test/lab"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 20 * time.Second

const (
	payments = "spiffe://" + lab.TrustDomain + "/payment-service"
	contacts = "spiffe://" + lab.TrustDomain + "/contact-service"
	others   = "spiffe://" + lab.TrustDomain + "/other-service"
)

// The parts that all tests share.
var (
	agent      *lab.Agent
	identities = map[string]mtls.Identity{}
)

func TestMain(m *testing.M) {
	lab.Main(m, func(t lab.T) {
		api := lab.StartAPIServer(t)
		spire := lab.StartSPIREServer(t, lab.SPIREOptions{APIServer: api})
		agent = spire.StartAgent(t, api.CreateNode(t, "node-1"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, id := range []string{payments, contacts, others} {
			spire.AddUnixEntry(t, agent, strings.TrimPrefix(id, "spiffe://"+lab.TrustDomain))
			identity, err := mtls.Open(config.MTLS{Enabled: true, WorkloadAPI: agent.WorkloadAPI}, spiffeid.RequireFromString(id), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatalf("ask for the identity %s: %v", id, err)
			}
			t.Cleanup(func() { _ = identity.Close() })
			if err := identity.Wait(ctx); err != nil {
				t.Fatalf("wait for the identity %s: %v", id, err)
			}
			identities[id] = identity
		}
	})
}

// contactService is one at an address.
type contactService struct {
	*contacttest.Service
	address netip.AddrPort
}

// serve starts a contact service with an identity, or in plaintext for none, at an address or a free one.
func serve(t *testing.T, id, at string) contactService {
	t.Helper()
	creds := insecure.NewCredentials()
	if id != "" {
		var err error
		if creds, err = mtls.Server(identities[id], mtls.ServerOptions{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}); err != nil {
			t.Fatal(err)
		}
	}
	s := contacttest.Start(t, contacttest.Options{Address: at, Server: []grpc.ServerOption{grpc.Creds(creds)}})
	return contactService{s, netip.MustParseAddrPort(s.Address)}
}

// records name the pods of the contact service, as the headless Service of a MeshService does.
func records(pods ...netip.AddrPort) dnstest.Records {
	r := dnstest.Records{Hosts: map[string][]netip.Addr{}, SRV: map[string][]dnstest.SRV{}}
	for i, pod := range pods {
		name := fmt.Sprintf("pod-%d.contact-service.people.svc", i)
		r.Hosts[name] = []netip.Addr{pod.Addr()}
		r.SRV["_grpc._tcp.contact-service.people.svc"] = append(r.SRV["_grpc._tcp.contact-service.people.svc"], dnstest.SRV{Target: name, Port: pod.Port()})
	}
	return r
}

type caller struct {
	*services.Manager
	dns *dnstest.Server
}

// call starts a process with the payment service's identity that expects the contact service at these addresses.
func newCaller(t *testing.T, pods ...netip.AddrPort) caller {
	t.Helper()
	dns, err := dnstest.Start(records(pods...))
	if err != nil {
		t.Fatal(err)
	}
	defaults := config.Default()
	o := services.Options{
		Services: defaults.ExternalServices, Discovery: config.Discovery{Scheme: "srv", Namespace: "people"}, Source: identities[payments],
		Resolver: dns.Resolver(), Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Interval: 50 * time.Millisecond,
	}
	o.Services.ContactService.Address, o.Services.ContactService.SPIFFEID = "contact-service:50051", contacts
	manager, err := services.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := manager.Close(); err != nil {
			t.Error(err)
		}
		_ = dns.Close()
	})
	return caller{manager, dns}
}

func (c caller) ask(t *testing.T) error {
	t.Helper()
	client, err := c.Contact()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "user_123"})
	return err
}

func TestAPeerIsFoundByItsNameAndBothProveWhoTheyAre(t *testing.T) {
	pod := serve(t, contacts, "127.0.0.1:0")
	c := newCaller(t, pod.address)
	if err := c.ask(t); err != nil {
		t.Fatal(err)
	}
	if got := pod.Calls(); len(got) != 1 || got[0].Caller != payments {
		t.Errorf("called by %v", got)
	}
	if got := c.Health(t.Context())[0]; !got.Healthy || got.Detail != "" || got.SPIFFEID != contacts || got.Connection != "READY" {
		t.Errorf("got %+v", got)
	}
}

func TestWhoeverHasAnotherIdentityIsNotCalled(t *testing.T) {
	for name, id := range map[string]string{"another workload": others, "the caller itself": payments, "plaintext": ""} {
		t.Run(name, func(t *testing.T) {
			impostor := serve(t, id, "127.0.0.1:0")
			c := newCaller(t, impostor.address)
			err := c.ask(t)
			if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
				t.Errorf("got %v", err)
			}
			if id != "" && !strings.Contains(err.Error(), "unexpected ID \\\""+id+"\\\"") {
				t.Errorf("the error does not say who answered: %v", err)
			}
			if got := c.Health(t.Context())[0]; got.Healthy || !strings.Contains(got.Detail, "contact-service does not answer") {
				t.Errorf("got %+v", got)
			}
			if len(impostor.Calls()) > 0 {
				t.Error("a call came")
			}
			impostor.Stop()
			serve(t, contacts, impostor.address.String())
			lab.Eventually(t, patience, func() error { return c.ask(t) }) // the right one is at the same address now
		})
	}
}

func TestPodsThatComeAndGoAreFollowedWithoutAFailedCall(t *testing.T) {
	first, second := serve(t, contacts, "127.0.0.1:0"), serve(t, contacts, "127.0.0.1:0")
	impostor := serve(t, others, "127.0.0.1:0")
	c := newCaller(t, first.address)
	until := func(what string, check func() bool) {
		t.Helper()
		lab.Eventually(t, patience, func() error {
			if err := c.ask(t); err != nil {
				t.Fatal(err)
			}
			if !check() {
				return fmt.Errorf("not yet: %s", what)
			}
			return nil
		})
	}
	until("the first is called", func() bool { return len(first.Calls()) > 0 })
	c.dns.Set(records(first.address, second.address, impostor.address)) // the impostor is passed over
	until("the second is called", func() bool { return len(second.Calls()) > 0 })
	c.dns.Set(records(second.address))
	before, alone := len(first.Calls()), 0
	until("the second is called alone", func() bool {
		alone++
		if now := len(first.Calls()); now != before {
			before, alone = now, 0
		}
		return alone == 4 // in turn, the first would have been called twice
	})
	first.Stop()
	for range 20 {
		if err := c.ask(t); err != nil {
			t.Fatal(err)
		}
	}
	if len(impostor.Calls()) > 0 {
		t.Error("the impostor was called")
	}
}
