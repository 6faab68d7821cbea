package mesh

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

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
	// NamedAfter are Services that identities keep their names of for now, whether or not they select a pod still.
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
	claims := b.claims()
	for path, rivals := range claims {
		b.settle(path, rivals)
	}
	slices.SortFunc(b.mesh.Identities, func(x, y Identity) int { return compareKeys(x.Key, y.Key) })
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

func (b *builder) addNodes() {
	for _, object := range b.Nodes {
		alias, err := b.Cluster.NodeAlias(object.UID)
		if err != nil {
			continue // the API server makes UIDs of hexadecimal digits and hyphens; its pods count as on an unknown node
		}
		node := Node{Name: object.Name, UID: object.UID, Alias: alias, Registered: object.CreationTimestamp}
		b.nodes[node.Name] = node
		b.mesh.Nodes = append(b.mesh.Nodes, node)
	}
	slices.SortFunc(b.mesh.Nodes, compareNodes)
}

// claims groups, by path, the ServiceIdentities that may have it.
func (b *builder) claims() map[string][]*meshv1alpha1.ServiceIdentity {
	for _, namespace := range b.Namespaces {
		b.grants[namespace.Name] = readGrant(namespace.Annotations[meshv1alpha1.AnnotationSPIFFEPathPrefixes])
	}
	claims := map[string][]*meshv1alpha1.ServiceIdentity{}
	for i := range b.Identities {
		object := &b.Identities[i]
		if !object.DeletionTimestamp.IsZero() && !b.Entries.Unknown && !slices.Contains(b.Entries.Of, KeyOf(object)) {
			continue // it is going, and nothing of it is left that would have to go first
		}
		granted := b.grants[object.Namespace]
		if problem := b.Cluster.judgePath(object, granted); problem != nil && !b.keeps(object, *problem, granted) {
			b.problems = append(b.problems, *problem)
			continue
		}
		path, _ := b.Cluster.Path(object) // which has been judged
		claims[path] = append(claims[path], object)
	}
	return claims
}

// keeps reports whether an identity keeps a path though nothing that can be read grants it: where a part of its namespace's
// grant cannot be read and may have meant the path, it is not known that somebody took it back. Nothing but the status tells an accepted identity from
// one whose entries have not gone yet; where it does not say, there was no time since to take anything back.
func (b *builder) keeps(object *meshv1alpha1.ServiceIdentity, problem Problem, granted grant) bool {
	if path, err := b.Cluster.Path(object); err != nil || problem.Reason != meshv1alpha1.ReasonPathNotGranted || !granted.mayCover(path) {
		return false
	}
	accepted := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionAccepted)
	if accepted == nil || accepted.Status == metav1.ConditionUnknown {
		return slices.Contains(b.Entries.Of, KeyOf(object))
	}
	return accepted.Status == metav1.ConditionTrue
}

// settle gives the ID with a path to the one of its claimants that comes first, and tells the others.
func (b *builder) settle(path string, rivals []*meshv1alpha1.ServiceIdentity) {
	if len(rivals) > 1 && b.Entries.Unknown {
		for _, rival := range rivals {
			b.problem(rival, meshv1alpha1.ReasonSyncing, "several ServiceIdentities want the SPIFFE ID "+
				b.Cluster.id(path)+": who has it first is known as soon as SPIRE's entries have been read")
		}
		return
	}
	incumbents := sets.New(b.Entries.Of...)
	slices.SortFunc(rivals, func(x, y *meshv1alpha1.ServiceIdentity) int {
		return cmp.Or(
			-compareBools(incumbents.Has(KeyOf(x)), incumbents.Has(KeyOf(y))),
			// Without entries (nothing of it runs just now) the status is the only thing that remembers who has the ID.
			-compareBools(wasAccepted(x), wasAccepted(y)),
			x.CreationTimestamp.Compare(y.CreationTimestamp.Time),
			compareKeys(KeyOf(x), KeyOf(y)))
	})
	b.mesh.Identities = append(b.mesh.Identities, b.identity(path, rivals[0]))
	for _, late := range rivals[1:] {
		b.problem(late, meshv1alpha1.ReasonIDClaimed, "the SPIFFE ID "+b.Cluster.id(path)+
			" belongs to ServiceIdentity "+KeyOf(rivals[0]).String()+", which had it first: delete that one, or create this one with another path")
	}
}

func wasAccepted(object *meshv1alpha1.ServiceIdentity) bool {
	return meta.IsStatusConditionTrue(object.Status.Conditions, meshv1alpha1.ConditionAccepted)
}

// problem is one of who has the path.
func (b *builder) problem(object *meshv1alpha1.ServiceIdentity, reason, message string) {
	b.problems = append(b.problems, Problem{Kind: KindServiceIdentity, Object: KeyOf(object), Condition: meshv1alpha1.ConditionAccepted, Reason: reason, Field: fieldOfPath(object), Message: message})
}

