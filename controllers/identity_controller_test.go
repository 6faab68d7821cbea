package controllers_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/test/lab"
)

var _ = Describe("reconciling a ServiceIdentity", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	It("takes one RPC to make an entry for the pod's node and the node's alias, and none when nothing changed", func() {
		ns, node := namespace(""), node()
		object, pod := identity(ns, "pay"), pod(ns, "pay", node.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, node, pod, object)
		Expect(r.writes()).To(Equal(1))
		Expect(r.entries()).To(HaveLen(2))
		entry := r.entries()[entryID(object, node)]
		Expect(entry.GetSpiffeId().GetPath()).To(Equal("/ns/" + ns.Name + "/sa/pay"))
		Expect(entry.GetParentId().GetPath()).To(Equal("/paymesh/main/node/" + string(node.UID)))
		Expect(r.entries()).To(HaveKey(aliasID(node)))

		status := r.identity(key).Status
		Expect(status.SPIFFEID).To(Equal("spiffe://jia.app/ns/" + ns.Name + "/sa/pay"))
		Expect(status.Entries).To(Equal(&meshv1alpha1.EntryCount{Wanted: 1, Registered: 1, Summary: "1/1"}))
		Expect(status.ObservedGeneration).To(Equal(object.Generation))
		Expect(r.condition(key, "Accepted")).To(Equal("True Accepted"))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.message(key, "Registered")).To(ContainSubstring(node.Name))

		version := r.identity(key).ResourceVersion
		Expect(r.reconcile(key)).To(Equal(ctrl.Result{}))
		Expect(r.writes()).To(Equal(1))
		Expect(r.identity(key).ResourceVersion).To(Equal(version))
	})

	It("makes one more entry with one more RPC when a pod comes to another node", func() {
		ns, first, second := namespace(""), node(), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, first, second, pod(ns, "pay", first.Name), object)
		r.reconcile(mesh.KeyOf(object), pod(ns, "pay", second.Name))
		Expect(r.writes()).To(Equal(2))
		Expect(r.entries()).To(HaveKey(entryID(object, first)))
		Expect(r.entries()).To(HaveKey(entryID(object, second)))
		Expect(r.identity(mesh.KeyOf(object)).Status.Entries.Summary).To(Equal("2/2"))
	})

	It("is Ready without an entry where no pod runs, and counts what is bound only", func() {
		ns := namespace("")
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, object, pod(ns, "pay", ""))
		Expect(r.condition(mesh.KeyOf(object), "Registered")).To(Equal("True NoPods"))
		Expect(r.condition(mesh.KeyOf(object), "Ready")).To(Equal("True Ready"))
		Expect(r.identity(mesh.KeyOf(object)).Status.Entries.Summary).To(Equal("0/0"))
		Expect(r.writes()).To(BeZero())
	})

	It("updates an entry in place when what it says changes", func() {
		ns, node := namespace(""), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, node, pod(ns, "pay", node.Name), object)
		object = r.identity(mesh.KeyOf(object))
		object.Spec.X509SVIDTTL, object.Spec.DNSNames, object.Spec.Hint = "90m", []meshv1alpha1.DNSName{"pay.example.com"}, "internal"
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), object)
		Expect(r.writes()).To(Equal(2))
		entry := r.entries()[entryID(object, node)]
		Expect(entry.GetX509SvidTtl()).To(Equal(int32(5400)))
		Expect(entry.GetDnsNames()).To(Equal([]string{"pay.example.com"}))
		Expect(entry.GetHint()).To(Equal("internal"))
		Expect(entry.GetRevisionNumber()).To(Equal(int64(1)))
	})

	It("takes the identity from pods that it selects no more at once, also where their node's entry stays for a while", func() {
		ns, on, off := namespace(""), node(), node()
		object := identity(ns, "pay")
		gold := pod(ns, "pay", on.Name)
		gold.Labels = map[string]string{"tier": "gold"}
		Expect(live.Update(r.ctx, gold)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), ns, on, off, gold, pod(ns, "pay", off.Name), object)
		object = r.identity(mesh.KeyOf(object))
		object.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{"tier": "gold"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), object)
		for _, node := range []*corev1.Node{on, off} {
			Expect(r.entries()[entryID(object, node)].GetSelectors()).To(ContainElement(HaveField("Value", "pod-label:tier:gold")))
		}
		written := r.writes()
		r.reconcile(mesh.KeyOf(object))
		Expect(r.writes()).To(Equal(written))
		r.clock.Step(grace)
		r.reconcile(mesh.KeyOf(object))
		Expect(r.entries()).To(And(HaveKey(entryID(object, on)), Not(HaveKey(entryID(object, off)))))
	})

	It("keeps the entry of a node whose last pod left for the grace time, unchanged where the pod comes back", func() {
		ns, node := namespace(""), node()
		object, first := identity(ns, "pay"), pod(ns, "pay", node.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, node, first, object)
		gone(first)
		Expect(r.reconcile(key, first).RequeueAfter).To(Equal(grace))
		Expect(r.entries()).To(HaveKey(entryID(object, node)))
		Expect(r.condition(key, "Registered")).To(Equal("True NoPods"))

		r.clock.Step(grace - time.Second)
		again := pod(ns, "pay", node.Name)
		Expect(r.reconcile(key, again)).To(Equal(ctrl.Result{}))
		Expect(r.entries()[entryID(object, node)].GetRevisionNumber()).To(BeZero())
		Expect(r.writes()).To(Equal(1))

		gone(again)
		Expect(r.reconcile(key, again).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace)
		Expect(r.reconcile(key)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).NotTo(HaveKey(entryID(object, node)))
		Expect(r.entries()).To(HaveKey(aliasID(node)))
	})

	It("removes nothing while a pod is bound to a node that the API server does not show", func() {
		ns, known := namespace(""), node()
		object, on := identity(ns, "pay"), pod(ns, "pay", known.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, known, on, object)
		gone(on)
		r.reconcile(key, on, pod(ns, "pay", "a-node-that-is-not-shown"))
		r.clock.Step(10 * grace)
		r.reconcile(key)
		Expect(r.entries()).To(HaveKey(entryID(object, known)))
		Expect(r.condition(key, "Registered")).To(Equal("Unknown NodeUnknown"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("a-node-that-is-not-shown"))
	})

	It("counts the grace time of an entry anew whose pod was back while another node was not shown", func() {
		ns, known := namespace(""), node()
		object, on := identity(ns, "pay"), pod(ns, "pay", known.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, known, on, object)
		gone(on)
		Expect(r.reconcile(key, on).RequeueAfter).To(Equal(grace))
		elsewhere, back := pod(ns, "pay", "a-node-that-is-not-shown"), pod(ns, "pay", known.Name)
		r.reconcile(key, elsewhere, back)
		r.clock.Step(2 * grace)
		gone(elsewhere)
		gone(back)
		Expect(r.reconcile(key, elsewhere, back).RequeueAfter).To(Equal(grace))
		Expect(r.entries()).To(HaveKey(entryID(object, known)))
	})

	It("registers nothing for a path that is not granted, everything once it is, and nothing again when the grant is taken back", func() {
		ns, node := namespace(""), node()
		object := identity(ns, "pay", path("/pay-"+ns.Name))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, node, pod(ns, "pay", node.Name), object)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.condition(key, "Registered")).To(Equal("False NotAccepted"))
		Expect(r.condition(key, "Ready")).To(Equal("False PathNotGranted"))
		Expect(r.entries()).To(BeEmpty())

		ns.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: object.Spec.Path}
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.reconcile(key, ns)
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.entries()).To(HaveKey(entryID(object, node)))

		ns.Annotations = nil
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.reconcile(key, ns)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.entries()).NotTo(HaveKey(entryID(object, node)))
	})

	It("leaves an ID to the incumbent, and tells the newcomer, though its name comes first", func() {
		ns, node := namespace("/shared"), node()
		incumbent := identity(ns, "b", path("/shared"))
		r.reconcile(mesh.KeyOf(incumbent), ns, node, incumbent, pod(ns, "b", node.Name))
		newcomer := identity(ns, "a", path("/shared"))
		r.reconcile(mesh.KeyOf(newcomer), pod(ns, "a", node.Name), newcomer)
		r.reconcile(mesh.KeyOf(incumbent))
		Expect(r.condition(mesh.KeyOf(newcomer), "Accepted")).To(Equal("False IDClaimed"))
		Expect(r.message(mesh.KeyOf(newcomer), "Accepted")).To(ContainSubstring(ns.Name + "/b"))
		Expect(r.condition(mesh.KeyOf(incumbent), "Ready")).To(Equal("True Ready"))
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf(entryID(incumbent, node), aliasID(node)))
	})

	It("leaves an ID to who was accepted, also where nothing of it runs and the manager starts while SPIRE is away", func() {
		first, second := namespace("/remembered"), namespace("")
		older := identity(second, "older", path("/remembered"))
		r.reconcile(mesh.KeyOf(older), second, older)
		incumbent := identity(first, "incumbent", path("/remembered"))
		r.reconcile(mesh.KeyOf(incumbent), first, incumbent)
		second.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: "/remembered"}
		Expect(live.Update(r.ctx, second)).To(Succeed())
		r.reconcile(mesh.KeyOf(older), second)
		both := func(olderIs, incumbentIs string) {
			GinkgoHelper()
			r.reconcile(mesh.KeyOf(older))
			r.reconcile(mesh.KeyOf(incumbent))
			r.reconcile(mesh.KeyOf(older))
			Expect(r.condition(mesh.KeyOf(older), "Accepted")).To(Equal(olderIs))
			Expect(r.condition(mesh.KeyOf(incumbent), "Accepted")).To(Equal(incumbentIs))
		}
		both("False IDClaimed", "True Accepted")
		r.spire.Stop()
		r.restart()
		both("False IDClaimed", "True Accepted")
		Expect(r.condition(mesh.KeyOf(incumbent), "Registered")).To(Equal("Unknown SPIREUnavailable"))
		r.spire.Start(GinkgoT())
		Eventually(func() bool { return r.registry.State().Answers() }).Should(BeTrue())
		both("False IDClaimed", "True Accepted")
	})

	It("does not go on saying that a path is not granted when it is, though SPIRE is away and a rival waits", func() {
		ns, other := namespace("/awaited"), namespace("")
		owner, late := identity(ns, "owner", path("/awaited")), identity(other, "late", path("/awaited"))
		r.reconcile(mesh.KeyOf(owner), ns, other, owner, late)
		r.reconcile(mesh.KeyOf(late))
		Expect(r.condition(mesh.KeyOf(late), "Accepted")).To(Equal("False PathNotGranted"))
		r.spire.Stop()
		r.restart()
		other.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: "/awaited"}
		Expect(live.Update(r.ctx, other)).To(Succeed())
		r.reconcile(mesh.KeyOf(late), other)
		Expect(r.condition(mesh.KeyOf(late), "Accepted")).To(Equal("Unknown Syncing"))
		r.reconcile(mesh.KeyOf(owner))
		Expect(r.condition(mesh.KeyOf(owner), "Accepted")).To(Equal("True Accepted"))
		r.spire.Start(GinkgoT())
		Eventually(func() bool { return r.registry.State().Answers() }).Should(BeTrue())
		r.reconcile(mesh.KeyOf(late))
		Expect(r.condition(mesh.KeyOf(late), "Accepted")).To(Equal("False IDClaimed"))
	})

	It("removes what an identity left behind that went without its finalizer, after the grace time and when SPIRE answers", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "stripped")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, pod(ns, "stripped", on.Name), object)
		object = r.identity(key)
		object.Finalizers = nil
		Expect(live.Update(r.ctx, object)).To(Succeed())
		gone(object)
		Expect(r.reconcile(key, object).RequeueAfter).To(Equal(grace))
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
		r.clock.Step(grace)
		r.spire.Stop()
		Eventually(func() error { return r.registry.State().Err }).ShouldNot(Succeed())
		r.reconcile(key)
		r.spire.Start(GinkgoT())
		Eventually(func() bool { return r.registry.State().Answers() }).Should(BeTrue())
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
		r.reconcile(key)
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf(aliasID(on)))
	})

	It("does not count entries of another ID that an object of the same name had as a claim", func() {
		ns, on := namespace("/one,/two"), node()
		before := identity(ns, "b", path("/one"))
		r.reconcile(mesh.KeyOf(before), ns, on, pod(ns, "b", on.Name), before)
		owner := identity(ns, "a", path("/two"))
		r.reconcile(mesh.KeyOf(owner), owner)
		before = r.identity(mesh.KeyOf(before))
		before.Finalizers = nil
		Expect(live.Update(r.ctx, before)).To(Succeed())
		gone(before)
		again := identity(ns, "b", path("/two"))
		r.reconcile(mesh.KeyOf(again), again)
		Expect(r.condition(mesh.KeyOf(again), "Accepted")).To(Equal("False IDClaimed"))
		Expect(r.condition(mesh.KeyOf(owner), "Ready")).To(Equal("True Ready"))
	})

	It("keeps counting the entries that it last knew of when the manager starts while SPIRE is away", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, on, pod(ns, "pay", on.Name), object)
		r.spire.Stop()
		r.restart()
		r.reconcile(mesh.KeyOf(object))
		Expect(r.condition(mesh.KeyOf(object), "Registered")).To(Equal("Unknown SPIREUnavailable"))
		Expect(r.identity(mesh.KeyOf(object)).Status.Entries.Summary).To(Equal("1/1"))
		Expect(r.identity(mesh.KeyOf(object)).Status.WaitingPods).To(BeEmpty(), "its pod has the identity as far as anybody knows")
		since := r.message(mesh.KeyOf(object), "Registered")
		Expect(since).To(ContainSubstring("for another 27m0s at least from "))
		r.clock.Step(time.Hour)
		r.restart()
		r.reconcile(mesh.KeyOf(object))
		Expect(r.message(mesh.KeyOf(object), "Registered")).To(Equal(since), "it is away for as long as the managers before knew")
		r.spire.Start(GinkgoT())
		Eventually(func() bool { return r.registry.State().Answers() }).Should(BeTrue())
	})

	It("says nothing while the first reading is under way and something has been said before", func() {
		ns := namespace("")
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, object)
		version := r.identity(mesh.KeyOf(object)).ResourceVersion
		r.identities.SPIRE = registry.New(r.api, clusterID, registry.Options{}) // nobody has started it
		r.reconcile(mesh.KeyOf(object), pod(ns, "pay", node().Name))
		Expect(r.identity(mesh.KeyOf(object)).ResourceVersion).To(Equal(version))
	})

	It("names an entry of somebody else's that is in the way, deletes nothing, and follows when that is gone", func() {
		ns, node := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		created, err := r.spire.Entries.BatchCreateEntry(r.ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{{
			Id:       "foreign",
			SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: mesh.DefaultPath(ns.Name, "pay")},
			ParentId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/main/node/" + string(node.UID)},
			Selectors: []*spiretypes.Selector{
				{Type: "k8s", Value: "ns:" + ns.Name},
				{Type: "k8s", Value: "sa:pay"},
			},
		}}})
		Expect(err).NotTo(HaveOccurred())
		Expect(created.Results[0].Status.Code).To(BeZero())
		result := r.reconcile(key, ns, node, pod(ns, "pay", node.Name), object)
		Expect(result.RequeueAfter).To(Equal(time.Second))
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("entry foreign, which is not this object's"))
		Expect(r.identity(key).Status.Entries.Summary).To(Equal("0/1"))
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf("foreign", aliasID(node)))
		Expect(r.entries()["foreign"].GetRevisionNumber()).To(BeZero())

		By("trying again after ever longer pauses, whatever happens meanwhile")
		other, tried := identity(ns, "other"), r.writes()
		r.reconcile(key, other, pod(ns, "other", node.Name))
		Expect(r.writes()).To(Equal(tried))
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, retry, retry} {
			r.clock.Step(pause - time.Millisecond)
			r.reconcile(key)
			Expect(r.writes()).To(Equal(tried))
			r.clock.Step(time.Millisecond)
			Expect(r.reconcile(key).RequeueAfter).To(Equal(min(2*pause, retry)))
			tried++
			Expect(r.writes()).To(Equal(tried))
		}

		_, err = r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{"foreign"}})
		Expect(err).NotTo(HaveOccurred())
		r.clock.Step(retry)
		Expect(r.reconcile(key)).To(Equal(ctrl.Result{}))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
	})

	It("says so when SPIRE is away, keeps what it knows, and puts right what was missed", func() {
		ns, first, second := namespace(""), node(), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, first, second, pod(ns, "pay", first.Name), object)
		r.spire.Stop()
		r.reconcile(key, pod(ns, "pay", second.Name))
		Expect(r.condition(key, "Registered")).To(Equal("Unknown SPIREUnavailable"))
		Expect(r.condition(key, "Accepted")).To(Equal("True Accepted"))
		Expect(r.condition(key, "Ready")).To(Equal("Unknown SPIREUnavailable"))
		Expect(r.identity(key).Status.Entries.Summary).To(Equal("1/2"))

		r.spire.Start(GinkgoT())
		Eventually(func() error { return r.registry.State().Err }).Should(Succeed())
		r.reconcile(key)
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.entries()).To(HaveKey(entryID(object, second)))
		Expect(r.entries()[entryID(object, first)].GetRevisionNumber()).To(BeZero())
	})

	It("lets a deleted identity go only when its entries are gone, also when SPIRE is away at first", func() {
		ns, node := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, node, pod(ns, "pay", node.Name), object)
		Expect(r.identity(key).Finalizers).To(ContainElement(meshv1alpha1.FinalizerEntries))
		r.spire.Stop()
		Eventually(func() error { return r.registry.State().Err }).ShouldNot(Succeed())
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		Expect(r.condition(key, "Registered")).To(Equal("Unknown SPIREUnavailable"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("remove the finalizer mesh.jia.app/spire-entries by hand"))

		r.spire.Start(GinkgoT())
		Eventually(func() error { return r.registry.State().Err }).Should(Succeed())
		r.reconcile(key)
		Expect(apierrors.IsNotFound(live.Get(r.ctx, key, object))).To(BeTrue())
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf(aliasID(node)))
	})

	It("leaves somebody else's finalizer alone", func() {
		ns := namespace("")
		object := identity(ns, "pay")
		object.Finalizers = []string{"example.com/mine"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), ns, object)
		Expect(r.identity(mesh.KeyOf(object)).Finalizers).To(ConsistOf("example.com/mine", meshv1alpha1.FinalizerEntries))
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), object)
		Expect(r.identity(mesh.KeyOf(object)).Finalizers).To(ConsistOf("example.com/mine"))
	})

	It("tells each turn of a condition as one event", func() {
		ns := namespace("")
		object := identity(ns, "pay", path("/not-granted"))
		r.reconcile(mesh.KeyOf(object), ns, object)
		Expect(r.events.Events).To(HaveLen(2))
		Expect(<-r.events.Events).To(HavePrefix("Warning PathNotGranted spec.path /not-granted is not granted"))
		Expect(<-r.events.Events).To(HavePrefix("Warning NotAccepted"))
		r.reconcile(mesh.KeyOf(object))
		Expect(r.events.Events).To(BeEmpty())
	})

	It("removes the entries of a deleted identity again that a restored SPIRE server has", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, pod(ns, "pay", on.Name), object)
		backup := r.entries()[entryID(object, on)]
		gone(object)
		r.reconcile(key, object)
		Expect(r.entries()).NotTo(HaveKey(entryID(object, on)))
		r.createByHand(backup)
		Eventually(func() []spire.Held { return r.registry.Of(spire.Owner{Kind: spire.OwnerIdentity, Identity: key}) }).Should(HaveLen(1))
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).NotTo(HaveKey(entryID(object, on)))
	})

	It("leaves entries alone whose identity does not exist and was never seen, and counts them", func() {
		ns, node := namespace(""), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, node, pod(ns, "pay", node.Name), object)
		r.identities.Witness = retention.NewWitness(nil) // as of a manager that starts anew
		object = r.identity(mesh.KeyOf(object))
		object.Finalizers = nil
		Expect(live.Update(r.ctx, object)).To(Succeed())
		gone(object)
		r.clock.Step(10 * grace)
		Expect(r.reconcile(mesh.KeyOf(object), object)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).To(HaveKey(entryID(object, node)))
	})

	It("tells a long message as an event, cut short", func() {
		ns := namespace("")
		object := identity(ns, "pay", path("/"+strings.Repeat("p", 1000)))
		r.reconcile(mesh.KeyOf(object), ns, object)
		event := <-r.events.Events
		Expect(event).To(HavePrefix("Warning PathNotGranted"))
		Expect(len(strings.TrimPrefix(event, "Warning PathNotGranted "))).To(BeNumerically("<=", 1024))
		Expect(len(r.message(mesh.KeyOf(object), "Accepted"))).To(BeNumerically(">", 2000))
	})

	It("treats an object that is gone as done", func() {
		Expect(r.reconcile(client.ObjectKey{Namespace: "nowhere", Name: "nobody"})).To(Equal(ctrl.Result{}))
	})
})

