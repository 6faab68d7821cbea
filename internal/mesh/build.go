package mesh

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// Objects are what a Mesh is built from: one key and its neighbours, as read from the API server, and what SPIRE is known
// to hold. Order does not matter.
type Objects struct {
	Cluster ClusterID `json:"cluster"`
	// Asked is the MeshService or MeshGateway asked for: the Mesh has its config and its Problems. Of the others it need not
	// have all Problems: a descriptor set is read only where a route that is served needs it. Zero asks for all.
	Asked ProxyKey `json:"-"`
	// Identities are the ServiceIdentities asked for and all others that want one of their SPIFFE IDs; and those of Services
	// and Gateways, which count as trusted where their condition Accepted is True: that is where it is recorded who has an ID.
	Identities []meshv1alpha1.ServiceIdentity `json:"identities,omitempty"`
	// Namespaces are those of Identities: their annotations grant paths.
	Namespaces []metav1.PartialObjectMetadata `json:"namespaces,omitempty"`
	// Pods are those that run under the service accounts of Identities.
	Pods []corev1.Pod `json:"pods,omitempty"`
	// Nodes are those that Pods are bound to.
	Nodes []metav1.PartialObjectMetadata `json:"nodes,omitempty"`
	// Entries says which identities hold entries in SPIRE: the incumbents of their IDs.
	Entries Incumbents `json:"entries,omitzero"`
	// Bundles are the trust domains of which SPIRE has a bundle, beside its own.
	Bundles []string `json:"bundles,omitempty"`
	// KubeServices are those of Kubernetes in the namespace of an identity that is to be named after them.
	KubeServices []corev1.Service `json:"kubeServices,omitempty"`
	// NamedAfter are Services that identities keep their names of until a grace time ends, whether or not they select a pod still.
	NamedAfter []ServiceName `json:"namedAfter,omitempty"`
	// EarlierNodes are Nodes that were there before those of identities: agents may be known by their UIDs still.
	EarlierNodes []EarlierNode `json:"earlierNodes,omitempty"`
	// ClusterDomain is what the DNS names of Services end in: cluster.local. Empty, they are not written out.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// Services are the MeshServices asked for, those that they depend on, those that depend on them, those that expose at a
	// gateway asked for, and those that expose at the same gateways. What the Mesh has of a Service is whole where all of its
	// neighbours are here.
	Services []meshv1alpha1.MeshService `json:"services,omitempty"`
	// Gateways are the MeshGateways asked for, and those that Services expose at.
	Gateways []meshv1alpha1.MeshGateway `json:"gateways,omitempty"`
	// ConfigMaps are those that Services and Gateways refer to.
	ConfigMaps []corev1.ConfigMap `json:"configMaps,omitempty"`
	// Descriptors remembers what descriptor sets say from one Build to the next, which changes nothing but the work. Nil, there
	// is one for this Build.
	Descriptors *descriptor.Cache `json:"-"`
}

// Incumbents are the identities that SPIRE holds entries of.
type Incumbents struct {
	// Unknown is true as long as nobody has read what SPIRE holds: then no rivalry can be decided.
	Unknown bool                   `json:"unknown,omitempty"`
	Of      []types.NamespacedName `json:"of,omitempty"`
}

// ServiceName says that an identity is named after a Service.
type ServiceName struct {
	Identity types.NamespacedName `json:"identity"`
	Service  string               `json:"service"`
}

// EarlierNode says that a node of an identity may have an agent that is known by the UID of a Node of before, and until when.
// Where it is not known which node that is, the name is empty.
type EarlierNode struct {
	Identity types.NamespacedName `json:"identity"`
	Name     string               `json:"name,omitempty"`
	UID      types.UID            `json:"uid"`
	Until    metav1.Time          `json:"until"`
}

