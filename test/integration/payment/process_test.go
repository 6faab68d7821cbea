package payment_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	k8stypes "k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/policy"
	"github.com/jia-app/paymesh/test/lab"
	"github.com/jia-app/paymesh/test/tokens"
)

const (
	issuer   = "https://issuer.jia.app"
	audience = "payments"
	create   = "payment.v1.PaymentService/CreatePayment"
	list     = "payment.v1.PaymentService/ListPayments"
)

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// process is a payment service that runs.
type process struct {
	id       spiffeid.ID
	contact  *contact
	issuer   *tokens.Issuer
	volume   *volume
	env      map[string]string
	address  string // of the payment API
	pages    string // host:port of /health and /metrics
	log      *logtest.Log
	cmd      *exec.Cmd
	ended    chan error
	fromHere map[string]string // the files of the ConfigMap
}

// prepare renders what the operator would for a MeshService with these rules, and puts it where a container would have it;
// addresses and paths that only a pod has are set by variables.
func prepare(t *testing.T, id spiffeid.ID, expects spiffeid.ID, c *contact, rules ...mesh.Rule) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{id: id, contact: c, volume: &volume{dir: filepath.Join(dir, "config")}, address: lab.FreeAddress(t), pages: lab.FreeAddress(t), log: &logtest.Log{}, issuer: tokens.NewIssuer(t, issuer, audience)}
	keys := filepath.Join(dir, "jwks.json")
	if err := errors.Join(os.Mkdir(p.volume.dir, 0o700), os.WriteFile(keys, p.issuer.Keys(), 0o600)); err != nil {
		t.Fatal(err)
	}
	p.fromHere = p.render(t, id, expects, rules...)
	p.volume.swap(t, p.fromHere)
	p.env = map[string]string{
		"GRPC_ADDRESS": p.address, "HTTP_ADDRESS": p.pages, "MTLS_WORKLOAD_API": agent.WorkloadAPI, "AUTH_POLICY_FILE": filepath.Join(p.volume.dir, "policy.yaml"),
		"AUTH_JWT_JWKS_FILE": keys, "STORE_PATH": filepath.Join(dir, "payments.db"), "EXTERNAL_SERVICES_CONTACT_SERVICE_ADDRESS": c.address,
	}
	return p
}

// render is the ConfigMap of a MeshService, as the operator writes it.
func (p *process) render(t *testing.T, id, expects spiffeid.ID, rules ...mesh.Rule) map[string]string {
	t.Helper()
	key := k8stypes.NamespacedName{Namespace: "payments", Name: "payment-service"}
	objects, problems := workload.Service(mesh.Service{
		Key: key, ID: id, Trusted: true, Identity: key, ServiceAccountName: "payment-service", DataPlane: meshv1alpha1.DataPlaneLibrary,
		Ports: []mesh.Port{{Name: "grpc", Port: 8081, MeshPort: mesh.FirstMeshPort, Protocol: meshv1alpha1.ProtocolGRPC}},
		Workload: meshv1alpha1.Workload{
			Image: "paymesh/payment:dev", PolicySupport: meshv1alpha1.PolicySupportEnforced, Persistence: &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/var/lib/paymesh"},
			Config: &apiextensionsv1.JSON{Raw: fmt.Appendf(nil, `{"auth": {"jwt": {"issuer": %q, "audience": %q, "jwks_file": "/keys/jwks.json"}}}`, issuer, audience)},
		},
		Dependencies: []mesh.Dependency{{Name: "contact-service", Service: k8stypes.NamespacedName{Namespace: "people", Name: "contact-service"}, LocalPort: 50051, ID: expects, MeshPort: mesh.FirstMeshPort}},
		Rules:        rules,
	}, nil, workload.Options{ProxyImage: "paymesh/envoy:test", ManagerNamespace: "paymesh-system", WorkloadAPIHostPath: "/run/spire/agent-sockets", WorkloadAPISocket: "spire-agent.sock"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	files := map[string]string{}
	for _, object := range objects {
		if configMap, is := object.(*corev1.ConfigMap); is {
			maps.Copy(files, configMap.Data)
		}
	}
	return files
}

// allow replaces the policy file, as the kubelet would after a changed allow.
func (p *process) allow(t *testing.T, text string) {
	t.Helper()
	files := maps.Clone(p.fromHere)
	files["policy.yaml"] = text
	p.volume.swap(t, files)
}

func rule(name string, id spiffeid.ID, methods ...string) mesh.Rule {
	slices.Sort(methods)
	return mesh.Rule{Name: name, ID: id, Methods: methods, PortName: "grpc"}
}

// start runs the binary. It ends with the test.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(binary, "--config", filepath.Join(p.volume.dir, "config.yaml"))
	for _, name := range slices.Sorted(maps.Keys(p.env)) {
		p.cmd.Env = append(p.cmd.Env, name+"="+p.env[name])
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the log of the payment service:\n%s", p.log)
		}
	})
}

