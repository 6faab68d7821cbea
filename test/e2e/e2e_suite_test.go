//go:build e2e

// Package e2e asserts on a real cluster what the demo shows: hack/e2e.sh starts the cluster, deploys SPIRE, the operator, the
// samples and the demo's callers into it, and runs these specs with KUBECONFIG set.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(60 * time.Second)
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	RunSpecs(t, "paymesh on a real cluster")
}

var _ = BeforeSuite(func() {
	Expect(os.Getenv("KUBECONFIG")).NotTo(BeEmpty(), "make e2e sets KUBECONFIG to the cluster that it starts")
	kubectl("wait", "--for=condition=Ready", "meshservices,meshgateways,serviceidentities", "--all", "-A", "--timeout=120s")
	kubectl("wait", "--for=condition=Ready", "pod/nobody", "-n", "edge", "--timeout=30s")
	kubectl("wait", "--for=condition=Ready", "pod/impostor", "pod/outsider", "-n", "payments", "--timeout=30s")
	customer = newCustomer()
})

// A failed spec shows what the operator, SPIRE and the proxies said meanwhile.
var _ = ReportAfterEach(func(report SpecReport) {
	if !report.Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "meshservices,meshgateways,serviceidentities,pods", "-A", "-o", "wide"},
		{"logs", "-n", "paymesh-system", "-l", "app.kubernetes.io/component=manager", "--prefix", "--tail=40"},
		{"logs", "-n", "spire-system", "spire-server-0", "--all-containers", "--tail=40"},
		{"logs", "-n", "edge", "-l", "mesh.jia.app/endpoint=true", "-c", "proxy", "--prefix", "--tail=10"},
		{"logs", "-n", "payments", "-l", "mesh.jia.app/endpoint=true", "--all-containers", "--prefix", "--tail=20"},
		{"logs", "-n", "people", "-l", "mesh.jia.app/endpoint=true", "-c", "proxy", "--prefix", "--tail=10"},
	} {
		out, err := run("", args...)
		AddReportEntry("kubectl "+strings.Join(args, " "), fmt.Sprintf("%s\n%v", out, err))
	}
})

var _ = AfterSuite(func() {
	By("no log of the operator, of what runs beside SPIRE, or of a workload or its proxy holds a key or a token")
	for _, of := range [][]string{
		{"-n", "paymesh-system", "-l", "app.kubernetes.io/component=manager"},
		{"-n", "spire-system", "spire-server-0", "-c", "bootstrap"},
		{"-n", "edge", "-l", "mesh.jia.app/endpoint=true", "--all-containers"},
		{"-n", "payments", "-l", "mesh.jia.app/endpoint=true", "--all-containers"},
		{"-n", "people", "-l", "mesh.jia.app/endpoint=true", "--all-containers"},
	} {
		var out string
		Eventually(func() (err error) { // a pod that begins has no log yet, and one that ends has none any more
			out, err = run("", append([]string{"logs", "--tail=-1"}, of...)...)
			return err
		}).Should(Succeed())
		Expect(out).NotTo(BeEmpty())
		Expect(out).NotTo(Or(ContainSubstring("PRIVATE KEY"), MatchRegexp(`eyJ[A-Za-z0-9_-]{10,}`)))
	}
})

// tool runs a program with a bound on its time, and returns what it printed.
func tool(path, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 130*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func kubectlPath() string { return filepath.Join(os.Getenv("PAYMESH_BIN_DIR"), "kubectl") }

// own is one of the project's own programs.
func own(name string) string { return filepath.Join(os.Getenv("PAYMESH_E2E_BIN"), name) }

// run runs kubectl.
func run(stdin string, args ...string) (string, error) { return tool(kubectlPath(), stdin, args...) }

// kubectl is run for commands that must succeed.
func kubectl(args ...string) string {
	GinkgoHelper()
	out, err := run("", args...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

func apply(manifest string) {
	GinkgoHelper()
	_, err := run(manifest, "apply", "-f", "-")
	Expect(err).NotTo(HaveOccurred())
}

// inCluster runs a command in the node's namespaces.
func inCluster(args ...string) (string, error) {
	return tool(own("cluster"), "", append([]string{"--name", os.Getenv("PAYMESH_CLUSTER"), "exec", "--"}, args...)...)
}

// condition is "status reason message" of a condition.
func condition(kind, namespace, name, conditionType string) string {
	out, err := run("", "get", kind, "-n", namespace, name, "-o",
		fmt.Sprintf(`jsonpath={range .status.conditions[?(@.type=="%s")]}{.status} {.reason} {.message}{end}`, conditionType))
	if err != nil {
		return err.Error()
	}
	return out
}

// ready waits until an object is Ready with the spec that it has now.
func ready(kind, namespace, name string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		generations := strings.Fields(kubectl("get", kind, "-n", namespace, name, "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}"))
		g.Expect(generations).To(HaveLen(2))
		g.Expect(generations[1]).To(Equal(generations[0]), "the operator has not seen the spec yet")
		g.Expect(condition(kind, namespace, name, "Ready")).To(HavePrefix("True"))
	}).WithTimeout(120 * time.Second).Should(Succeed())
}

// killContainer ends the processes of a pod's container with SIGKILL, as a crash would: nothing is released or said goodbye to.
func killContainer(namespace, pod, container string) {
	GinkgoHelper()
	ctr := func(args ...string) string {
		GinkgoHelper()
		out, err := inCluster(append([]string{"ctr", "-n", "k8s.io"}, args...)...)
		Expect(err).NotTo(HaveOccurred())
		return strings.TrimSpace(out)
	}
	id := ctr("containers", "ls", "-q", fmt.Sprintf(`labels."io.kubernetes.pod.namespace"==%s,labels."io.kubernetes.pod.name"==%s,labels."io.kubernetes.container.name"==%s`, namespace, pod, container))
	Expect(id).NotTo(BeEmpty())
	for _, one := range strings.Fields(id) { // a container that ended earlier may still be listed
		if strings.Contains(ctr("tasks", "ls"), one) {
			ctr("tasks", "kill", "-s", "SIGKILL", one)
		}
	}
}
