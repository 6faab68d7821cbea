package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/test/lab"
)

// soon is how long it may take until a fault is named in the object's status.
const soon = 5 * time.Second

var _ = Describe("a fault is named in the status within 5 s, and what it kept from being done is done after it:", func() {
	var server *lab.SPIREServer
	ctx := context.Background()
	BeforeEach(func() { server = lab.StartSPIREServer(GinkgoT(), lab.SPIREOptions{}) })

	// spread makes an identity with pods on some nodes.
	spread := func(count int) (*meshv1alpha1.ServiceIdentity, []*corev1.Node) {
		GinkgoHelper()
		ns := namespace("")
		var nodes []*corev1.Node
		for range count {
			nodes = append(nodes, node())
			pod(ns, "pay", nodes[len(nodes)-1].Name)
		}
		return identity(ns, "pay"), nodes
	}
	registered := func(object *meshv1alpha1.ServiceIdentity, within time.Duration, want, says string) {
		GinkgoHelper()
		Eventually(func() string {
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err.Error()
			}
			if condition := meta.FindStatusCondition(object.Status.Conditions, "Registered"); condition != nil && !strings.Contains(condition.Message, says) {
				return condition.Message
			}
			return statusOf(object, "Registered")
		}).WithTimeout(within).Should(Equal(want))
	}
	complete := func(object *meshv1alpha1.ServiceIdentity, nodes []*corev1.Node) {
		GinkgoHelper()
		registered(object, 30*time.Second, "True Registered", "")
		list, err := server.Entries.ListEntries(ctx, &entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{
			BySpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
		}})
		Expect(err).NotTo(HaveOccurred())
		Expect(list.Entries).To(HaveLen(len(nodes)))
		for _, entry := range list.Entries {
			Expect(entry.RevisionNumber).To(BeZero(), "no entry was written twice")
		}
		Expect(object.Status.WaitingPods).To(BeEmpty())
	}
	// label gives the labels to all pods beside the object.
	label := func(object *meshv1alpha1.ServiceIdentity, labels map[string]string) {
		GinkgoHelper()
		pods := &corev1.PodList{}
		Expect(live.List(ctx, pods, client.InNamespace(object.Namespace))).To(Succeed())
		for i := range pods.Items {
			pods.Items[i].Labels = labels
			Expect(live.Update(ctx, &pods.Items[i])).To(Succeed())
		}
	}
	// ofIdentities reports whether a plan is for more than node aliases.
	ofIdentities := func(plan spire.Plan) bool {
		for _, id := range plan.IDs() {
			if owner, _ := spire.ParseEntryID(lab.ClusterName, id); owner.Kind == spire.OwnerIdentity {
				return true
			}
		}
		return false
	}

	It("SPIRE stops in the middle of a batch", func() {
		var stopped atomic.Bool
		var stoppedAt time.Time
		startManager(apiServer.Config, server, func(f *faulty) {
			f.apply = func(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
				if len(plan.Create) < 3 || !ofIdentities(plan) || !stopped.CompareAndSwap(false, true) {
					return f.Client.Apply(ctx, plan)
				}
				results, err := f.Client.Apply(ctx, spire.Plan{Create: plan.Create[:2]})
				if err != nil {
					return results, err
				}
				server.Stop()
				stoppedAt = time.Now()
				rest, err := f.Client.Apply(ctx, spire.Plan{Create: plan.Create[2:]})
				return append(results, rest...), err
			}
		})
		object, nodes := spread(4)
		Eventually(stopped.Load).Should(BeTrue())
		registered(object, soon, "Unknown SPIREUnavailable", "keep it for another 27m0s at least from ")
		GinkgoLogr.Info("named", "after", time.Since(stoppedAt).String())
		Expect(object.Status.WaitingPods).To(HaveLen(1))
		Expect(object.Status.WaitingPods[0].Reason).To(Equal("SPIREUnavailable"))
		server.Start(GinkgoT())
		complete(object, nodes)
	})

	It("SPIRE has no resources left", func() {
		var exhausted atomic.Bool
		exhausted.Store(true)
		startManager(apiServer.Config, server, func(f *faulty) {
			f.apply = func(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
				if exhausted.Load() && ofIdentities(plan) {
					return nil, fmt.Errorf("create %d entries: %w", len(plan.Create), status.Error(codes.ResourceExhausted, "rate limit exceeded"))
				}
				return f.Client.Apply(ctx, plan)
			}
		})
		object, nodes := spread(2)
		registered(object, soon, "Unknown SPIREUnavailable", "ResourceExhausted desc = rate limit exceeded")
		exhausted.Store(false)
		complete(object, nodes)
	})

	It("SPIRE takes a part of a batch, and refuses the rest", func() {
		object, nodes := spread(3)
		made, err := server.Entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{{
			Id: "in-the-way", SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/main/node/" + string(nodes[1].UID)},
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "ns:" + object.Namespace}, {Type: "k8s", Value: "sa:pay"}},
		}}})
		Expect(err).NotTo(HaveOccurred())
		Expect(made.Results[0].Status.Code).To(BeZero())
		startManager(apiServer.Config, server)
		registered(object, soon, "False Conflict", "in-the-way")
		Expect(object.Status.Entries.Summary).To(Equal("2/3"))
		Expect(object.Status.WaitingPods).To(HaveLen(1))
		Expect(object.Status.WaitingPods[0]).To(And(HaveField("Reason", "Conflict"), HaveField("Count", int32(1))))
		_, err = server.Entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{"in-the-way"}})
		Expect(err).NotTo(HaveOccurred())
		complete(object, nodes)
	})

	It("an update would make an entry the same as one of somebody else's, which SPIRE would take", func() {
		startManager(apiServer.Config, server)
		object, nodes := spread(2)
		complete(object, nodes)
		made, err := server.Entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{{
			Id: "the-same", SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/main/node/" + string(nodes[1].UID)},
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "ns:" + object.Namespace}, {Type: "k8s", Value: "sa:pay"}, {Type: "k8s", Value: "pod-label:tier:gold"}},
		}}})
		Expect(err).NotTo(HaveOccurred())
		Expect(made.Results[0].Status.Code).To(BeZero())
		label(object, map[string]string{"tier": "gold"})
		object.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{"tier": "gold"}
		Expect(live.Update(ctx, object)).To(Succeed())
		registered(object, soon, "False Conflict", "the-same")
		Expect(object.Status.Entries.Summary).To(Equal("1/2"))
		held, err := server.Entries.GetEntry(ctx, &entryv1.GetEntryRequest{Id: "the-same"})
		Expect(err).NotTo(HaveOccurred())
		Expect(held.RevisionNumber).To(BeZero())
		_, err = server.Entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{"the-same"}})
		Expect(err).NotTo(HaveOccurred())
		registered(object, 30*time.Second, "True Registered", "")
		Expect(object.Status.Entries.Summary).To(Equal("2/2"))
	})

	It("a call fails that nobody else makes, so that nobody else finds out", func() {
		var failed atomic.Int32
		startManager(apiServer.Config, server, func(f *faulty) {
			f.list = func(ctx context.Context, q spireclient.Query) (spireclient.Page, error) {
				if q.SPIFFEID != "" && failed.Add(1) <= 3 {
					return spireclient.Page{}, status.Error(codes.Unavailable, "the connection was reset")
				}
				return f.Client.List(ctx, q)
			}
		})
		object, nodes := spread(1)
		complete(object, nodes)
		label(object, map[string]string{"tier": "gold"})
		object.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{"tier": "gold"}
		Expect(live.Update(ctx, object)).To(Succeed())
		registered(object, soon, "Unknown SPIREUnavailable", "the connection was reset")
		registered(object, 30*time.Second, "True Registered", "")
		entry, err := server.Entries.GetEntry(ctx, &entryv1.GetEntryRequest{Id: entryID(object, nodes[0])})
		Expect(err).NotTo(HaveOccurred())
		Expect(entry.Selectors).To(HaveLen(3))
		Expect(failed.Load()).To(BeNumerically(">=", 4))
	})

	It("the leader is lost in the middle of a pass, and the next one goes on where it stopped", func() {
		begun := make(chan struct{}, 1)
		first := tryManager(apiServer.Config, server, func(f *faulty) {
			f.apply = func(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
				if len(plan.Create) < 2 || !ofIdentities(plan) {
					return f.Client.Apply(ctx, plan)
				}
				results, err := f.Client.Apply(ctx, spire.Plan{Create: plan.Create[:1]})
				if err != nil {
					return results, err
				}
				begun <- struct{}{}
				<-ctx.Done()
				return results, ctx.Err()
			}
		})
		object, nodes := spread(3)
		Eventually(begun).Should(Receive())
		Expect(first.stop()).To(Succeed())
		startManager(apiServer.Config, server)
		complete(object, nodes)
	})
})

