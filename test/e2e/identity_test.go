//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

// The samples' identities: that of the payment service, which its MeshService asked for, and one of its own.
const (
	namespace     = "payments"
	sample        = "payment-service"
	sampleEntries = "pm1.main.payments.payment-service."
	alone         = "ledger"
	// auditInterval is the manager's default: how long a change by hand in SPIRE may stand.
	auditInterval = 30 * time.Second
)

var _ = Describe("a ServiceIdentity", Ordered, func() {
	BeforeAll(func() {
		apply(pod(alone, alone))
		DeferCleanup(func() { kubectl("delete", "-n", namespace, "pod,serviceaccount", alone, "--ignore-not-found", "--now") })
	})

	It("is Ready once SPIRE holds its entries, and kubectl get shows them", func() {
		Eventually(func() string { return kubectl("get", "sid", "-n", namespace, sample, "--no-headers") }).
			Should(MatchRegexp(`^payment-service\s+True\s+spiffe://jia.app/payment-service\s+1/1\s`))
		Eventually(func() string { return kubectl("get", "sid", "-n", namespace, alone, "--no-headers") }).
			Should(MatchRegexp(`^ledger\s+True\s+spiffe://jia.app/ns/payments/sa/ledger\s+1/1\s`))
	})

	It("has one entry on its pod's node, under the node's alias", func() {
		uid := kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.uid}")
		Eventually(func(g Gomega) {
			entries := entriesOf(g, sampleEntries)
			g.Expect(slices.Collect(maps.Keys(entries))).To(ConsistOf(sampleEntries + uid))
			e := entries[sampleEntries+uid]
			g.Expect(e.SPIFFEID).To(Equal(spiffeID{"jia.app", "/payment-service"}))
			g.Expect(e.ParentID).To(Equal(spiffeID{"jia.app", "/paymesh/main/node/" + uid}))
			g.Expect(fmt.Sprint(e.Selectors)).To(Equal("[{k8s ns:payments} {k8s pod-label:mesh.jia.app/service:payment-service} {k8s sa:payment-service}]"))
			g.Expect(entriesOf(g, "pm1.main.node.")).To(HaveKey("pm1.main.node." + uid))
		}).Should(Succeed())
	})

	It("reaches its pod as an X.509 SVID with its SPIFFE ID, DNS names and lifetime", func() {
		Eventually(func(g Gomega) {
			got := svid(g, namespace, "app="+alone)
			g.Expect(got).NotTo(BeNil())
			g.Expect(got.SPIFFEID).To(Equal("spiffe://jia.app/ns/payments/sa/ledger"))
			g.Expect(got.DNSNames).To(Equal([]string{"ledger", "ledger.payments.svc"}))
			g.Expect(got.NotAfter.Sub(got.NotBefore)).To(BeNumerically("~", time.Hour, time.Minute))
		}).Should(Succeed())
	})

	It("reaches a pod that comes back on the same node, and no entry changes", func() {
		before := revisions(Default, "pm1.")
		kubectl("delete", "pod", "-n", namespace, alone, "--now")
		apply(pod(alone, alone))
		Eventually(func(g Gomega) { g.Expect(svid(g, namespace, "app="+alone)).NotTo(BeNil()) }).Should(Succeed())
		Consistently(func(g Gomega) { g.Expect(revisions(g, "pm1.")).To(Equal(before)) }).WithTimeout(5 * time.Second).Should(Succeed())
	})

	It("does not reach a pod of another service account in the same namespace", func() {
		Eventually(func() (string, error) { return run("", "logs", "-n", namespace, "outsider") }).
			Should(ContainSubstring("no identity issued"))
		Expect(svid(Default, namespace, "app=outsider")).To(BeNil())
	})

	It("is refused by the API server with what to write instead", func() {
		_, err := run(`
apiVersion: mesh.jia.app/v1alpha1
kind: ServiceIdentity
metadata: {name: invalid, namespace: payments}
spec: {path: /payments/../admin, serviceAccountName: x}`, "apply", "-f", "-")
		Expect(err).To(MatchError(ContainSubstring("path must consist of segments, as in /payments/api")))
	})

	It("is not accepted with a path that nobody granted, and says what the administrator would type", func() {
		apply(identity("greedy", "/other-service", "greedy"))
		DeferCleanup(func() { kubectl("delete", "sid", "-n", namespace, "greedy", "--ignore-not-found") })
		Eventually(func() string { return condition("sid", namespace, "greedy", "Accepted") }).Should(SatisfyAll(
			HavePrefix("False PathNotGranted "),
			ContainSubstring("kubectl annotate --overwrite namespace payments mesh.jia.app/spiffe-path-prefixes=/payment-service,/other-service")))
		Expect(condition("sid", namespace, "greedy", "Ready")).To(HavePrefix("False PathNotGranted"))
	})

	It("leaves an ID to who had it first, and tells the newcomer", func() {
		apply(identity("newcomer", "/payment-service", "newcomer"))
		DeferCleanup(func() { kubectl("delete", "sid", "-n", namespace, "newcomer", "--ignore-not-found") })
		Eventually(func() string { return condition("sid", namespace, "newcomer", "Accepted") }).Should(SatisfyAll(
			HavePrefix("False IDClaimed"), ContainSubstring("payments/payment-service")))
		Expect(condition("sid", namespace, sample, "Ready")).To(HavePrefix("True"))
	})

	It("gets an entry back that was deleted by hand", func() {
		id := slices.Collect(maps.Keys(entriesOf(Default, sampleEntries)))[0]
		_, err := spireServer("entry", "delete", "-entryID", id)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) { g.Expect(entriesOf(g, sampleEntries)).To(HaveKey(id)) }).
			WithTimeout(2 * auditInterval).WithPolling(time.Second).Should(Succeed())
	})

	It("never touches an entry of somebody else's, names one that is in its way, and follows when that is gone", func() {
		uid := kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.uid}")
		_, err := spireServer("entry", "create", "-entryID", "foreign", "-spiffeID", "spiffe://jia.app/ns/payments/sa/conflicted",
			"-parentID", "spiffe://jia.app/paymesh/main/node/"+uid, "-selector", "k8s:ns:payments", "-selector", "k8s:sa:conflicted")
		Expect(err).NotTo(HaveOccurred())
		apply(identity("conflicted", "", "conflicted") + pod("conflicted", "conflicted"))
		DeferCleanup(func() {
			kubectl("delete", "-n", namespace, "sid/conflicted", "pod/conflicted", "serviceaccount/conflicted", "--ignore-not-found", "--now")
		})
		Eventually(func() string { return condition("sid", namespace, "conflicted", "Registered") }).Should(SatisfyAll(
			HavePrefix("False Conflict"), ContainSubstring("entry foreign, which is not this object's")))
		Expect(entriesOf(Default, "foreign")).To(HaveKeyWithValue("foreign", HaveField("RevisionNumber", "0")))
		_, err = spireServer("entry", "delete", "-entryID", "foreign")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() string { return condition("sid", namespace, "conflicted", "Ready") }).WithTimeout(2 * auditInterval).Should(HavePrefix("True"))
	})
})

