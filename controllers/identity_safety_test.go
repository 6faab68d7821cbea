package controllers_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/test/lab"
)

// stream is what a workload has of an identity, as its agent gives it.
type stream struct {
	id string

	mu      sync.Mutex
	hint    string
	updates int
	// lost is since when the workload is without it, and gap how long it was in all before.
	lost time.Time
	gap  time.Duration
}

// watchSVIDs follows, until the spec ends, what a workload with these selectors has of an ID, from when it has it first.
func watchSVIDs(agent *lab.Agent, id string, selectors ...string) *stream {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	next, err := agent.Watch(ctx, selectors...)
	Expect(err).NotTo(HaveOccurred())
	s := &stream{id: id}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			svids, err := next()
			if err != nil {
				return
			}
			s.saw(svids)
		}
	}()
	DeferCleanup(func() {
		cancel()
		<-ended
	})
	Eventually(s.has).Should(BeTrue(), "the workload never had the identity "+id)
	return s
}

func (s *stream) saw(svids []lab.SVID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(svids, func(svid lab.SVID) bool { return svid.ID == s.id })
	switch {
	case i < 0 && s.updates > 0 && s.lost.IsZero():
		s.lost = time.Now()
	case i >= 0:
		s.updates++
		s.hint = svids[i].Hint
		if !s.lost.IsZero() {
			s.gap += time.Since(s.lost)
			s.lost = time.Time{}
		}
	}
}

func (s *stream) has() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates > 0 && s.lost.IsZero()
}

func (s *stream) hinted() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hint
}

// without is how long the workload was without its identity.
func (s *stream) without() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lost.IsZero() {
		return s.gap + time.Since(s.lost)
	}
	return s.gap
}

