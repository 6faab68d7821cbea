package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	delegatedv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// delegatePath is the path of the ID that lets the test ask an agent for anybody's SVID.
const delegatePath = "/lab/delegate"

// Agent is a spire-agent that has attested as the one of a node.
type Agent struct {
	// ID is the agent's own SPIFFE ID.
	ID string
	// WorkloadAPI is the address of the Workload API. Its workload attestor knows unix: selectors.
	WorkloadAPI string

	delegated delegatedv1.DelegatedIdentityClient
}

var agentConfig = template.Must(template.New("agent.conf").Parse(`agent {
  data_dir = "{{.Dir}}"
  server_address = "127.0.0.1"
  server_port = "{{.Port}}"
  trust_domain = "{{.TrustDomain}}"
  trust_bundle_path = "{{.Dir}}/bundle.pem"
  socket_path = "{{.Dir}}/pub/api.sock"
  admin_socket_path = "{{.Dir}}/adm/api.sock"
  authorized_delegates = ["{{.Delegate}}"]
  log_level = "DEBUG"
  experimental { sync_interval = "200ms" }
}
plugins {
  NodeAttestor "k8s_psat" { plugin_data { cluster = "{{.ClusterName}}" token_path = "{{.Dir}}/token" } }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`))

// StartAgent starts the agent of a node, attested by k8s_psat with a token bound to a Pod object on that node. Any number
// of nodes may have one on this machine.
func (s *SPIREServer) StartAgent(t T, node *corev1.Node) *Agent {
	t.Helper()
	if s.options.APIServer == nil {
		t.Fatalf("the SPIRE server was started without an API server, which agents need")
	}
	dir := dir(t, "the spire-agent of Node "+node.Name)
	_, port, _ := strings.Cut(s.Address, ":")
	writeConfig(t, filepath.Join(dir, "agent.conf"), agentConfig, map[string]any{
		"Dir": dir, "Port": port, "TrustDomain": TrustDomain, "ClusterName": ClusterName, "Delegate": "spiffe://" + TrustDomain + delegatePath,
	})
	for name, content := range map[string][]byte{"token": []byte(s.options.APIServer.agentToken(t, node)), "bundle.pem": s.Bundle(t)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatalf("write %s for the agent of Node %s: %v", name, node.Name, err)
		}
	}
	agent := &Agent{
		ID:          fmt.Sprintf("spiffe://%s/spire/agent/k8s_psat/%s/%s", TrustDomain, ClusterName, node.UID),
		WorkloadAPI: "unix://" + dir + "/pub/api.sock",
	}
	s.AddUnixEntry(t, agent, delegatePath)
	agent.delegated = delegatedv1.NewDelegatedIdentityClient(dialUnix(t, dir+"/adm/api.sock"))
	process := start(t, dir, Binary(t, "spire-agent"), "run", "-config", filepath.Join(dir, "agent.conf"))
	t.Cleanup(process.stop)
	process.await(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		stream, err := agent.delegated.SubscribeToX509Bundles(ctx, &delegatedv1.SubscribeToX509BundlesRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv() // refused until the agent has attested and knows the delegate's entry
		return err
	})
	return agent
}

// AddUnixEntry makes an entry, by the admin socket, that gives every process of this user on the agent's node the SPIFFE
// ID with this path. It is what stands in for a kubelet where the test itself is the workload.
func (s *SPIREServer) AddUnixEntry(t T, agent *Agent, path string) {
	t.Helper()
	answer, err := s.Entries.BatchCreateEntry(context.Background(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{{
		ParentId:  &types.SPIFFEID{TrustDomain: TrustDomain, Path: strings.TrimPrefix(agent.ID, "spiffe://"+TrustDomain)},
		SpiffeId:  &types.SPIFFEID{TrustDomain: TrustDomain, Path: path},
		Selectors: []*types.Selector{{Type: "unix", Value: fmt.Sprintf("uid:%d", os.Getuid())}},
	}}})
	if err != nil {
		t.Fatalf("make the entry of %s: %v", path, err)
	}
	if s := answer.Results[0].Status; codes.Code(s.Code) != codes.OK {
		t.Fatalf("make the entry of %s: %s", path, s.Message)
	}
}

// SVID is an X.509 SVID as an agent gives it to a workload.
type SVID struct {
	ID, Hint string
	// Leaf is the SVID's certificate.
	Leaf *x509.Certificate
}

// SVIDs returns what a workload with these selectors ("k8s:ns:payments") gets from the agent, once it gets anything: the
// agent takes the selectors as attested. It waits until ctx ends.
func (a *Agent) SVIDs(ctx context.Context, selectors ...string) ([]SVID, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, err := a.Watch(ctx, selectors...)
	for err == nil {
		var svids []SVID
		if svids, err = next(); len(svids) > 0 {
			return svids, nil
		}
	}
	return nil, err
}

// Watch returns a function that waits for the next SVIDs of a workload with these selectors; none where it lost them all,
// or has none yet.
func (a *Agent) Watch(ctx context.Context, selectors ...string) (next func() ([]SVID, error), err error) {
	request := &delegatedv1.SubscribeToX509SVIDsRequest{}
	for _, selector := range selectors {
		kind, value, _ := strings.Cut(selector, ":")
		request.Selectors = append(request.Selectors, &types.Selector{Type: kind, Value: value})
	}
	stream, err := a.delegated.SubscribeToX509SVIDs(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("ask the agent %s for the SVIDs of %q: %w", a.ID, selectors, err)
	}
	return func() ([]SVID, error) {
		answer, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("wait for the agent %s to give SVIDs to %q: %w", a.ID, selectors, err)
		}
		return parse(answer.X509Svids)
	}, nil
}

func parse(answers []*delegatedv1.X509SVIDWithKey) ([]SVID, error) {
	svids := make([]SVID, len(answers))
	for i, answer := range answers {
		leaf, err := x509.ParseCertificate(answer.X509Svid.CertChain[0])
		if err != nil {
			return nil, status.Errorf(codes.Internal, "the agent gave an SVID that is no certificate: %v", err)
		}
		id := answer.X509Svid.Id
		svids[i] = SVID{ID: "spiffe://" + id.TrustDomain + id.Path, Hint: answer.X509Svid.Hint, Leaf: leaf}
	}
	return svids, nil
}
