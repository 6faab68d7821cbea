//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/jia-app/paymesh/test/e2e/load"
)

// The client that pays all the while.
const (
	rate        = 100 // calls a second
	enoughCalls = 10_000
	callTimeout = 10 * time.Second
	// awayFor is how long no manager runs.
	awayFor = 60 * time.Second
)

// What one process of the payment service with dataPlane Library is: the auditor, and nobody else, may ask it for payments.
const (
	audited = "payment-library"
	auditor = `
apiVersion: mesh.jia.app/v1alpha1
kind: ServiceIdentity
metadata: {name: auditor, namespace: payments}
spec: {serviceAccountName: auditor}`
	audit = `
---
apiVersion: mesh.jia.app/v1alpha1
kind: MeshService
metadata: {name: payment-library, namespace: payments}
spec:
  dataPlane: Library
  ports: [{name: grpc, port: 8081, protocol: GRPC}]
  workload:
    image: paymesh/payment:dev
    persistence: {size: 1Gi, whenDeleted: Delete}
    policySupport: Enforced
    files: [{name: users-jwks, configMap: users-jwks}]
    config:
      auth: {jwt: {issuer: "https://issuer.jia.app", audience: payments, jwks_file: /etc/paymesh/files/users-jwks/jwks.json}}
  dependsOn:
  - {name: contact-service, service: {name: contact-service, namespace: people}, localPort: 50051}
  allow:
  - {name: auditors, from: {spiffeID: "spiffe://jia.app/ns/payments/sa/auditor"}, methods: [payment.v1.PaymentService/GetPayment]}`
	allowAudited = `{"name": "audited", "from": {"service": {"name": "payment-library", "namespace": "payments"}}, "methods": ["contact.v1.ContactService/GetUserInfo"]}`
)