var _ = Describe("a manager that is rolled", func() {
	It("changes no entry", func() {
		before, led := revisions(Default, "pm1."), leader()
		kubectl("rollout", "restart", "-n", "paymesh-system", "deployment/paymesh-manager")
		kubectl("rollout", "status", "-n", "paymesh-system", "deployment/paymesh-manager", "--timeout=90s")
		Eventually(leader).ShouldNot(Or(BeEmpty(), Equal(led)))
		By("the new leader writes, and changes nothing else")
		apply(identity("after-the-restart", "", "after-the-restart") + pod("after-the-restart", "after-the-restart"))
		DeferCleanup(func() {
			kubectl("delete", "-n", namespace, "sid/after-the-restart", "pod/after-the-restart", "serviceaccount/after-the-restart", "--ignore-not-found", "--now")
		})
		Eventually(func(g Gomega) { g.Expect(entriesOf(g, "pm1.main.payments.after-the-restart.")).To(HaveLen(1)) }).Should(Succeed())
		for id := range entriesOf(Default, "pm1.main.payments.after-the-restart.") {
			before[id] = "0"
		}
		Consistently(func(g Gomega) { g.Expect(revisions(g, "pm1.")).To(Equal(before)) }).WithTimeout(5 * time.Second).Should(Succeed())
		kubectl("wait", "--for=condition=Ready", "serviceidentities", "--all", "-A", "--timeout=60s")
	})
})

