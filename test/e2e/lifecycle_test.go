//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// peopleService is a MeshService in the namespace people that anybody of the mesh could be.
func peopleService(name string) string {
	return fmt.Sprintf(`
---
apiVersion: mesh.jia.app/v1alpha1
kind: MeshService
metadata: {name: %s, namespace: people}
spec:
  ports: [{name: grpc, port: 50051, protocol: GRPC}]
  workload: {image: "paymesh/people:dev", args: [--service=contact], health: {path: /health, port: 9090}}`, name)
}

// owned are the objects in the namespace people that a MeshService makes.
func owned(name string) []string {
	GinkgoHelper()
	return strings.Fields(kubectl("get", "pods,deployments,replicasets,services,endpointslices,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets,serviceidentities",
		"-n", "people", "-l", "mesh.jia.app/service="+name, "-o", "name"))
}

var _ = Describe("a MeshService that is deleted", func() {
	It("leaves nothing behind: first its pods go, with their identity and their config to the end, then the entries", func() {
		const name, entries = "leaving", "pm1.main.people.leaving."
		apply(peopleService(name))
		DeferCleanup(func() { kubectl("delete", "msvc", "-n", "people", name, "--ignore-not-found") })
		ready("msvc", "people", name)
		Expect(owned(name)).NotTo(BeEmpty())
		admin := portForward("people", onlyPod("people", name).Name, "8500")
		connected, managers := overManagers("paymesh_xds_connected_proxies")
		served, _ := overManagers("paymesh_xds_objects")

		kubectl("delete", "msvc", "-n", "people", name, "--wait=false")
		Eventually(func(g Gomega) {
			pods := podsOf("people", name)
			g.Expect(pods).To(HaveLen(1))
			g.Expect(pods[0].DeletionTimestamp).NotTo(BeNil())
		}).WithPolling(50 * time.Millisecond).Should(Succeed())
		Expect(page("http://"+admin+"/config_dump?resource=dynamic_listeners")).To(ContainSubstring("15443"), "it drains, and its proxy has its config")
		Expect(condition("msvc", "people", name, "WorkloadReady")).To(HavePrefix("False Terminating"))

		Eventually(func(g Gomega) {
			there := entriesOf(g, entries) // asked before the pods: what is missing here was missing while they are looked at
			pods := podsOf("people", name)
			if len(there) == 0 && len(pods) > 0 {
				StopTrying("the entry went before the pod").Now()
			}
			g.Expect(there).To(BeEmpty())
			g.Expect(pods).To(BeEmpty())
		}).Should(Succeed())
		kubectl("wait", "-n", "people", "--for=delete", "msvc/"+name, "--timeout=30s")
		Eventually(func() []string { return owned(name) }).Should(BeEmpty())
		Eventually(func(g Gomega) {
			now, _ := overManagers("paymesh_xds_connected_proxies")
			has, _ := overManagers("paymesh_xds_objects")
			g.Expect(now).To(Equal(connected - 1))
			g.Expect(has).To(Equal(served-managers), "no manager has config for it any more")
		}).Should(Succeed())
	})
})

var _ = Describe("what somebody changes by hand", func() {
	It("comes back: a Deployment's replicas and image, a Service, a NetworkPolicy", func() {
		before := runs()
		kubectl("scale", "-n", "people", "deployment/document-service", "--replicas=0")
		kubectl("patch", "service", "-n", "people", "document-service", "--type=merge", "-p", `{"spec": {"selector": {"app": "another"}}}`)
		kubectl("delete", "networkpolicy", "-n", "people", "document-service")
		kubectl("delete", "service", "-n", "people", "family-service")
		kubectl("set", "image", "-n", "people", "deployment/family-service", "app=paymesh/other:dev")
		Eventually(func(g Gomega) {
			g.Expect(kubectl("get", "deployment", "-n", "people", "document-service", "-o", "jsonpath={.spec.replicas}")).To(Equal("1"))
			g.Expect(kubectl("get", "service", "-n", "people", "document-service", "-o", "jsonpath={.spec.selector.app}")).To(Equal("document-service"))
			g.Expect(kubectl("get", "networkpolicy,service", "-n", "people", "-o", "name")).To(And(
				ContainSubstring("networkpolicy.networking.k8s.io/document-service"), ContainSubstring("service/family-service")))
			g.Expect(kubectl("get", "deployment", "-n", "people", "family-service", "-o", `jsonpath={.spec.template.spec.containers[0].image}`)).To(Equal("paymesh/people:dev"))
		}).WithTimeout(20 * time.Second).Should(Succeed())
		for _, name := range []string{"document-service", "family-service"} {
			ready("msvc", "people", name)
			onlyPod("people", name)
		}
		Eventually(func() map[string]string {
			return without(without(runs(), "people", "document-service"), "people", "family-service")
		}).
			Should(Equal(without(without(before, "people", "document-service"), "people", "family-service")))
	})
})

// overManagers is the sum of a metric of all managers, and how many they are.
func overManagers(metric string) (total, managers float64) {
	GinkgoHelper()
	for _, page := range managerMetrics(Default) {
		total += sum(page, metric, "")
		managers++
	}
	return total, managers
}
