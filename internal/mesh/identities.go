package mesh

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

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

// addIdentities gives each SPIFFE ID that is wanted to one ServiceIdentity.
func (b *builder) addIdentities() {
	for path, rivals := range b.claimants() {
		b.settle(path, rivals)
	}
	slices.SortFunc(b.mesh.Identities, func(x, y Identity) int { return compareKeys(x.Key, y.Key) })
}

// claimants are, by path, the ServiceIdentities that may have it.
func (b *builder) claimants() map[string][]*meshv1alpha1.ServiceIdentity {
	for _, namespace := range b.Namespaces {
		b.grants[namespace.Name] = readGrant(namespace.Annotations[meshv1alpha1.AnnotationSPIFFEPathPrefixes])
	}
	claimants := map[string][]*meshv1alpha1.ServiceIdentity{}
	for i := range b.Identities {
		object := &b.Identities[i]
		if !object.DeletionTimestamp.IsZero() && !b.Entries.Unknown && !slices.Contains(b.Entries.Of, KeyOf(object)) {
			continue // it is going, and nothing of it is left that would have to go first
		}
		granted := b.grants[object.Namespace]
		if problem := b.Cluster.judgePath(object, granted); problem != nil && !b.keeps(object, *problem, granted) {
			b.report(problem)
			continue
		}
		path, _ := b.Cluster.Path(object) // which has been judged
		claimants[path] = append(claimants[path], object)
	}
	return claimants
}

// keeps reports whether an identity keeps a path though nothing that can be read grants it: where a part of its namespace's
// grant cannot be read and may have meant the path, it is not known that somebody took it back. Nothing but the status tells an
// accepted identity from one whose entries have not gone yet; where it does not say, there was no time since to take anything back.
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
			b.report(problemOfPath(rival, meshv1alpha1.ReasonSyncing, "several ServiceIdentities want the SPIFFE ID "+
				b.Cluster.id(path)+": who has it first is known as soon as SPIRE's entries have been read"))
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
		b.report(problemOfPath(late, meshv1alpha1.ReasonIDClaimed, "the SPIFFE ID "+b.Cluster.id(path)+
			" belongs to ServiceIdentity "+KeyOf(rivals[0]).String()+", which had it first: delete that one, or create this one with another path"))
	}
}

func wasAccepted(object *meshv1alpha1.ServiceIdentity) bool {
	return meta.IsStatusConditionTrue(object.Status.Conditions, meshv1alpha1.ConditionAccepted)
}

// problemOfPath says why a ServiceIdentity has not the path it wants.
func problemOfPath(object *meshv1alpha1.ServiceIdentity, reason, message string) *Problem {
	return &Problem{Kind: KindServiceIdentity, Object: KeyOf(object), Condition: meshv1alpha1.ConditionAccepted, Reason: reason, Field: fieldOfPath(object), Message: message}
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

func compareNodes(x, y Node) int { return cmp.Compare(x.UID, y.UID) }

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
