//go:build e2e

package e2e

import (
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// everywhere is an identity with one entry for all nodes, a path of values, and the names of the Services before its pods.
const everywhere = `
---
apiVersion: mesh.jia.app/v1alpha1
kind: ServiceIdentity
metadata: {name: everywhere, namespace: payments}
spec:
  pathTemplate: "/payment-service/{{namespace}}/{{podLabels.app}}"
  serviceAccountName: everywhere
  podLabels: {app: everywhere}
  serviceDNSNames: true
  placement: Cluster
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: payments}
spec: {clusterIP: None, selector: {app: everywhere}, ports: [{port: 80}]}`

var _ = Describe("an identity for every node", Ordered, func() {
	const entries = "pm1.main.payments.everywhere."
	BeforeAll(func() {
		apply(everywhere)
		DeferCleanup(func() {
			kubectl("delete", "-n", namespace, "sid/everywhere", "service/front", "pod/everywhere", "serviceaccount/everywhere", "--ignore-not-found", "--now")
		})
	})

	It("has its entry before any pod, and reaches the first one with the path of its values and the names of its Service", func() {
		Eventually(func(g Gomega) {
			g.Expect(slices.Collect(maps.Keys(entriesOf(g, entries)))).To(Equal([]string{entries + "cluster"}))
		}).Should(Succeed())
		apply(pod("everywhere", "everywhere"))
		Eventually(func(g Gomega) {
			got := svid(g, namespace, "app=everywhere")
			g.Expect(got).NotTo(BeNil())
			g.Expect(got.SPIFFEID).To(Equal("spiffe://jia.app/payment-service/payments/everywhere"))
			g.Expect(got.DNSNames).To(Equal([]string{"front", "front.payments", "front.payments.svc", "front.payments.svc.cluster.local"}))
		}).Should(Succeed())
	})

	It("moves to the nodes of its pods, and its pod is never without it", func() {
		uid := kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.uid}")
		kubectl("patch", "sid", "-n", namespace, "everywhere", "--type=merge", "-p", `{"spec": {"placement": "Node"}}`)
		Eventually(func(g Gomega) {
			g.Expect(slices.Collect(maps.Keys(entriesOf(g, entries)))).To(ConsistOf(entries+"cluster", entries+uid), "both are there for the grace time")
		}).WithTimeout(auditInterval).Should(Succeed())
		Consistently(func(g Gomega) {
			log := kubectl("logs", "-n", namespace, "everywhere")
			_, since, issued := strings.Cut(log, "spiffe://jia.app/payment-service/payments/everywhere")
			g.Expect(issued).To(BeTrue())
			g.Expect(since).NotTo(ContainSubstring("no identity issued"))
		}).WithTimeout(5 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		Expect(condition("sid", namespace, "everywhere", "Ready")).To(HavePrefix("True"))
	})

	It("says in kubectl describe why a pod of it waits", func() {
		DeferCleanup(func() { kubectl("delete", "-n", namespace, "pod/nowhere", "--ignore-not-found", "--now") })
		manifest := strings.ReplaceAll(pod("nowhere", "everywhere"), "labels: {app: nowhere}", "labels: {app: everywhere}")
		apply(strings.ReplaceAll(manifest, "  serviceAccountName: everywhere\n", "  serviceAccountName: everywhere\n  nodeSelector: {disk: none}\n"))
		Eventually(func() string { return kubectl("describe", "sid", "-n", namespace, "everywhere") }).
			Should(MatchRegexp(`(?s)Waiting Pods:\s+Count:\s+1\s+Names:\s+nowhere\s+Reason:\s+Unscheduled`))
	})
})