func (b *builder) identity(path string, object *meshv1alpha1.ServiceIdentity) Identity {
	identity := Identity{
		Key:                KeyOf(object),
		ID:                 b.Cluster.mustID(path),
		ServiceAccountName: object.Spec.ServiceAccountName,
		X509SVIDTTL:        metav1.Duration{Duration: object.Spec.X509SVIDTTL.Duration()},
		JWTSVIDTTL:         metav1.Duration{Duration: object.Spec.JWTSVIDTTL.Duration()},
		Hint:               object.Spec.Hint,
	}
	if granted := b.grants[object.Namespace]; b.Cluster.judgePath(object, granted) != nil { // it keeps the path all the same
		identity.UnreadGrant = granted.complaint() + ": for it to keep " + path + ", an administrator types: " + granted.command(object.Namespace, path)
	}
	for _, name := range object.Spec.DNSNames {
		identity.DNSNames = append(identity.DNSNames, string(name))
	}
	for key, value := range object.Spec.PodLabels {
		if identity.PodLabels == nil {
			identity.PodLabels = map[string]string{}
		}
		identity.PodLabels[key] = string(value)
	}
	if object.Spec.ServiceDNSNames {
		b.nameAfterServices(&identity)
	}
	b.federate(&identity, object.Spec.FederatesWith)
	if identity.ClusterWide = object.Spec.Placement == meshv1alpha1.PlacementCluster; !identity.ClusterWide {
		b.place(&identity)
	}
	return identity
}

// federate sorts the trust domains by whether SPIRE has their bundle: it refuses an entry with one that it has none of.
// Its own every entry has.
func (b *builder) federate(identity *Identity, with []meshv1alpha1.TrustDomain) {
	for _, name := range slices.Sorted(slices.Values(with)) {
		switch trustDomain := string(name); {
		case trustDomain == b.Cluster.TrustDomain.Name():
		case slices.Contains(b.Bundles, trustDomain):
			identity.FederatesWith = append(identity.FederatesWith, trustDomain)
		default:
			identity.MissingBundles = append(identity.MissingBundles, trustDomain)
		}
	}
}

// place finds the nodes that run pods of the identity. SPIRE knows the agent of one that was registered again by the UID that it
// attested with: so what is for the node is for the earlier one, too, until the agent must have attested again.
func (b *builder) place(identity *Identity) {
	nodes, unknown := map[types.UID]Node{}, sets.New[string]()
	for i := range b.Pods {
		pod := &b.Pods[i]
		if !identity.Selects(pod) || !occupies(pod) {
			continue
		}
		if node, ok := b.nodes[pod.Spec.NodeName]; ok {
			nodes[node.UID] = node
		} else {
			unknown.Insert(pod.Spec.NodeName)
		}
	}
	names := sets.New[string]()
	for _, node := range nodes {
		identity.Nodes = append(identity.Nodes, node)
		names.Insert(node.Name)
	}
	for _, earlier := range b.EarlierNodes {
		if earlier.Identity != identity.Key || earlier.Name != "" && !names.Has(earlier.Name) || len(names) == 0 {
			continue
		}
		if alias, err := b.Cluster.NodeAlias(earlier.UID); err == nil {
			identity.Nodes = append(identity.Nodes, Node{Name: earlier.Name, UID: earlier.UID, Alias: alias, Until: earlier.Until})
		}
	}
	slices.SortFunc(identity.Nodes, compareNodes)
	identity.UnknownNodes = sets.List(unknown)
}

// Selects reports whether the pod gets the identity, wherever it runs.
func (i Identity) Selects(pod *corev1.Pod) bool {
	if pod.Namespace != i.Key.Namespace || ServiceAccountOf(pod) != i.ServiceAccountName {
		return false
	}
	for key, value := range i.PodLabels {
		if have, ok := pod.Labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// occupies reports whether a node runs the pod: it is bound, and its containers have not ended for good. A pod that is
// being deleted counts: what drains needs its identity to the end.
func occupies(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && !ended(pod)
}

// ended reports whether the pod's containers have ended for good.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// ServiceAccountOf is the service account that the pod runs under. The API server fills it in for every pod but the mirror
// pods, which a kubelet makes: those have none, and never an identity. Else a broken node could ask for any namespace's.
func ServiceAccountOf(pod *corev1.Pod) string { return pod.Spec.ServiceAccountName }

// KeyOf is the namespace and name of a ServiceIdentity.
func KeyOf(object *meshv1alpha1.ServiceIdentity) types.NamespacedName { return keyOf(object) }

func keyOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}

func compareKeys(x, y types.NamespacedName) int {
	return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
}

func compareNodes(x, y Node) int { return cmp.Compare(x.UID, y.UID) }

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
