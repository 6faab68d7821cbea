package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// managerNamespace is the one that the manager runs in, and managerMetrics the account that may read its metrics.
	managerNamespace, managerMetrics = "paymesh-system", "paymesh-metrics"
	// scrapeTimeout is for one page of metrics.
	scrapeTimeout = 10 * time.Second
)

// ManagerOptions say which manager is started, and what it meets.
type ManagerOptions struct {
	// Binary is one built from cmd/manager.
	Binary      string
	APIServer   *APIServer
	SPIREServer *SPIREServer
	// Agent is that of the manager's node, which gives it its own SVID. See AddUnixEntry.
	Agent *Agent
	// Arguments are added to the command line.
	Arguments []string
}

// Manager is a running manager, alone and as a process of its own.
type Manager struct {
	// PID is its process's.
	PID int
	// Started is when its process was started.
	Started time.Time
	// Log is the path of what it writes.
	Log string

	metrics string
	token   string
	client  *http.Client
	process *process
}

// StartManager starts a manager that elects itself, with SPIRE's admin socket. It waits for nothing: the caller may want
// to watch it start.
func StartManager(t T, o ManagerOptions) *Manager {
	t.Helper()
	m := &Manager{
		metrics: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), token: o.APIServer.metricsToken(t),
		client: &http.Client{Timeout: scrapeTimeout, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, // the certificate is its own, and new at each start
		}},
	}
	arguments := append([]string{
		"--leader-elect", "--leader-elect-namespace=" + managerNamespace,
		"--trust-domain=" + TrustDomain, "--cluster-name=" + ClusterName,
		"--spire-server-socket=" + o.SPIREServer.Socket, "--workload-api=" + o.Agent.WorkloadAPI,
		"--metrics-bind-address=" + m.metrics,
		fmt.Sprintf("--health-probe-bind-address=127.0.0.1:%d", FreePort(t)),
		fmt.Sprintf("--xds-bind-address=127.0.0.1:%d", FreePort(t)),
		"--xds-address=paymesh-xds." + managerNamespace + ".svc:18000",
		"--proxy-image=envoy", "--workload-api-host-path=/run/spire/agent-sockets",
	}, o.Arguments...)
	files := dir(t, "the manager")
	m.Started = time.Now()
	m.process = startWith(t, files, []string{"KUBECONFIG=" + o.APIServer.KubeConfig}, o.Binary, arguments...)
	m.PID, m.Log = m.process.cmd.Process.Pid, m.process.log
	t.Cleanup(m.Stop)
	return m
}

// Stop ends it, as a Deployment would, and waits until it has.
func (m *Manager) Stop() { m.process.stop() }

// Metrics is the page of its metrics.
func (m *Manager) Metrics(ctx context.Context) (string, error) {
	select {
	case <-m.process.ended:
		return "", fmt.Errorf("the manager ended: %s; the end of its log %s:\n%s", m.process.cmd.ProcessState, m.Log, tail(m.Log))
	default:
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.metrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+m.token)
	answer, err := m.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	page, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the manager's metrics: %s: %s", answer.Status, page)
	}
	return string(page), err
}

// metricsToken is a token of an account that may read the manager's metrics; it makes the manager's namespace as well.
func (s *APIServer) metricsToken(t T) string {
	t.Helper()
	ctx := context.Background()
	name := metav1.ObjectMeta{Name: managerMetrics}
	_, namespace := s.Clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: managerNamespace}}, metav1.CreateOptions{})
	_, account := s.Clients.CoreV1().ServiceAccounts(managerNamespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{})
	_, role := s.Clients.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: name, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{})
	_, binding := s.Clients.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: managerMetrics},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: managerNamespace, Name: managerMetrics}},
	}, metav1.CreateOptions{})
	for _, err := range []error{namespace, account, role, binding} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("let somebody read the manager's metrics: %v", err)
		}
	}
	token, err := s.Clients.CoreV1().ServiceAccounts(managerNamespace).CreateToken(ctx, managerMetrics, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("request a token to read the manager's metrics with: %v", err)
	}
	return token.Status.Token
}