var _ = Describe("a mesh that changes while a client pays", Ordered, func() {
	var client *load.Load
	var began time.Time

	BeforeAll(func() {
		shortLived("msvc", "payments", "payment-service", `"1m"`)
		shortLived("msvc", "people", "contact-service", `"1m"`)
		DeferCleanup(func() {
			shortLived("msvc", "payments", "payment-service", "null")
			shortLived("msvc", "people", "contact-service", "null")
		})
		apply(auditor + pod("auditor", "auditor") + audit)
		DeferCleanup(func() {
			kubectl("delete", "-n", "payments", "msvc/"+audited, "sid/auditor", "pod/auditor", "serviceaccount/auditor", "--ignore-not-found", "--now")
			restoreContact()
		})
		began = time.Now()
		client = load.Start(load.Options{
			Address: customer.gateway, Host: hostname, Roots: customer.roots, Token: key("token"), Rate: rate, Timeout: callTimeout,
		})
		DeferCleanup(func() {
			if client != nil {
				AddReportEntry("the client that paid", client.Stop().String())
			}
		})
	})

	It("takes a new allowed caller, and restarts nobody", func() {
		Eventually(func() string { return condition("msvc", "payments", audited, "DependenciesResolved") }).Should(SatisfyAll(
			HavePrefix("False NotAllowed"), ContainSubstring("people/contact-service")))
		before := without(runs(), "payments", audited)
		patchContact("/spec/allow/-", allowAudited)
		ready("msvc", "people", "contact-service")
		ready("msvc", "payments", audited)
		Expect(without(runs(), "payments", audited)).To(Equal(before))
		Expect(asAuditor()).To(ContainSubstring("NotFound"), "who is let in is told that there is no such payment")
	})

	It("lets a caller in and out again at its sidecar, and restarts nobody", func() {
		before := runs()
		asImpostor := func() string {
			return probe("payments", "impostor", "call", contactAddress, "contact.v1.ContactService/GetUserInfo", aUser)
		}
		Expect(asImpostor()).To(ContainSubstring("PermissionDenied"))
		patchContact("/spec/allow/-", `{"name": "guest", "from": {"spiffeID": "spiffe://jia.app/ns/payments/sa/impostor"}, "methods": ["contact.v1.ContactService/GetUserInfo"]}`)
		Eventually(asImpostor).Should(ContainSubstring("OK"))
		kubectl("patch", "msvc", "-n", "people", "contact-service", "--type=json", "-p", `[{"op": "remove", "path": "/spec/allow/2"}]`)
		revoked := time.Now()
		Eventually(asImpostor).WithTimeout(10 * time.Second).Should(ContainSubstring("PermissionDenied"))
		AddReportEntry("from a revoked allow to its refusal, at a sidecar", time.Since(revoked).Round(10*time.Millisecond).String())
		Expect(runs()).To(Equal(before))
	})

	It("takes a new dependency of the contact service, and rolls that alone", func() {
		before := runs()
		patchContact("/spec/dependsOn", `[{"name": "family-service", "service": {"name": "family-service"}, "localPort": 50061}]`)
		ready("msvc", "people", "contact-service")
		onlyPod("people", "contact-service")
		after := runs()
		Expect(without(after, "people", "contact-service")).To(Equal(without(before, "people", "contact-service")))
		Expect(after).NotTo(Equal(before))
		address := portForward("people", "deployment/contact-service", "50061")
		said, err := tool(own("probe"), "", "dial", address)
		Expect(err).NotTo(HaveOccurred())
		Expect(said).To(ContainSubstring("open"))
	})

	It("scales the contact service from 1 to 3 and back", func() {
		for _, replicas := range []int{3, 1} {
			kubectl("scale", "-n", "people", "meshservice/contact-service", fmt.Sprintf("--replicas=%d", replicas))
			ready("msvc", "people", "contact-service")
			Eventually(func() string {
				return kubectl("get", "msvc", "-n", "people", "contact-service", "-o", "jsonpath={.status.endpoints} {.status.proxies.summary}")
			}).Should(Equal(fmt.Sprintf("%d %d/%d", replicas, replicas, replicas)))
		}
		onlyPod("people", "contact-service")
	})

	It("rolls the gateway and the contact service", func() {
		rolled := []struct{ namespace, name, old string }{
			{"edge", "public", onlyPod("edge", "public").Name}, {"people", "contact-service", onlyPod("people", "contact-service").Name},
		}
		for _, of := range rolled {
			kubectl("rollout", "restart", "-n", of.namespace, "deployment/"+of.name)
			kubectl("rollout", "status", "-n", of.namespace, "deployment/"+of.name, "--timeout=120s")
		}
		for _, of := range rolled {
			Expect(onlyPod(of.namespace, of.name).Name).NotTo(Equal(of.old), "the old pod drains to its end")
		}
	})

	It("loses one manager after the other: the next leader writes within 20 s, and no proxy is sent anything", func() {
		before := held()
		Expect(before).NotTo(BeEmpty())
		for i := range 2 {
			Eventually(leader).ShouldNot(BeEmpty())
			dead := leader()
			killContainer("paymesh-system", leaderPod(), "manager")
			killed := time.Now()
			name := fmt.Sprintf("after-the-leader-%d", i)
			apply(identity(name, "", name) + pod(name, name))
			DeferCleanup(func() {
				kubectl("delete", "-n", "payments", "sid/"+name, "pod/"+name, "serviceaccount/"+name, "--ignore-not-found", "--now")
			})
			Eventually(func(g Gomega) { g.Expect(entriesOf(g, "pm1.main.payments."+name+".")).To(HaveLen(1)) }).Should(Succeed())
			took := time.Since(killed)
			AddReportEntry("from the leader's death to the next one's first write", took.Round(100*time.Millisecond).String())
			Expect(took).To(BeNumerically("<", 20*time.Second))
			Expect(leader()).NotTo(Equal(dead))
			kubectl("rollout", "status", "-n", "paymesh-system", "deployment/paymesh-manager", "--timeout=60s")
		}
		Eventually(held).Should(Equal(before), "each proxy has moved to the other replica, which has the same versions")
	})

	It("does without SPIRE's agent while that is replaced", func() {
		kubectl("rollout", "restart", "-n", "spire-system", "daemonset/spire-agent")
		kubectl("rollout", "status", "-n", "spire-system", "daemonset/spire-agent", "--timeout=90s")
	})

	It("has two managers that serve, of which one writes", func() {
		writes := map[string]float64{}
		Eventually(func(g Gomega) {
			for pod, metrics := range managerMetrics(g) {
				writes[pod] = sum(metrics, "rest_client_requests_total", `method="PATCH"`) + sum(metrics, "rest_client_requests_total", `method="DELETE"`)
				g.Expect(metrics).To(ContainSubstring("\npaymesh_xds_connected_proxies"), pod+" serves no proxies")
			}
			g.Expect(writes).To(HaveLen(2))
			g.Expect(writes).To(HaveKeyWithValue(leaderPod(), BeNumerically(">", 0)))
		}).Should(Succeed())
		for pod, count := range writes {
			if pod != leaderPod() {
				Expect(count).To(BeZero(), pod+" writes and does not lead")
			}
		}
	})

	It("goes on without a manager for 60 s: a new pod waits, and its application does not start", func() {
		By("a rule of a process that enforces its rules itself is taken back just before")
		kubectl("patch", "msvc", "-n", "payments", audited, "--type=json", "-p",
			`[{"op": "replace", "path": "/spec/allow/0/methods", "value": ["payment.v1.PaymentService/ListPayments"]}]`)
		Eventually(func() string {
			return kubectl("get", "configmap", "-n", "payments", audited+"-policy", "-o", `jsonpath={.data.policy\.yaml}`)
		}).Should(ContainSubstring("ListPayments"))
		revoked := time.Now()

		scaleManager(0)
		gone := time.Now()
		kubectl("delete", "pod", "-n", "people", onlyPod("people", "family-service").Name)
		var denied time.Duration
		Eventually(func(g Gomega) {
			for _, pod := range podsOf("people", "family-service") {
				if state := application(pod).State; state.Running != nil || state.Terminated != nil {
					StopTrying("the application was started, and its proxy has no config").Now()
				}
			}
			g.Expect(podsOf("people", "family-service")).To(ConsistOf(Satisfy(proxyWaits)))
			if denied == 0 && strings.Contains(asAuditor(), "PermissionDenied") {
				denied = time.Since(revoked)
			}
			g.Expect(denied).NotTo(BeZero(), "the auditor is still let in")
			g.Expect(time.Since(gone)).To(BeNumerically(">=", awayFor))
		}).WithTimeout(150 * time.Second).WithPolling(time.Second).Should(Succeed())
		AddReportEntry("from a revoked allow to its refusal, with dataPlane Library", denied.Round(time.Second).String())

		scaleManager(2)
		back := time.Now()
		ready("msvc", "people", "family-service")
		AddReportEntry("from the manager's return to the pod's readiness", time.Since(back).Round(100*time.Millisecond).String())
		kubectl("wait", "--for=condition=Ready", "meshservices,meshgateways", "--all", "-A", "--timeout=90s")
	})

	It("shows certificates that were made meanwhile", func() {
		for _, of := range []struct{ namespace, name string }{{"payments", "payment-service"}, {"people", "contact-service"}} {
			shown, err := tool(own("probe"), "", "certificate", portForward(of.namespace, "deployment/"+of.name, "15443"))
			Expect(err).NotTo(HaveOccurred())
			var certificate struct{ NotBefore, NotAfter time.Time }
			Expect(json.Unmarshal([]byte(shown), &certificate)).To(Succeed())
			Expect(certificate.NotBefore).To(BeTemporally(">", began), of.name)
			Expect(certificate.NotAfter).To(BeTemporally("<", time.Now().Add(2*time.Minute)), of.name)
		}
	})

	It("fails none of the calls", func() {
		Eventually(client.Sent).WithTimeout(2 * time.Minute).Should(BeNumerically(">=", enoughCalls))
		report := client.Stop()
		client = nil
		AddReportEntry("the client that paid", report.String())
		Expect(report.Failed).To(BeZero(), report.String())
		Expect(report.Rate).To(BeNumerically(">", 0.9*rate), report.String())
	})
})