// Build makes the Mesh of objects. What is wrong with a part becomes a Problem of the object that has to change; every
// other part is in the Mesh all the same.
func Build(objects Objects) (Mesh, []Problem) {
	b := newBuilder(objects)
	b.addNodes()
	b.addIdentities()
	b.addServices()
	b.addGateways()
	b.addEdges()
	b.addExposures()
	b.finish()
	slices.SortFunc(b.problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), compareKeys(x.Object, y.Object), cmp.Compare(x.Condition, y.Condition),
			cmp.Compare(x.Field, y.Field), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Message, y.Message))
	})
	b.mesh.Cluster = objects.Cluster
	return b.mesh, b.problems
}

// Identity is the accepted identity of a ServiceIdentity.
func (m Mesh) Identity(key types.NamespacedName) (Identity, bool) {
	return find(m.Identities, key, func(identity Identity) types.NamespacedName { return identity.Key })
}

// Service is the accepted MeshService of this key.
func (m Mesh) Service(key types.NamespacedName) (Service, bool) {
	return find(m.Services, key, func(service Service) types.NamespacedName { return service.Key })
}

// Gateway is the accepted MeshGateway of this key.
func (m Mesh) Gateway(key types.NamespacedName) (Gateway, bool) {
	return find(m.Gateways, key, func(gateway Gateway) types.NamespacedName { return gateway.Key })
}

func find[T any](sorted []T, key types.NamespacedName, keyOf func(T) types.NamespacedName) (found T, ok bool) {
	i, ok := slices.BinarySearchFunc(sorted, key, func(item T, key types.NamespacedName) int { return compareKeys(keyOf(item), key) })
	if ok {
		found = sorted[i]
	}
	return found, ok
}

type builder struct {
	Objects
	nodes      map[string]Node // by name
	identities map[types.NamespacedName]*meshv1alpha1.ServiceIdentity
	configMaps map[types.NamespacedName]*corev1.ConfigMap
	services   []*service // sorted by key, and by it
	service    map[types.NamespacedName]*service
	gateways   []*gateway
	gateway    map[types.NamespacedName]*gateway
	grants     map[string]grant // by namespace
	mesh       Mesh
	problems   []Problem
}

func newBuilder(objects Objects) *builder {
	b := &builder{
		Objects:    objects,
		nodes:      map[string]Node{},
		identities: map[types.NamespacedName]*meshv1alpha1.ServiceIdentity{},
		configMaps: map[types.NamespacedName]*corev1.ConfigMap{},
		service:    map[types.NamespacedName]*service{},
		gateway:    map[types.NamespacedName]*gateway{},
		grants:     map[string]grant{},
	}
	if b.Descriptors == nil {
		b.Descriptors = &descriptor.Cache{}
	}
	for i := range objects.Identities {
		b.identities[keyOf(&objects.Identities[i])] = &objects.Identities[i]
	}
	for i := range objects.ConfigMaps {
		b.configMaps[keyOf(&objects.ConfigMaps[i])] = &objects.ConfigMaps[i]
	}
	return b
}

// report takes up what is wrong with an object; nil is nothing.
func (b *builder) report(problem *Problem) {
	if problem != nil {
		b.problems = append(b.problems, *problem)
	}
}

// finish puts what has come out into the Mesh, in order.
func (b *builder) finish() {
	for _, s := range b.services {
		if !s.identified {
			continue
		}
		slices.SortFunc(s.Dependencies, func(x, y Dependency) int { return cmp.Compare(x.Name, y.Name) })
		slices.SortFunc(s.Upstreams, func(x, y Upstream) int { return cmp.Compare(x.Name, y.Name) })
		slices.SortFunc(s.Rules, compareRules)
		slices.SortFunc(s.Foreign, compareRules)
		b.mesh.Services = append(b.mesh.Services, s.Service)
	}
	for _, g := range b.gateways {
		if !g.identified {
			continue
		}
		slices.SortFunc(g.Routes, func(x, y Route) int {
			return cmp.Or(compareKeys(x.Service, y.Service), cmp.Compare(x.Name, y.Name))
		})
		b.mesh.Gateways = append(b.mesh.Gateways, g.Gateway)
	}
}

func keyOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}

func compareKeys(x, y types.NamespacedName) int {
	return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
}

func compareBools(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	default:
		return -1
	}
}
