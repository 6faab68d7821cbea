//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// Where peers find the services.
const (
	paymentAddress = "payment-service.payments.svc:15443"
	contactAddress = "contact-service.people.svc:15443"
	aUser          = `{"user_id": "user_123"}`
)

var _ = Describe("a payment from outside", func() {
	It("crosses the gateway and two sidecars, is stored, and is replayed for the same key", func() {
		paid := customer.pay("token", "order-1", 1050)
		Expect(paid).To(And(HaveField("Status", http.StatusOK), HaveField("Body", ContainSubstring(`10.50 EUR`))))
		again := customer.pay("token", "order-1", 1050)
		Expect(again).To(And(HaveField("Status", http.StatusOK), HaveField("Body", paid.Body), HaveField("Replayed", true)))
		Expect(customer.ask(http.MethodGet, "/v1/payments/"+paid.paymentID(), "token", "", "")).To(HaveField("Body", paid.Body))
	})

	It("is refused for the same key with another amount", func() {
		Expect(customer.pay("token", "order-2", 1050).Status).To(Equal(http.StatusOK))
		Expect(customer.pay("token", "order-2", 2000)).To(And(
			HaveField("Status", http.StatusBadRequest), HaveField("Body", ContainSubstring("IDEMPOTENCY_KEY_REUSED"))))
	})

	DescribeTable("is refused with 401, and the gateway's log says which check failed", func(token, failure string) {
		Expect(customer.pay(token, "order-3", 1050)).To(And(HaveField("Status", http.StatusUnauthorized), HaveField("Body", ContainSubstring(failure))))
		Eventually(func(g Gomega) {
			g.Expect(logs(g, "edge", "deployment/public", "proxy", map[string]string{"code": "401", "details": "~" + strings.ReplaceAll(failure, " ", "_")})).NotTo(BeEmpty())
		}).Should(Succeed())
	},
		Entry("without a JWT", "", "Jwt is missing"),
		Entry("with an expired one", "token-expired", "Jwt is expired"),
		Entry("with one for another audience", "token-other-audience", "Audiences in Jwt are not allowed"),
	)

	It("cannot be asked for by a method that is not exposed, nor by native gRPC", func() {
		Expect(customer.ask(http.MethodGet, "/v1/payments", "token", "", "")).To(HaveField("Status", http.StatusNotFound))
		empty := string(make([]byte, 5)) // a message without fields, which the service would refuse with INVALID_ARGUMENT
		Expect(customer.askAs("application/grpc", http.MethodPost, "/payment.v1.PaymentService/CreatePayment", "token", empty, "order-4")).To(
			And(HaveField("Status", http.StatusOK), HaveField("GRPCStatus", "12")), "UNIMPLEMENTED: there is no such route")
	})
})

var _ = Describe("a call that nobody allowed", func() {
	It("is refused without an identity, though the NetworkPolicy lets the pod through", func() {
		Expect(probe("edge", "nobody", "call", "--anonymous", paymentAddress, "payment.v1.PaymentService/GetPayment", "{}")).To(ContainSubstring("Unavailable"))
		Eventually(func(g Gomega) {
			g.Expect(logs(g, "payments", "deployment/payment-service", "proxy", map[string]string{
				"log": "handshake", "mesh_service": "payments/payment-service", "failure": "~PEER_DID_NOT_RETURN_A_CERTIFICATE",
			})).NotTo(BeEmpty())
		}).Should(Succeed())
	})

	It("is denied to another SPIFFE ID, though the pod has an allowed caller's labels; log and metric say so", func() {
		before := denials()
		said := probe("payments", "impostor", "call", contactAddress, "contact.v1.ContactService/GetUserInfo", aUser)
		Expect(said).To(And(ContainSubstring("PermissionDenied"), ContainSubstring("nearest rule: payments (this method, other callers)")))
		Eventually(func(g Gomega) {
			g.Expect(logs(g, "people", "deployment/contact-service", "proxy", map[string]string{
				"log": "inbound", "mesh_service": "people/contact-service", "caller": "spiffe://jia.app/ns/payments/sa/impostor",
				"method": "/contact.v1.ContactService/GetUserInfo", "nearest_rule": "payments (this method, other callers)",
			})).NotTo(BeEmpty())
			g.Expect(denials()).To(BeNumerically(">", before))
		}).Should(Succeed())
	})

	It("is denied to an allowed caller, for a method that its rule does not have", func() {
		address := portForward("payments", "deployment/payment-service", "50051")
		said, err := tool(own("probe"), "", "call", "--plaintext", address, "contact.v1.ContactService/GetFamilyMembers", `{"family_id": "family_456"}`)
		Expect(err).NotTo(HaveOccurred())
		Expect(said).To(And(ContainSubstring("PermissionDenied"), ContainSubstring("nearest rule: payments (this caller, other methods)")))
		Eventually(func(g Gomega) {
			g.Expect(logs(g, "people", "deployment/contact-service", "proxy", map[string]string{
				"log": "inbound", "caller": "spiffe://jia.app/payment-service", "nearest_rule": "payments (this caller, other methods)",
			})).NotTo(BeEmpty())
		}).Should(Succeed())
	})

	It("is stopped by the NetworkPolicy where the pod has no caller's labels", func() {
		Expect(probe("payments", "outsider", "dial", "--wait", "10s", "contact-service.people.svc:9090")).To(ContainSubstring("open"))
		Expect(probe("payments", "outsider", "dial", contactAddress)).To(ContainSubstring("refused"))
	})

	It("finds nobody at the application's port around the sidecar, not even from the node", func() {
		pod := onlyPod("payments", "payment-service")
		_, err := inCluster("bash", "-c", fmt.Sprintf("</dev/tcp/%s/8081", pod.Status.PodIP))
		Expect(err).To(MatchError(ContainSubstring("Connection refused")))
		_, err = inCluster("bash", "-c", fmt.Sprintf("</dev/tcp/%s/15443", pod.Status.PodIP))
		Expect(err).NotTo(HaveOccurred(), "the sidecar listens")
	})
})