var _ = Describe("the pods that wait", func() {
	It("are counted and named by what they wait for", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		served := pod(ns, "pay", on.Name)
		var unscheduled []string
		for range 12 {
			each := pod(ns, "pay", "")
			r.settle(each)
			unscheduled = append(unscheduled, each.Name)
		}
		lost := pod(ns, "pay", "not-shown")
		other := pod(ns, "other", "")
		r.reconcile(key, ns, on, object, served, lost, other)
		waiting := r.identity(key).Status.WaitingPods
		Expect(waiting).To(HaveLen(2))
		Expect(waiting[0]).To(Equal(meshv1alpha1.WaitingPods{Reason: "NodeUnknown", Count: 1, Names: []string{lost.Name}}))
		Expect(waiting[1]).To(And(HaveField("Reason", "Unscheduled"), HaveField("Count", int32(12)), HaveField("Names", HaveLen(10))))
		Expect(unscheduled).To(ContainElements(waiting[1].Names))
		Expect(r.identity(key).Status.OutageBudget).To(Equal("27m0s"))

		object = r.identity(key)
		object.Spec.X509SVIDTTL = "4h"
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		Expect(r.identity(key).Status.OutageBudget).To(Equal("1h48m0s"))
	})

	It("wait for the identity to be accepted", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object, waits := identity(ns, "pay", path("/not-granted")), pod(ns, "pay", on.Name)
		r.reconcile(mesh.KeyOf(object), ns, on, object, waits)
		Expect(r.identity(mesh.KeyOf(object)).Status.WaitingPods).To(Equal([]meshv1alpha1.WaitingPods{{Reason: "NotAccepted", Count: 1, Names: []string{waits.Name}}}))
	})
})