// asAuditor asks for a payment that there is not.
func asAuditor() string {
	GinkgoHelper()
	out, err := run("", "exec", "-n", "payments", "auditor", "--", "/probe", "call", "--header", "authorization=Bearer "+key("token"),
		audited+".payments.svc:15443", "payment.v1.PaymentService/GetPayment", `{"payment_id": "pay_00000000-0000-0000-0000-000000000000"}`)
	if err != nil {
		return "no answer" // and no token in a log
	}
	return out
}

func patchContact(path, value string) {
	GinkgoHelper()
	kubectl("patch", "msvc", "-n", "people", "contact-service", "--type=json", "-p", fmt.Sprintf(`[{"op": "add", "path": %q, "value": %s}]`, path, value))
}

// restoreContact makes the contact service what the samples have.
func restoreContact() {
	GinkgoHelper()
	kubectl("patch", "msvc", "-n", "people", "contact-service", "--type=merge", "-p",
		`{"spec": {"dependsOn": null, "workload": {"replicas": 1}, "allow": [{"name": "payments", "from": {"service": {"name": "payment-service", "namespace": "payments"}}, "methods": ["contact.v1.ContactService/GetUserInfo"]}]}}`)
	ready("msvc", "people", "contact-service")
	onlyPod("people", "contact-service")
}