var _ = Describe("a MeshService that is Ready", func() {
	It("is shown with its identity, its proxies and its endpoints", func() {
		Expect(kubectl("get", "msvc", "-n", "payments", "payment-service", "--no-headers")).To(MatchRegexp(`^payment-service\s+True\s+True\s+1/1\s+1\s`))
		Expect(kubectl("get", "msvc", "-n", "payments", "payment-service", "-o", "wide")).To(ContainSubstring("spiffe://jia.app/payment-service"))
		Expect(kubectl("get", "mgw", "-n", "edge", "public", "--no-headers")).To(MatchRegexp(`^public\s+True\s`))
	})

	It("shows its certificate, tells of its peers, and its sidecar tells what it holds", func() {
		shown, err := tool(own("probe"), "", "certificate", portForward("payments", "deployment/payment-service", "15443"))
		Expect(err).NotTo(HaveOccurred())
		Expect(shown).To(ContainSubstring(`"spiffeID":"spiffe://jia.app/payment-service"`))
		Expect(page("http://" + portForward("payments", "deployment/payment-service", "9090") + "/health/services")).To(ContainSubstring("contact"))
		held := page("http://" + portForward("payments", "deployment/payment-service", "8500") + "/config_dump?resource=dynamic_active_clusters")
		Expect(held).To(ContainSubstring("people/contact-service/grpc"))
		Expect(held).NotTo(Or(ContainSubstring("family-service"), ContainSubstring("document-service")), "it declared no such dependency")
	})
})

var _ = Describe("a pod of the payment service that is deleted", func() {
	It("comes back with its payments and its idempotency keys", func() {
		paid := customer.pay("token", "order-kept", 1050)
		Expect(paid.Status).To(Equal(http.StatusOK))
		kubectl("delete", "pod", "-n", "payments", onlyPod("payments", "payment-service").Name)
		Eventually(func() answer { return customer.ask(http.MethodGet, "/v1/payments/"+paid.paymentID(), "token", "", "") }).
			WithTimeout(90 * time.Second).Should(And(HaveField("Status", http.StatusOK), HaveField("Body", paid.Body)))
		Expect(customer.pay("token", "order-kept", 1050)).To(And(HaveField("Body", paid.Body), HaveField("Replayed", true)))
		ready("meshservice", "payments", "payment-service")
	})
})

var _ = Describe("a payment service that speaks mTLS itself, by one field", Ordered, func() {
	dataPlane := func(name string) {
		kubectl("patch", "msvc", "-n", "payments", "payment-service", "--type=merge", "-p", `{"spec": {"dataPlane": "`+name+`"}}`)
		ready("msvc", "payments", "payment-service")
	}
	BeforeAll(func() {
		Expect(customer.pay("token", "order-sidecar", 1050).Status).To(Equal(http.StatusOK))
		began := time.Now()
		dataPlane("Library")
		AddReportEntry("from Sidecar to Library, Ready", time.Since(began).Round(100*time.Millisecond).String())
		DeferCleanup(dataPlane, "Sidecar")
	})

	It("has no proxy, the same certificate, and the same payments", func() {
		pod := onlyPod("payments", "payment-service")
		Expect(pod.Spec.InitContainers).To(BeEmpty())
		Expect(pod.Spec.Containers).To(HaveLen(1))
		Expect(customer.pay("token", "order-sidecar", 1050)).To(And(HaveField("Status", http.StatusOK), HaveField("Replayed", true)))
		Expect(customer.pay("token", "order-library", 1050).Status).To(Equal(http.StatusOK))
		shown, err := tool(own("probe"), "", "certificate", portForward("payments", "deployment/payment-service", "15443"))
		Expect(err).NotTo(HaveOccurred())
		Expect(shown).To(ContainSubstring(`"spiffeID":"spiffe://jia.app/payment-service"`))
	})

	It("refuses by itself who has no certificate", func() {
		Expect(probe("edge", "nobody", "call", "--anonymous", paymentAddress, "payment.v1.PaymentService/GetPayment", "{}")).To(ContainSubstring("Unavailable"))
	})
})

var denied = regexp.MustCompile(`(?m)^envoy_http_rbac_denied\{[^}]*inbound[^}]*\} (\d+)$`)

// denials are how many calls the contact service's proxy has refused.
func denials() int {
	GinkgoHelper()
	count := 0
	for _, match := range denied.FindAllStringSubmatch(statsPage("people", onlyPod("people", "contact-service").Name), -1) {
		n, err := strconv.Atoi(match[1])
		Expect(err).NotTo(HaveOccurred())
		count += n
	}
	return count
}
