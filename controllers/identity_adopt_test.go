package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/test/lab"
)

var _ = Describe("adopting entries of somebody else's", func() {
	var r *rig
	var ns *corev1.Namespace
	var on *corev1.Node
	var workload *corev1.Pod
	var object *meshv1alpha1.ServiceIdentity
	var key types.NamespacedName
	BeforeEach(func() {
		r = newRig()
		ns, on = namespace(""), node()
		object, workload = identity(ns, "pay"), pod(ns, "pay", on.Name)
		key = mesh.KeyOf(object)
		r.settle(ns, on, workload, object)
		r.clock.Step(agentTTL + time.Minute) // the Node was there long before
	})
	// made makes an entry as somebody else would, with the identity's SPIFFE ID.
	made := func(id, parent string, selectors ...string) {
		GinkgoHelper()
		entry := &spiretypes.Entry{
			Id: id, SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
			ParentId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: parent},
		}
		for _, value := range selectors {
			entry.Selectors = append(entry.Selectors, &spiretypes.Selector{Type: "k8s", Value: value})
		}
		answer, err := r.spire.Entries.BatchCreateEntry(r.ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{entry}})
		Expect(err).NotTo(HaveOccurred())
		Expect(codes.Code(answer.Results[0].Status.Code)).To(Equal(codes.OK), answer.Results[0].Status.Message)
	}
	adopt := func(word string) {
		GinkgoHelper()
		object = r.identity(key)
		object.Annotations = map[string]string{meshv1alpha1.AnnotationAdoptEntries: word}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.settle(object)
	}
	agent := "/spire/agent/k8s_psat/main/some-node"

	It("leaves them alone without a word, and names which go with one: those of its own pods, and of pods that are gone", func() {
		other := pod(ns, "other", on.Name)
		r.settle(other)
		made("of-the-pod", agent, "pod-uid:"+string(workload.UID))
		made("of-a-pod-that-is-gone", agent, "pod-uid:00000000-0000-0000-0000-000000000000")
		made("of-another-pod", agent, "pod-uid:"+string(other.UID))
		made("by-hand", agent, "ns:"+ns.Name, "sa:pay")
		made("wider", agent, "ns:"+ns.Name)
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.entries()).To(HaveLen(7))

		adopt("*")
		Expect(r.reconcile(key).RequeueAfter).To(Equal(retry)) // since some stay, and that may end
		Expect(r.condition(key, "Registered")).To(Equal("True Adopting"))
		Expect(r.message(key, "Registered")).To(And(
			ContainSubstring("go when the grace time is over: of-the-pod, of-a-pod-that-is-gone, by-hand; "),
			ContainSubstring("of-another-pod (it is for a pod that this identity does not select: "+string(other.UID)+")"),
			ContainSubstring("wider (it is for workloads without k8s:sa:pay, too)")))
		Expect(r.entries()).To(HaveLen(7))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveLen(4), HaveKey("of-another-pod"), HaveKey("wider"), HaveKey(entryID(object, on)), HaveKey(aliasID(on))))
	})

	It("leaves those of other clusters and of machines alone, that of a pod that it cannot know, too, and says so", func() {
		elsewhere := map[string][]string{
			"pod-of-another-cluster": {"/spire/agent/k8s_psat/other/some-node", "pod-uid:00000000-0000-0000-0000-000000000000"},
			"by-hand-in-another":     {"/spire/agent/k8s_psat/other/some-node", "ns:" + ns.Name, "sa:pay"},
			"similar-name":           {"/spire/agent/k8s_psat/main-2/some-node", "ns:" + ns.Name, "sa:pay"},
			"machine":                {"/spire/agent/join_token/some-token", "ns:" + ns.Name, "sa:pay"},
			"alias-of-its-own":       {"/all-agents", "ns:" + ns.Name, "sa:pay"},
		}
		for id, of := range elsewhere {
			made(id, of[0], of[1:]...)
		}
		made("in-this-cluster", agent, "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		adopt("*")
		r.reconcile(key)
		Expect(r.message(key, "Registered")).To(And(
			ContainSubstring("go when the grace time is over: in-this-cluster; "),
			ContainSubstring("machine (it is not below an agent or a node of cluster main, but below spiffe://jia.app/spire/agent/join_token/some-token)")))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).NotTo(HaveKey("in-this-cluster"))
		for id := range elsewhere {
			Expect(r.entries()).To(HaveKey(id))
		}
		Expect(r.condition(key, "Registered")).To(Equal("True Adopting"))
	})

	It("leaves those alone whose workloads would lose a name, a partner or a hint, until the identity has it", func() {
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Eventually(r.registry.Bundles).Should(ContainElement("bank.example"))
		r.createByHand(&spiretypes.Entry{
			Id: "with-more", SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: agent},
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "pod-uid:" + string(workload.UID)}},
			DnsNames:  []string{"pay.example"}, FederatesWith: []string{"bank.example"}, Hint: "internal",
		})
		r.reconcile(key)
		adopt("*")
		for _, step := range []struct {
			stays  string
			change func(spec *meshv1alpha1.ServiceIdentitySpec)
		}{
			{"with-more (it has dnsNames that this identity lacks: pay.example)", func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.DNSNames = []meshv1alpha1.DNSName{"pay.example"} }},
			{"with-more (it has federatesWith that this identity lacks: bank.example)", func(spec *meshv1alpha1.ServiceIdentitySpec) {
				spec.FederatesWith = []meshv1alpha1.TrustDomain{"bank.example"}
			}},
			{"with-more (it has another hint: internal)", func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.Hint = "internal" }},
		} {
			r.reconcile(key)
			r.clock.Step(grace)
			r.reconcile(key)
			Expect(r.message(key, "Registered")).To(ContainSubstring(step.stays))
			Expect(r.entries()).To(HaveKey("with-more"))
			object = r.identity(key)
			step.change(&object.Spec)
			Expect(live.Update(r.ctx, object)).To(Succeed())
			r.settle(object)
		}
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).NotTo(HaveKey("with-more"))
	})

	It("lets one go the grace time after the entry that takes its place was made, however long others have been there", func() {
		second := node()
		made("everywhere", "/paymesh/main/nodes", "ns:"+ns.Name, "sa:pay")
		made("on-the-second", "/spire/agent/k8s_psat/main/"+string(second.UID), "ns:"+ns.Name, "sa:pay")
		made("on-the-first", "/spire/agent/k8s_psat/main/"+string(on.UID), "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		adopt("*")
		r.reconcile(key)
		r.clock.Step(grace)
		By("the reconcile that makes the entry of a new node")
		r.reconcile(key, second, pod(ns, "pay", second.Name))
		Expect(r.entries()).To(And(HaveKey(entryID(object, second)), HaveKey("everywhere"), HaveKey("on-the-second"), Not(HaveKey("on-the-first"))))
		r.clock.Step(grace - time.Second)
		By("one that makes an entry anew which somebody deleted")
		first := r.entries()[entryID(object, second)].GetCreatedAt()
		Eventually(func() int64 { return time.Now().Unix() }).Should(BeNumerically(">", first)) // SPIRE counts in seconds
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{entryID(object, second)}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() map[string]*spiretypes.Entry {
			r.reconcile(key)
			return r.entries()
		}).Should(HaveKey(entryID(object, second)))
		r.clock.Step(time.Second)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey("everywhere"), HaveKey("on-the-second")))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveLen(4), HaveKey(entryID(object, on)), HaveKey(entryID(object, second))))
	})

	It("deletes only what the word names, and nothing while its own are not there", func() {
		made("named", agent, "ns:"+ns.Name, "sa:pay")
		made("not-named", agent+"-2", "ns:"+ns.Name, "sa:pay")
		adopt("named, not-there")
		gone(workload)
		r.reconcile(key, workload)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True NoPods"))
		Expect(r.entries()).To(HaveLen(2))
		r.reconcile(key, pod(ns, "pay", on.Name))
		r.clock.Step(grace)
		Expect(r.reconcile(key).RequeueAfter).To(BeZero())
		Expect(r.entries()).To(And(HaveKey("not-named"), Not(HaveKey("named")), HaveKey(entryID(object, on))))
	})

	It("makes its own beside one that is in the way, and only then takes that away", func() {
		made("in-the-way", "/paymesh/main/node/"+string(on.UID), "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		adopt("in-the-way")
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		Expect(r.condition(key, "Registered")).To(Equal("True Adopting"))
		Expect(r.entries()).To(And(HaveKey("in-the-way"), HaveKey(entryID(object, on))))
		Expect(r.entries()[entryID(object, on)].Selectors).To(HaveLen(2))
		Expect(r.identity(key).Status.Entries.Summary).To(Equal("1/1"))
		written := r.writes()
		r.reconcile(key)
		Expect(r.writes()).To(Equal(written))
		r.clock.Step(grace)
		Expect(r.reconcile(key).RequeueAfter).To(BeZero())
		Expect(r.entries()).NotTo(HaveKey("in-the-way"))
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
	})

	It("does not advise to adopt what an object of this cluster has left behind, which no word makes go, and follows when that is deleted", func() {
		left := "pm1.main." + ns.Name + ".old." + string(on.UID)
		made(left, "/paymesh/main/node/"+string(on.UID), "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		adopt("*")
		Expect(r.reconcile(key).RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", retry)))
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		Expect(r.message(key, "Registered")).To(And(ContainSubstring("spire-server entry delete -entryID "+left), Not(ContainSubstring("adopt"))))
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{left}})
		Expect(err).NotTo(HaveOccurred())
		r.clock.Step(retry)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
	})

	It("makes its own, where it is to become the same as one in the way, what it is to be beside that", func() {
		r.reconcile(key)
		made("in-the-way", "/paymesh/main/node/"+string(on.UID), "ns:"+ns.Name, "sa:pay", "pod-label:tier:gold")
		workload.Labels = map[string]string{"tier": "gold"}
		Expect(live.Update(r.ctx, workload)).To(Succeed())
		object = r.identity(key)
		object.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{"tier": "gold"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(key, workload, object)
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		Expect(r.entries()[entryID(object, on)].Selectors).To(HaveLen(2))
		adopt("*")
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		Expect(r.condition(key, "Registered")).To(Equal("True Adopting"))
		Expect(r.entries()[entryID(object, on)].Selectors).To(HaveLen(3))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, on)), Not(HaveKey("in-the-way"))))
	})

	It("leaves one alone whose agent may run on a Node that was registered again, until it has attested again", func() {
		made("by-uid", "/spire/agent/k8s_psat/main/"+string(on.UID), "ns:"+ns.Name, "sa:pay")
		old := on.DeepCopy()
		gone(on)
		r.settle(old)
		registerAgain(on)
		r.clock.SetTime(on.CreationTimestamp.Time)
		r.reconcile(key, on)
		adopt("*")
		Expect(r.reconcile(key).RequeueAfter).To(Equal(retry))
		r.clock.Step(agentTTL - time.Second)
		r.reconcile(key)
		Expect(r.message(key, "Registered")).To(ContainSubstring("by-uid (it may be what the agent of Node " + on.Name))
		Expect(r.entries()).To(HaveKey("by-uid"))
		r.clock.Step(time.Second)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, on)), Not(HaveKey("by-uid"))))
	})

	It("does not wait for an agent, of a pod that is gone, and does for one that all agents are for", func() {
		made("of-a-pod-that-is-gone", agent, "pod-uid:00000000-0000-0000-0000-000000000000")
		made("for-all", "/paymesh/main/nodes", "ns:"+ns.Name, "sa:pay")
		r.clock.SetTime(on.CreationTimestamp.Time)
		r.reconcile(key)
		adopt("*")
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey("for-all"), Not(HaveKey("of-a-pod-that-is-gone"))))
		r.clock.Step(agentTTL)
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).NotTo(HaveKey("for-all"))
	})

	It("counts the grace time of one below an agent that goes by its pod from our newest entry", func() {
		second := node()
		made("by-pod", "/spire/agent/k8s_psat/main/"+string(workload.UID), "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		adopt("*")
		r.reconcile(key)
		r.clock.Step(grace - time.Second)
		r.reconcile(key, second, pod(ns, "pay", second.Name))
		r.clock.Step(time.Second)
		r.reconcile(key)
		Expect(r.entries()).To(HaveKey("by-pod"))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, second)), Not(HaveKey("by-pod"))))
	})

	It("never takes an entry of another cluster's paymesh for one to adopt, and shows in a dry run what would go", func() {
		made("pm1.other.payments.pay.1", agent, "ns:"+ns.Name, "sa:pay")
		made("by-hand", agent+"-2", "ns:"+ns.Name, "sa:pay")
		r.reconcile(key)
		adopt("*")
		r.restartWith(registry.Options{DryRun: true})
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True DryRun"))
		Expect(r.message(key, "Registered")).To(HaveSuffix("it would delete by-hand"))
		Expect(r.entries()).To(HaveKey("by-hand"))
		r.restartWith(registry.Options{})
		r.reconcile(key) // whose grace time begins
		Expect(r.entries()).To(HaveKey("by-hand"))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey("pm1.other.payments.pay.1"), Not(HaveKey("by-hand"))))
	})
})