// stop tells it to end, as the kubelet does, and returns how it did.
func (p *process) stop(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		return errors.New("it does not end")
	}
}

// page is what the process says over HTTP.
func (p *process) page(path string) (int, string, error) {
	answer, err := http.Get("http://" + p.pages + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

func (p *process) await(t *testing.T, code int, want string) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		got, text, err := p.page("/health")
		if err == nil && (got != code || !strings.Contains(text, want)) {
			err = fmt.Errorf("/health says %d %s", got, text)
		}
		return err
	})
}

// client calls the process as somebody, and expects it to be somebody.
func (p *process) client(t *testing.T, caller, expects spiffeid.ID) paymentv1.PaymentServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(mtls.Client(identity(t, caller), expects)), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return paymentv1.NewPaymentServiceClient(conn)
}

// pay takes a payment of a user, once for each name.
func (p *process) pay(ctx context.Context, client paymentv1.PaymentServiceClient, name string) error {
	ctx, cancel := context.WithTimeout(p.user(ctx, name), patience)
	defer cancel()
	_, err := client.CreatePayment(ctx, &paymentv1.CreatePaymentRequest{
		MerchantReference: name, PayerUserId: "user_1", Amount: &paymentv1.Money{CurrencyCode: "EUR", MinorUnits: 1050},
	})
	return err
}

func (p *process) user(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.issuer.Token(nil), "idempotency-key", key)
}

// contact is a contact service that is its own mTLS endpoint, with the same library: it knows user_1.
type contact struct {
	id      spiffeid.ID
	address string
	log     *logtest.Log
}

// startContact serves contacts as an ID, to whom the rules let in.
func startContact(t *testing.T, id spiffeid.ID, rules policy.Rules) *contact {
	t.Helper()
	c := &contact{id: id, log: &logtest.Log{}}
	log := slog.New(slog.NewJSONHandler(c.log, nil))
	registry := prometheus.NewRegistry()
	creds, err := mtls.Server(identity(t, id), mtls.ServerOptions{Log: log, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	denied, err := interceptor.NewDenials(registry)
	if err != nil {
		t.Fatal(err)
	}
	auth := &interceptor.Auth{Service: id.String(), Rules: rules, Denied: denied, Log: log, Methods: map[string]interceptor.Proof{
		contactv1.ContactService_GetUserInfo_FullMethodName: interceptor.Workload,
	}}
	c.address = contacttest.Start(t, contacttest.Options{
		Server: []grpc.ServerOption{grpc.Creds(creds), grpc.ChainUnaryInterceptor(auth.Unary), grpc.ChainStreamInterceptor(auth.Stream)},
		Answer: func(_ context.Context, user string) error {
			if user != "user_1" {
				return status.Error(codes.NotFound, "no such user")
			}
			return nil
		},
	}).Address
	return c
}