var _ = Describe("a SPIRE server that is away", Ordered, func() {
	const name, late = "deleted-meanwhile", "late-service"
	var created time.Time
	BeforeAll(func() {
		apply(identity(name, "", name) + pod(name, name))
		Eventually(func() string { return condition("sid", namespace, name, "Ready") }).Should(HavePrefix("True"))
		kubectl("scale", "-n", "spire-system", "statefulset/spire-server", "--replicas=0")
		kubectl("wait", "-n", "spire-system", "--for=delete", "pod/spire-server-0", "--timeout=60s")
		apply(peopleService(late))
		created = time.Now()
		DeferCleanup(func() {
			kubectl("delete", "-n", namespace, "pod/"+name, "serviceaccount/"+name, "--ignore-not-found", "--now")
			kubectl("delete", "msvc", "-n", "people", late, "--ignore-not-found")
		})
	})

	It("shows in the condition of each identity, and the manager stays up", func() {
		for _, each := range []string{sample, alone, name} {
			Eventually(func() string { return condition("sid", namespace, each, "Registered") }).WithTimeout(2 * auditInterval).
				Should(HavePrefix("Unknown SPIREUnavailable"))
		}
		ready := kubectl("get", "pods", "-n", "paymesh-system", "-o", `jsonpath={.items[*].status.containerStatuses[0].ready}`)
		Expect(strings.Fields(ready)).To(HaveEach("true"))
	})

	It("keeps a new pod waiting, and its application from starting", func() {
		Eventually(func() []corev1.Pod { return podsOf("people", late) }).Should(ConsistOf(Satisfy(proxyWaits)))
		Consistently(func(g Gomega) {
			for _, pod := range podsOf("people", late) {
				g.Expect(application(pod).State.Running).To(BeNil(), "the application runs without an identity")
			}
		}).WithTimeout(max(time.Second, 20*time.Second-time.Since(created))).WithPolling(time.Second).Should(Succeed())
		Expect(podsOf("people", late)).To(ConsistOf(Satisfy(proxyWaits)))
		Expect(condition("msvc", "people", late, "Ready")).NotTo(HavePrefix("True"))
	})

	It("keeps a deleted identity until its entries can be deleted, says so, and leaves none behind once it is back", func() {
		kubectl("delete", "sid", "-n", namespace, name, "--wait=false")
		Eventually(func() string { return condition("sid", namespace, name, "Registered") }).Should(SatisfyAll(
			HavePrefix("Unknown SPIREUnavailable"), ContainSubstring("mesh.jia.app/spire-entries")))
		kubectl("scale", "-n", "spire-system", "statefulset/spire-server", "--replicas=1")
		kubectl("rollout", "status", "-n", "spire-system", "statefulset/spire-server", "--timeout=90s")
		back := time.Now()
		kubectl("wait", "-n", namespace, "--for=delete", "sid/"+name, "--timeout=60s")
		Expect(entriesOf(Default, "pm1.main.payments."+name+".")).To(BeEmpty())
		By("the pod that waited has its identity now")
		Eventually(func(g Gomega) { g.Expect(entriesOf(g, "pm1.main.people."+late+".")).To(HaveLen(1)) }).Should(Succeed())
		entered := time.Now()
		ready("msvc", "people", late)
		AddReportEntry("from SPIRE's return to the entry, and from there to the pod's readiness", fmt.Sprint(entered.Sub(back).Round(100*time.Millisecond), ", ", time.Since(entered).Round(100*time.Millisecond)))
		kubectl("wait", "--for=condition=Ready", "serviceidentities", "--all", "-A", "--timeout=60s")
	})
})

func identity(name, path, serviceAccount string) string {
	if path != "" {
		path = "path: " + path + ", "
	}
	return fmt.Sprintf(`
---
apiVersion: mesh.jia.app/v1alpha1
kind: ServiceIdentity
metadata: {name: %s, namespace: payments}
spec: {%sserviceAccountName: %s}`, name, path, serviceAccount)
}

// pod is a pod that logs its SVIDs, with its service account.
func pod(name, serviceAccount string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[2]s, namespace: payments}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: payments, labels: {app: %[1]s}}
spec:
  serviceAccountName: %[2]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: paymesh/probe:dev
    args: [watch]
    imagePullPolicy: IfNotPresent
    env: [{name: SPIFFE_ENDPOINT_SOCKET, value: "unix:///run/spire/agent-sockets/spire-agent.sock"}]
    volumeMounts: [{name: workload-api, mountPath: /run/spire/agent-sockets, readOnly: true}]
  volumes:
  - {name: workload-api, hostPath: {path: /run/spire/agent-sockets}}`, name, serviceAccount)
}