// The cases in which a controller of SPIRE entries has been seen, or is bound by its code, to take identities away that
// are in use. In none of them may an entry go, nor a workload be without its identity for a moment.
var _ = Describe("what nobody asked to delete", Ordered, func() {
	ctx := context.Background()
	var server *lab.SPIREServer
	var agent *lab.Agent
	var on *corev1.Node
	var running *manager
	var apiProxy *lab.Proxy

	proxied := func() *rest.Config {
		config := rest.CopyConfig(apiServer.Config)
		config.Host = "https://" + apiProxy.Address
		return config
	}
	restart := func(config *rest.Config) {
		GinkgoHelper()
		Expect(running.stop()).To(Succeed())
		running = tryManager(config, server)
	}
	BeforeAll(func() {
		server = lab.StartSPIREServer(GinkgoT(), lab.SPIREOptions{APIServer: apiServer})
		apiProxy = lab.StartProxy(GinkgoT(), strings.Trim(strings.TrimPrefix(apiServer.Config.Host, "https:"), "/"))
	})
	BeforeEach(func() {
		on = node()
		agent = server.StartAgent(GinkgoT(), on)
		running = tryManager(proxied(), server)
	})
	entries := func() map[string]*spiretypes.Entry {
		GinkgoHelper()
		list, err := server.Entries.ListEntries(ctx, &entryv1.ListEntriesRequest{})
		Expect(err).NotTo(HaveOccurred())
		byID := map[string]*spiretypes.Entry{}
		for _, entry := range list.Entries {
			byID[entry.Id] = entry
		}
		return byID
	}
	// of are the entries that SPIRE has of these identities, and the alias that they hang on.
	of := func(objects ...*meshv1alpha1.ServiceIdentity) (ids []string) {
		GinkgoHelper()
		for id := range entries() {
			for _, object := range objects {
				if id == aliasID(on) || strings.HasPrefix(id, "pm1.main."+object.Namespace+"."+object.Name+".") {
					ids = append(ids, id)
				}
			}
		}
		Expect(ids).NotTo(BeEmpty())
		return ids
	}
	// use makes an identity whose workload runs on the agent's node and has its SVID.
	use := func(name string) (*meshv1alpha1.ServiceIdentity, *corev1.Pod, *stream) {
		GinkgoHelper()
		ns := namespace("")
		object, workload := identity(ns, name), pod(ns, name, on.Name)
		return object, workload, watchSVIDs(agent, clusterID.IDOf(object), "k8s:ns:"+ns.Name, "k8s:sa:"+name)
	}
	// kept passes the time in which a controller would have deleted something, and counts what is lost.
	kept := func(before []string, workloads ...*stream) {
		GinkgoHelper()
		Consistently(func(g Gomega) {
			now := entries()
			lost := slices.DeleteFunc(slices.Clone(before), func(id string) bool { return now[id] != nil })
			g.Expect(lost).To(BeEmpty())
		}).WithTimeout(shortGrace + 2*audit).WithPolling(100 * time.Millisecond).Should(Succeed())
		for _, workload := range workloads {
			Expect(workload.without()).To(BeZero())
		}
	}
	registered := func(object *meshv1alpha1.ServiceIdentity, want string) {
		GinkgoHelper()
		Eventually(func() string {
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err.Error()
			}
			return statusOf(object, "Registered")
		}).Should(Equal(want))
	}

	It("stays: an entry of somebody else's, whatever becomes of ours", func() {
		made, err := server.Entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{{
			SpiffeId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/by-hand"},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: agent.ID[len("spiffe://"+lab.TrustDomain):]},
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "ns:by-hand"}},
		}}})
		Expect(err).NotTo(HaveOccurred())
		foreign := watchSVIDs(agent, "spiffe://jia.app/by-hand", "k8s:ns:by-hand")
		object, _, _ := use("passing")
		Expect(live.Delete(ctx, object)).To(Succeed())
		Eventually(func() error { return live.Get(ctx, client.ObjectKeyFromObject(object), object) }).ShouldNot(Succeed())
		restart(proxied())
		kept([]string{made.Results[0].Entry.Id}, foreign)
	})

	It("stays: an identity whose rendering changes, which is updated in place", func() {
		object, _, workload := use("changing")
		registered(object, "True Registered")
		before := of(object)
		object.Spec.Hint, object.Spec.X509SVIDTTL, object.Spec.DNSNames = "changed", "30m", []meshv1alpha1.DNSName{"changing.example.com"}
		Expect(live.Update(ctx, object)).To(Succeed())
		Eventually(workload.hinted).Should(Equal("changed"))
		kept(before, workload)
		Expect(entries()[entryID(object, on)].RevisionNumber).To(Equal(int64(1)))
	})

	It("stays: an identity whose node the API server does not show, and the node's alias", func() {
		object, _, workload := use("nodeless")
		registered(object, "True Registered")
		before := of(object)
		Expect(live.Delete(ctx, on.DeepCopy())).To(Succeed())
		registered(object, "Unknown NodeUnknown")
		kept(before, workload)
		By("also by a manager that never saw the node")
		restart(proxied())
		kept(before, workload)
	})

	It("stays: an identity whose Node was deleted and registered again, while its agent and its pods run on", func() {
		object, _, svids := use("again")
		registered(object, "True Registered")
		before := of(object)
		old := on.DeepCopy()
		Expect(live.Delete(ctx, on.DeepCopy())).To(Succeed())
		registerAgain(on)
		registered(object, "True Registered")
		Eventually(entries).Should(HaveKey(entryID(object, on)))
		kept(before, svids)
		By("also by a manager that never saw the first")
		restart(proxied())
		registered(object, "True Registered")
		kept(before, svids)
		By("which makes the alias again that somebody deletes")
		answer, err := server.Entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{aliasID(old)}})
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.Results[0].Status.Message).To(Equal("OK"))
		Eventually(entries).Should(HaveKey(aliasID(old)))
	})

	It("stays: an identity that goes from one entry for the cluster to one a node, where the Node was registered again", func() {
		ns := namespace("")
		object := identity(ns, "placed", func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.Placement = meshv1alpha1.PlacementCluster })
		pod(ns, "placed", on.Name)
		workload := watchSVIDs(agent, clusterID.IDOf(object), "k8s:ns:"+ns.Name, "k8s:sa:placed")
		old := on.DeepCopy()
		Expect(live.Delete(ctx, on.DeepCopy())).To(Succeed())
		registerAgain(on)
		registered(object, "True Registered")
		object.Spec.Placement = meshv1alpha1.PlacementNode
		Expect(live.Update(ctx, object)).To(Succeed())
		Eventually(entries).Should(And(HaveKey(entryID(object, old)), HaveKey(entryID(object, on)), Not(HaveKey(clusterEntryID(object)))))
		kept([]string{entryID(object, old), entryID(object, on)}, workload)
		By("and one that comes to the node only now has its SVID by the old Node, which is what the agent is known by")
		use("newcomer")
	})

	It("stays: everything, where lists fail", func() {
		object, _, workload := use("unlisted")
		registered(object, "True Registered")
		before := of(object)
		By("the API server is away, for a manager that runs")
		apiProxy.Refuse(true)
		kept(before, workload)
		apiProxy.Refuse(false)
		By("a manager that starts may not list")
		late := rest.CopyConfig(apiServer.Config)
		late.Impersonate = rest.ImpersonationConfig{UserName: "late"}
		restart(late)
		kept(before, workload)
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "late"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "late"}},
		}
		Expect(live.Create(ctx, binding)).To(Succeed())
		Eventually(running.entries.State).Should(HaveField("Synced", true))
		kept(before, workload)
	})

	It("stays: everything, where the kinds are not there, or nothing at all", func() {
		object, _, workload := use("unkinded")
		before := of(object)
		By("an API server without the kinds, which keeps a manager from starting")
		bare, err := cluster.New(lab.StartBareAPIServer(GinkgoT()).Config, func(o *cluster.Options) { o.Scheme = scheme })
		Expect(err).NotTo(HaveOccurred())
		Expect(controllers.IndexIdentities(ctx, bare.GetFieldIndexer(), clusterID)).To(MatchError(ContainSubstring(`"ServiceIdentity"`)))
		By("an API server that was restored from nothing")
		restart(lab.StartAPIServer(GinkgoT()).Config)
		Eventually(running.entries.State).Should(HaveField("Synced", true))
		kept(before, workload)
	})

	It("stays: an identity whose entry of somebody else's is adopted, though that goes", func() {
		ns := namespace("")
		_, err := server.Entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{{
			Id: "adopted", SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/ns/" + ns.Name + "/sa/moving"},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/main/node/" + string(on.UID)}, // the same as ours
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "ns:" + ns.Name}, {Type: "k8s", Value: "sa:moving"}},
		}}})
		Expect(err).NotTo(HaveOccurred())
		workload := watchSVIDs(agent, "spiffe://jia.app/ns/"+ns.Name+"/sa/moving", "k8s:ns:"+ns.Name, "k8s:sa:moving")
		object := identity(ns, "moving")
		pod(ns, "moving", on.Name)
		registered(object, "False Conflict")
		object.Annotations = map[string]string{meshv1alpha1.AnnotationAdoptEntries: "adopted"}
		Expect(live.Update(ctx, object)).To(Succeed())
		registered(object, "True Adopting")
		registered(object, "True Registered")
		Expect(entries()).NotTo(HaveKey("adopted"))
		kept(of(object), workload)
	})

	It("stays: everything, where all pods vanish at once, until an administrator says that this is meant", func() {
		ns := namespace("")
		object := identity(ns, "mass")
		var pods []*corev1.Pod
		for range 12 {
			pods = append(pods, pod(ns, "mass", node().Name))
		}
		here, workload, svids := use("last")
		registered(object, "True Registered")
		registered(here, "True Registered")
		before := of(object, here)
		for _, each := range append(pods, workload) {
			gone(each)
		}
		registered(object, "True DeletionsHeld")
		registered(here, "True DeletionsHeld")
		kept(before, svids)
		By("and then goes")
		Eventually(func() error {
			if err := live.Get(ctx, client.ObjectKeyFromObject(running.operator), running.operator); err != nil {
				return err
			}
			running.operator.Annotations = map[string]string{meshv1alpha1.AnnotationReleaseDeletions: running.brake.Tripped()}
			return live.Update(ctx, running.operator)
		}).Should(Succeed())
		registered(object, "True NoPods")
		registered(here, "True NoPods")
		Eventually(svids.has).Should(BeFalse())
	})
})