// shortLived has a service's certificates last so long, which is JSON, and be replaced after half of that.
func shortLived(kind, namespace, name, ttl string) {
	GinkgoHelper()
	kubectl("patch", kind, "-n", namespace, name, "--type=merge", "-p", `{"spec": {"identity": {"x509SVIDTTL": `+ttl+`}}}`)
	ready(kind, namespace, name)
}

func scaleManager(replicas int) {
	GinkgoHelper()
	kubectl("scale", "-n", "paymesh-system", "deployment/paymesh-manager", fmt.Sprintf("--replicas=%d", replicas))
	if replicas == 0 {
		kubectl("wait", "-n", "paymesh-system", "--for=delete", "pod", "-l", "app.kubernetes.io/component=manager", "--timeout=60s")
		return
	}
	kubectl("rollout", "status", "-n", "paymesh-system", "deployment/paymesh-manager", "--timeout=90s")
}

// held is what the proxies have: each resource's version, and when it came.
func held() map[string]string {
	GinkgoHelper()
	found := map[string]string{}
	for _, of := range []struct{ namespace, name string }{{"edge", "public"}, {"payments", "payment-service"}, {"people", "contact-service"}, {"people", "family-service"}} {
		address := portForward(of.namespace, "deployment/"+of.name, "8500")
		for _, kind := range []string{"dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs"} {
			var dump struct {
				Configs []struct {
					Name        string // a listener's
					VersionInfo string `json:"version_info"`
					LastUpdated string `json:"last_updated"`
					ActiveState struct {
						VersionInfo string `json:"version_info"`
						LastUpdated string `json:"last_updated"`
					} `json:"active_state"`
					Cluster     struct{ Name string }
					RouteConfig struct{ Name string } `json:"route_config"`
				}
			}
			Expect(json.Unmarshal([]byte(page("http://"+address+"/config_dump?resource="+kind)), &dump)).To(Succeed())
			for _, c := range dump.Configs {
				name := strings.Join([]string{of.namespace, of.name, kind, c.Name + c.Cluster.Name + c.RouteConfig.Name}, " ")
				found[name] = c.VersionInfo + c.ActiveState.VersionInfo + " of " + c.LastUpdated + c.ActiveState.LastUpdated
			}
		}
	}
	return found
}
