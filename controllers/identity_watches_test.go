package controllers_test

import (
	"context"
	"errors"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/test/lab"
)

// Here the watches themselves are the subject: a whole manager runs, and nobody calls Reconcile.
var _ = Describe("a running manager", Ordered, func() {
	var server *lab.SPIREServer
	var apiProxy *lab.Proxy // between the manager and the API server
	ctx := context.Background()

	BeforeAll(func() {
		server = lab.StartSPIREServer(GinkgoT(), lab.SPIREOptions{})
		config := rest.CopyConfig(apiServer.Config)
		apiProxy = lab.StartProxy(GinkgoT(), strings.Trim(strings.TrimPrefix(config.Host, "https:"), "/"))
		config.Host = "https://" + apiProxy.Address
		startManager(config, server)
	})

	ready := func(object *meshv1alpha1.ServiceIdentity, want string) {
		GinkgoHelper()
		Eventually(func() string {
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err.Error()
			}
			return statusOf(object, "Ready")
		}).Should(Equal(want))
	}
	entry := func(id string) *spiretypes.Entry {
		got, err := server.Entries.GetEntry(ctx, &entryv1.GetEntryRequest{Id: id})
		if err != nil {
			return nil
		}
		return got
	}

	It("follows an identity, its pods, their nodes and what happens in SPIRE", func() {
		ns, first := namespace(""), node()
		By("a node gets its alias before there is any identity")
		Eventually(entry).WithArguments(aliasID(first)).ShouldNot(BeNil())
		By("an identity with a pod gets its entry")
		object, one := identity(ns, "pay"), pod(ns, "pay", first.Name)
		Eventually(entry).WithArguments(entryID(object, first)).ShouldNot(BeNil())
		ready(object, "True Ready")
		By("a pod that is bound to a node before the node is there waits for it")
		late := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "late-" + ns.Name}}
		pod(ns, "pay", late.Name)
		ready(object, "Unknown NodeUnknown")
		Expect(live.Create(ctx, late)).To(Succeed())
		DeferCleanup(func() { _ = live.Delete(context.Background(), late) })
		Eventually(entry).WithArguments(entryID(object, late)).ShouldNot(BeNil())
		ready(object, "True Ready")
		By("an entry that was deleted by hand comes back, and so does an alias")
		_, err := server.Entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{entryID(object, late), aliasID(first)}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(entry).WithArguments(entryID(object, late)).ShouldNot(BeNil())
		Eventually(entry).WithArguments(aliasID(first)).ShouldNot(BeNil())
		By("an entry that was changed by hand is put right")
		changed := entry(entryID(object, first))
		changed.Admin, changed.X509SvidTtl = true, 60
		_, err = server.Entries.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: []*spiretypes.Entry{changed}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() bool { return entry(entryID(object, first)).GetAdmin() }).Should(BeFalse())
		Expect(entry(entryID(object, first)).GetX509SvidTtl()).To(BeZero())
		By("an entry goes when the grace time after its last pod is over")
		gone(one)
		Eventually(entry).WithArguments(entryID(object, first)).Should(BeNil())
		ready(object, "True Ready")
		By("a deleted identity leaves no entry")
		Expect(live.Delete(ctx, object)).To(Succeed())
		Eventually(entry).WithArguments(entryID(object, late)).Should(BeNil())
		Eventually(func() error { return live.Get(ctx, client.ObjectKeyFromObject(object), object) }).ShouldNot(Succeed())
	})

	It("takes a partner up when its bundle comes, and makes the alias of the cluster again, without being asked", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "abroad", federatesWith("bank.example"))
		wide := identity(ns, "everywhere", clusterWide)
		pod(ns, "abroad", on.Name)
		ready(object, "True Ready")
		Eventually(entry).WithArguments(entryID(object, on)).ShouldNot(BeNil())
		Eventually(entry).WithArguments(clusterEntryID(wide)).ShouldNot(BeNil())
		server.SetBundle(GinkgoT(), "bank.example")
		Eventually(func() []string { return entry(entryID(object, on)).GetFederatesWith() }).Should(Equal([]string{"bank.example"}))
		_, err := server.Entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{clusterAliasID}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(entry).WithArguments(clusterAliasID).ShouldNot(BeNil())
	})

	It("follows the grants of a namespace, and gives an ID on when its owner is deleted", func() {
		ns, on := namespace(""), node()
		owner := identity(ns, "owner", path("/given-on"))
		ready(owner, "False PathNotGranted")
		ns.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: "/given-on"}
		Expect(live.Update(ctx, ns)).To(Succeed())
		ready(owner, "True Ready")
		pod(ns, "owner", on.Name)
		Eventually(entry).WithArguments(entryID(owner, on)).ShouldNot(BeNil())
		heir := identity(ns, "heir", path("/given-on"))
		ready(heir, "False IDClaimed")
		pod(ns, "heir", on.Name)
		Expect(live.Delete(ctx, owner)).To(Succeed())
		ready(heir, "True Ready")
		Eventually(entry).WithArguments(entryID(heir, on)).ShouldNot(BeNil())
		Expect(entry(entryID(owner, on))).To(BeNil())
	})

	It("names an identity after a Service that comes, and no more when it goes, without being asked", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay", serviceDNSNames)
		one := pod(ns, "pay", on.Name)
		Eventually(entry).WithArguments(entryID(object, on)).ShouldNot(BeNil())
		service := selecting(ns, "payments", "pay")
		one.Labels = map[string]string{"app": "pay"}
		Expect(live.Update(ctx, one)).To(Succeed())
		names := func() []string { return entry(entryID(object, on)).GetDnsNames() }
		Eventually(names).Should(ContainElement("payments." + ns.Name + ".svc"))
		gone(service)
		Eventually(names).Should(BeEmpty())
	})

	It("gives the ID of a path template on, too", func() {
		ns := namespace("/shops")
		owner := identity(ns, "owner", pathTemplate("/shops/{{cluster}}-{{podLabels.tier}}", map[string]meshv1alpha1.LabelValue{"tier": "a"}))
		ready(owner, "True Ready")
		heir := identity(ns, "heir", path("/shops/main-a"))
		ready(heir, "False IDClaimed")
		Expect(live.Delete(ctx, owner)).To(Succeed())
		ready(heir, "True Ready")
		ns.Annotations = nil
		Expect(live.Update(ctx, ns)).To(Succeed())
		ready(heir, "False PathNotGranted")
	})

	It("keeps an ID with who had it while nothing of it runs, and gives it on when its grant is taken back", func() {
		first, second, on := namespace("/kept"), namespace(""), node()
		older := identity(second, "older", path("/kept"))
		ready(older, "False PathNotGranted")
		incumbent := identity(first, "incumbent", path("/kept"))
		running := pod(first, "incumbent", on.Name)
		ready(incumbent, "True Ready")
		By("an older identity that is granted the path later is the newcomer all the same")
		second.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: "/kept"}
		Expect(live.Update(ctx, second)).To(Succeed())
		ready(older, "False IDClaimed")
		By("also when nothing of the incumbent has run for longer than the grace time")
		gone(running)
		Eventually(entry).WithArguments(entryID(incumbent, on)).Should(BeNil())
		pod(first, "incumbent", on.Name)
		Eventually(entry).WithArguments(entryID(incumbent, on)).ShouldNot(BeNil())
		ready(incumbent, "True Ready")
		ready(older, "False IDClaimed")
		By("and follows when the incumbent's grant is taken back")
		pod(second, "older", on.Name)
		first.Annotations = nil
		Expect(live.Update(ctx, first)).To(Succeed())
		ready(incumbent, "False PathNotGranted")
		ready(older, "True Ready")
		Eventually(entry).WithArguments(entryID(older, on)).ShouldNot(BeNil())
		Expect(entry(entryID(incumbent, on))).To(BeNil())
	})

	It("removes the entries of an identity whose finalizer somebody removed by hand", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "stripped")
		pod(ns, "stripped", on.Name)
		ready(object, "True Ready")
		Eventually(entry).WithArguments(entryID(object, on)).ShouldNot(BeNil())
		Eventually(func() error { // until no reconcile has put the finalizer back in between
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return client.IgnoreNotFound(err)
			}
			if err := live.Delete(ctx, object); err != nil {
				return err
			}
			object.Finalizers = nil
			return errors.Join(errors.New("not gone yet"), live.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))))
		}).Should(Succeed())
		Eventually(entry).WithArguments(entryID(object, on)).Should(BeNil())
	})

	It("loses nothing while the API server is away, and catches up with what happened meanwhile", func() {
		ns, on := namespace(""), node()
		kept, goes := identity(ns, "kept"), identity(ns, "goes")
		pod(ns, "kept", on.Name)
		pod(ns, "goes", on.Name)
		ready(kept, "True Ready")
		Eventually(entry).WithArguments(entryID(kept, on)).ShouldNot(BeNil())
		Eventually(entry).WithArguments(entryID(goes, on)).ShouldNot(BeNil())
		apiProxy.Refuse(true)
		late := identity(ns, "late")
		pod(ns, "late", on.Name)
		Expect(live.Delete(ctx, goes)).To(Succeed())
		before := apiProxy.Connections()
		Consistently(entry).WithArguments(entryID(goes, on)).WithTimeout(2 * audit).ShouldNot(BeNil())
		Expect(apiProxy.Connections()).To(Equal(before), "the manager cannot have reached the API server")
		apiProxy.Refuse(false)
		ready(late, "True Ready")
		Eventually(entry).WithArguments(entryID(late, on)).ShouldNot(BeNil())
		Eventually(entry).WithArguments(entryID(goes, on)).Should(BeNil())
		Expect(entry(entryID(kept, on)).GetRevisionNumber()).To(BeZero())
	})

	It("says in every identity that SPIRE went away, without being asked, and heals", func() {
		ns := namespace("")
		one, other := identity(ns, "one"), identity(ns, "other")
		ready(one, "True Ready")
		ready(other, "True Ready")
		server.Stop()
		ready(one, "Unknown SPIREUnavailable")
		ready(other, "Unknown SPIREUnavailable")
		By("a node that goes meanwhile has its alias removed all the same")
		lost := node()
		server.Start(GinkgoT())
		Eventually(entry).WithArguments(aliasID(lost)).ShouldNot(BeNil())
		server.Stop()
		ready(one, "Unknown SPIREUnavailable")
		gone(lost)
		server.Start(GinkgoT())
		ready(one, "True Ready")
		ready(other, "True Ready")
		Eventually(entry).WithArguments(aliasID(lost)).Should(BeNil())
	})

	It("puts a status right that somebody wrote over", func() {
		ns := namespace("")
		object := identity(ns, "pay")
		ready(object, "True Ready")
		object.Status.Conditions = nil
		Expect(live.Status().Update(ctx, object)).To(Succeed())
		ready(object, "True Ready")
	})
})
