//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

const hostname = "pay.example.com"

// customer pays from outside the cluster.
var customer *outside

type outside struct {
	gateway string // host:port on this machine's loopback
	roots   *x509.CertPool
	client  *http.Client
}

func newCustomer() *outside {
	GinkgoHelper()
	c := &outside{gateway: led("public.edge.svc.cluster.local:443"), roots: x509.NewCertPool()}
	Expect(c.roots.AppendCertsFromPEM([]byte(key("ca.crt")))).To(BeTrue())
	c.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", c.gateway)
		},
		TLSClientConfig: &tls.Config{RootCAs: c.roots, ServerName: hostname, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DisableKeepAlives: true, // each call finds the gateway that is there now
	}}
	return c
}

// key reads one of the files that hack/demo/keys made.
func key(name string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("PAYMESH_KEYS"), name))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

var forwarded = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// led is an address on this machine that leads to one of the cluster's.
func led(target string) string {
	GinkgoHelper()
	out, err := tool(own("cluster"), "", "--name", os.Getenv("PAYMESH_CLUSTER"), "forward", "0:"+target)
	Expect(err).NotTo(HaveOccurred())
	return forwarded.FindString(out)
}

// answer is what came back.
type answer struct {
	Status   int
	Replayed bool
	Body     string
	// GRPCStatus is in the header, where gRPC has it that is answered without a message.
	GRPCStatus string
}

func (a answer) paymentID() string {
	var said struct{ Payment struct{ PaymentID string } }
	_ = json.Unmarshal([]byte(a.Body), &said)
	return said.Payment.PaymentID
}

// pay asks for a payment with a token of the keys; without one where its name is empty.
func (c *outside) pay(token, idempotencyKey string, cents int) answer {
	body := fmt.Sprintf(`{"merchant_reference": %q, "payer_user_id": "user_123", "amount": {"currency_code": "EUR", "minor_units": "%d"}}`, idempotencyKey, cents)
	return c.ask(http.MethodPost, "/v1/payments", token, body, idempotencyKey)
}

// ask asks for JSON.
func (c *outside) ask(method, path, token, body, idempotencyKey string) answer {
	GinkgoHelper()
	return c.askAs("application/json", method, path, token, body, idempotencyKey)
}

func (c *outside) askAs(contentType, method, path, token, body, idempotencyKey string) answer {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(context.Background(), method, "https://"+hostname+path, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", contentType)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+key(token))
	}
	if idempotencyKey != "" {
		request.Header.Set("Idempotency-Key", idempotencyKey)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return answer{Body: err.Error()}
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return answer{response.StatusCode, response.Header.Get("Idempotent-Replayed") == "true", string(text), response.Header.Get("Grpc-Status")}
}

// probe asks from within a pod that has the program.
func probe(namespace, pod string, args ...string) string {
	GinkgoHelper()
	return kubectl(append([]string{"exec", "-n", namespace, pod, "--", "/probe"}, args...)...)
}

// portForward leads to a port of a pod's loopback, for as long as the spec runs: what listens there is for whoever may
// use pods/portforward, and for nobody else.
func portForward(namespace, object, port string) string {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, kubectlPath(), "port-forward", "-n", namespace, object, ":"+port)
	out, err := command.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(command.Start()).To(Succeed())
	DeferCleanup(func() {
		cancel()
		_ = command.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	Expect(err).NotTo(HaveOccurred())
	go io.Copy(io.Discard, out) //nolint:errcheck // it ends with the command
	return forwarded.FindString(line)
}

// page reads a page over plain HTTP.
func page(url string) string {
	GinkgoHelper()
	response, err := http.Get(url)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// statsPage is a pod's page for Prometheus, of its proxy.
func statsPage(namespace, pod string) string {
	GinkgoHelper()
	return kubectl("get", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+pod+":15090/proxy/stats/prometheus")
}

// podsOf are the pods of a MeshService or a MeshGateway, with those that end.
func podsOf(namespace, name string) []corev1.Pod {
	GinkgoHelper()
	var list corev1.PodList
	Expect(json.Unmarshal([]byte(kubectl("get", "pods", "-n", namespace, "-l", "mesh.jia.app/endpoint=true,app="+name, "-o", "json")), &list)).To(Succeed())
	return list.Items
}

// onlyPod is a service's one pod, once earlier ones have ended.
func onlyPod(namespace, name string) corev1.Pod {
	GinkgoHelper()
	var pods []corev1.Pod
	Eventually(func() []corev1.Pod { pods = podsOf(namespace, name); return pods }).Should(HaveLen(1))
	return pods[0]
}

// application is the container of a pod that is not the proxy.
func application(pod corev1.Pod) corev1.ContainerStatus {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == "app" {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

// proxyWaits reports whether a pod's proxy runs, and is not through its startup probe.
func proxyWaits(pod corev1.Pod) bool {
	for _, status := range pod.Status.InitContainerStatuses {
		if status.Name == "proxy" {
			return status.State.Running != nil && status.Started != nil && !*status.Started && status.RestartCount == 0
		}
	}
	return false
}

// runs are the containers of all pods of the mesh, by namespace, object and pod: which one runs, and how often it was
// restarted. Whatever restarts changes it.
func runs() map[string]string {
	GinkgoHelper()
	found := map[string]string{}
	for _, namespace := range []string{"edge", "payments", "people"} {
		var list corev1.PodList
		Expect(json.Unmarshal([]byte(kubectl("get", "pods", "-n", namespace, "-l", "mesh.jia.app/endpoint=true", "-o", "json")), &list)).To(Succeed())
		for _, pod := range list.Items {
			for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
				found[strings.Join([]string{namespace, pod.Labels["app"], pod.Name, status.Name}, "/")] = fmt.Sprintf("%s, pod %s, restarted %d times", status.ContainerID, pod.UID, status.RestartCount)
			}
		}
	}
	return found
}

// without leaves out an object's.
func without(runs map[string]string, namespace, name string) map[string]string {
	left := map[string]string{}
	for key, value := range runs {
		if !strings.HasPrefix(key, namespace+"/"+name+"/") {
			left[key] = value
		}
	}
	return left
}

// logs are lines of JSON that a container wrote, of those that have all fields; "~text" stands for a text within.
func logs(g Gomega, namespace, object, container string, fields map[string]string) []string {
	out, err := run("", "logs", "-n", namespace, object, "-c", container, "--tail=-1")
	g.Expect(err).NotTo(HaveOccurred())
	var found []string
	for line := range strings.Lines(out) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) != nil {
			continue
		}
		matches := true
		for field, want := range fields {
			have := fmt.Sprint(record[field])
			within, part := strings.CutPrefix(want, "~")
			matches = matches && (have == want || part && strings.Contains(have, within))
		}
		if matches {
			found = append(found, line)
		}
	}
	return found
}
