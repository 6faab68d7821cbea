package lab

import (
	"context"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// The agents' service account, which the SPIRE server takes tokens of.
const (
	agentNamespace      = "spire-system"
	agentServiceAccount = "spire-agent"
	agentAudience       = "spire-server"
	tokenSeconds        = 3600
)

// APIServer is an etcd and a kube-apiserver, with no controllers, no scheduler and no kubelet.
type APIServer struct {
	// Config is that of an administrator.
	Config *rest.Config
	// KubeConfig is the path of a file with the same.
	KubeConfig string
	// Clients are clients of Config, for what the lab itself makes.
	Clients kubernetes.Interface
}

// StartAPIServer starts an API server that has the kinds of paymesh.
func StartAPIServer(t T) *APIServer {
	t.Helper()
	return startAPIServer(t, []string{filepath.Join(repository(), "config", "crd", "bases")})
}

// StartBareAPIServer starts an API server that has only the kinds that every one has.
func StartBareAPIServer(t T) *APIServer {
	t.Helper()
	return startAPIServer(t, nil)
}

func startAPIServer(t T, kinds []string) *APIServer {
	t.Helper()
	environment := &envtest.Environment{
		CRDDirectoryPaths:        kinds,
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	environment.ControlPlane.Etcd = &envtest.Etcd{Path: Binary(t, "etcd")}
	environment.ControlPlane.GetAPIServer().Path = Binary(t, "kube-apiserver")
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Logf("stop the API server: %v", err)
		}
	})
	config, err := environment.Start()
	if err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	config.QPS = -1 // a test that waits for a client's own rate limit tests nothing
	server := &APIServer{Config: config, KubeConfig: filepath.Join(dir(t, "the API server"), "kubeconfig")}
	if err := os.WriteFile(server.KubeConfig, environment.KubeConfig, 0o600); err != nil {
		t.Fatalf("write %s: %v", server.KubeConfig, err)
	}
	if server.Clients, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatalf("make a client of the API server: %v", err)
	}
	return server
}

// CreateNode makes a Node object.
func (s *APIServer) CreateNode(t T, name string) *corev1.Node {
	t.Helper()
	node, err := s.Clients.CoreV1().Nodes().Create(context.Background(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create Node %s: %v", name, err)
	}
	return node
}

// agentToken is a token of the agents' service account, bound to a Pod object on the node: what a kubelet would project
// into the agent's pod.
func (s *APIServer) agentToken(t T, node *corev1.Node) string {
	t.Helper()
	ctx, core := context.Background(), s.Clients.CoreV1()
	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("create Namespace %s: %v", agentNamespace, err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: agentServiceAccount}}
	if _, err := core.ServiceAccounts(agentNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("create ServiceAccount %s/%s: %v", agentNamespace, agentServiceAccount, err)
	}
	pod, err := core.Pods(agentNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "spire-agent-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: agentServiceAccount, NodeName: node.Name,
			Containers: []corev1.Container{{Name: "spire-agent", Image: "spire-agent"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create the agent's Pod on Node %s: %v", node.Name, err)
	}
	seconds := int64(tokenSeconds)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{agentAudience}, ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	answer, err := core.ServiceAccounts(agentNamespace).CreateToken(ctx, agentServiceAccount, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("request a token for the agent on Node %s: %v", node.Name, err)
	}
	return answer.Status.Token
}