var _ = Describe("reconciling a Node", func() {
	It("makes its alias before any pod needs it, and takes it away when the grace time after the node is over", func() {
		r := newRig()
		object := node()
		r.settle(object)
		Expect(r.nodes.Reconcile(r.ctx, object.UID)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).To(HaveKey(aliasID(object)))
		Expect(r.nodes.Reconcile(r.ctx, object.UID)).To(Equal(ctrl.Result{}))
		Expect(r.writes()).To(Equal(1))

		gone(object)
		r.settle(object)
		Expect(r.nodes.Reconcile(r.ctx, object.UID)).To(Equal(ctrl.Result{RequeueAfter: grace}))
		Expect(r.entries()).To(HaveKey(aliasID(object)))
		r.clock.Step(grace)
		Expect(r.nodes.Reconcile(r.ctx, object.UID)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).To(BeEmpty())
	})

	It("makes the alias of a node that is not shown again, where somebody deletes it under entries that stay", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, on, pod(ns, "pay", on.Name), object)
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(Equal(ctrl.Result{}))
		gone(on)
		r.settle(on)
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{aliasID(on)}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() map[string]*spiretypes.Entry {
			_, err := r.nodes.Reconcile(r.ctx, on.UID)
			Expect(err).NotTo(HaveOccurred())
			return r.entries()
		}).Should(HaveKey(aliasID(on)))
	})

	It("takes away an alias whose node nobody has seen only where nothing hangs on it", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		r.reconcile(mesh.KeyOf(object), ns, on, pod(ns, "pay", on.Name), object)
		gone(on)
		r.settle(on)
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(HaveField("RequeueAfter", BeNumerically(">", grace)))
		r.clock.Step(10 * grace)
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(HaveField("RequeueAfter", BeNumerically(">", grace)))
		Expect(r.entries()).To(HaveKey(aliasID(on)))

		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), object)
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(Equal(ctrl.Result{RequeueAfter: grace}))
		r.clock.Step(grace)
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).To(BeEmpty())
	})
})
