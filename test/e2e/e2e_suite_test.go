//go:build e2e

// Package e2e asserts on a real cluster what the demo shows: hack/e2e.sh starts the cluster, deploys SPIRE and the
// operator into it, and runs these specs with KUBECONFIG set.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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
	kubectl("rollout", "status", "-n", namespace, "deployment/"+sample, "--timeout=90s")
	Eventually(func() string { return kubectl("get", "sid", "-n", namespace, sample, "--no-headers") }).
		Should(MatchRegexp(`\sTrue\s.*\s1/1\s`), "the samples are what every spec starts from")
})

// A failed spec shows what the operator and SPIRE said meanwhile.
var _ = ReportAfterEach(func(report SpecReport) {
	if !report.Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "serviceidentities,pods", "-A", "-o", "wide"},
		{"logs", "-n", "paymesh-system", "-l", "app.kubernetes.io/component=manager", "--prefix", "--tail=40"},
		{"logs", "-n", "spire-system", "spire-server-0", "--all-containers", "--tail=40"},
	} {
		out, err := run("", args...)
		AddReportEntry("kubectl "+strings.Join(args, " "), fmt.Sprintf("%s\n%v", out, err))
	}
})

// run runs kubectl with a bound on its time, and returns what it printed.
func run(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, os.Getenv("PAYMESH_BIN_DIR")+"/kubectl", args...)
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

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

// entry is what `spire-server entry show -output json` shows of an entry, as far as it matters here.
type entry struct {
	ID             string   `json:"id"`
	SPIFFEID       spiffeID `json:"spiffe_id"`
	ParentID       spiffeID `json:"parent_id"`
	RevisionNumber string   `json:"revision_number"`
	Selectors      []struct{ Type, Value string }
}

type spiffeID struct {
	TrustDomain string `json:"trust_domain"`
	Path        string
}

// spireServer runs a command of spire-server in its pod.
func spireServer(args ...string) (string, error) {
	return run("", append([]string{
		"exec", "-n", "spire-system", "spire-server-0", "-c", "spire-server", "--",
		"/spire-server",
	}, append(args, "-socketPath", "/run/spire/server-socket/api.sock")...)...)
}

// entriesOf lists the entries whose ID begins so, by ID.
func entriesOf(g Gomega, prefix string) map[string]entry {
	out, err := spireServer("entry", "show", "-output", "json")
	g.Expect(err).NotTo(HaveOccurred())
	var list struct{ Entries []entry }
	g.Expect(json.Unmarshal([]byte(out), &list)).To(Succeed())
	found := map[string]entry{}
	for _, e := range list.Entries {
		if strings.HasPrefix(e.ID, prefix) {
			found[e.ID] = e
		}
	}
	return found
}

// revisions maps the entries with this prefix to their revision numbers.
func revisions(g Gomega, prefix string) map[string]string {
	numbers := map[string]string{}
	for id, e := range entriesOf(g, prefix) {
		numbers[id] = e.RevisionNumber
	}
	return numbers
}

// condition is "status reason message" of a condition of a ServiceIdentity.
func condition(namespace, name, conditionType string) string {
	out, err := run("", "get", "serviceidentity", "-n", namespace, name, "-o",
		fmt.Sprintf(`jsonpath={range .status.conditions[?(@.type=="%s")]}{.status} {.reason} {.message}{end}`, conditionType))
	if err != nil {
		return err.Error()
	}
	return out
}

// svid is the last SVID that the pods with a label logged; nil where they have none.
func svid(g Gomega, namespace, selector string) *loggedSVID {
	out, err := run("", "logs", "-n", namespace, "-l", selector, "--tail=-1")
	g.Expect(err).NotTo(HaveOccurred())
	var last *loggedSVID
	for line := range strings.Lines(out) {
		var record struct{ SVID *loggedSVID }
		if json.Unmarshal([]byte(line), &record) == nil && record.SVID != nil {
			last = record.SVID
		}
	}
	return last
}

type loggedSVID struct {
	SPIFFEID            string
	DNSNames            []string
	NotBefore, NotAfter time.Time
}

// killContainer ends the processes of a pod's container with SIGKILL, as a crash would: nothing is released or said goodbye to.
func killContainer(namespace, pod, container string) {
	GinkgoHelper()
	inCluster := func(args ...string) string {
		GinkgoHelper()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		args = append([]string{"--name", os.Getenv("PAYMESH_CLUSTER"), "exec", "--", "ctr", "-n", "k8s.io"}, args...)
		out, err := exec.CommandContext(ctx, os.Getenv("PAYMESH_CLUSTER_BIN"), args...).Output()
		Expect(err).NotTo(HaveOccurred())
		return strings.TrimSpace(string(out))
	}
	id := inCluster("containers", "ls", "-q", fmt.Sprintf(`labels."io.kubernetes.pod.namespace"==%s,labels."io.kubernetes.pod.name"==%s,labels."io.kubernetes.container.name"==%s`, namespace, pod, container))
	Expect(id).NotTo(BeEmpty())
	for _, one := range strings.Fields(id) { // a container that ended earlier may still be listed
		if strings.Contains(inCluster("tasks", "ls"), one) {
			inCluster("tasks", "kill", "-s", "SIGKILL", one)
		}
	}
}
