package mesh

import (
	"cmp"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// applicant is a MeshService or a MeshGateway as its identity is looked for.
type applicant struct {
	ProxyKey
	object metav1.Object
	// serviceAccountName is what the spec says; empty where it says nothing.
	serviceAccountName string
}

// principal is who an applicant's pods are.
type principal struct {
	id                 spiffeid.ID
	trusted            bool
	identity           types.NamespacedName
	newIdentity        *meshv1alpha1.ServiceIdentitySpec
	serviceAccountName string
}

// identify finds who the applicant is. Without that nothing of it can be rendered: the Problem is why.
func (b *builder) identify(a applicant) (principal, *Problem) {
	source := sourceOf(a.object)
	if source.Name != "" {
		return b.identifyByName(a)
	}
	key := IdentityOf(a.object)
	account := cmp.Or(a.serviceAccountName, a.Name)
	p := principal{identity: key, serviceAccountName: account, newIdentity: &meshv1alpha1.ServiceIdentitySpec{
		Path:               source.Path,
		ServiceAccountName: account,
		PodLabels:          map[string]meshv1alpha1.LabelValue{a.Label(): meshv1alpha1.LabelValue(a.Name)},
		X509SVIDTTL:        source.X509SVIDTTL,
		JWTSVIDTTL:         source.JWTSVIDTTL,
		DNSNames:           source.DNSNames,
	}}
	path := cmp.Or(source.Path, DefaultPath(a.Namespace, account))
	id, err := spiffeid.FromPath(b.Cluster.TrustDomain, path)
	if err != nil {
		return p, a.problem(meshv1alpha1.ReasonPathInvalid, "spec.identity.path", fmt.Sprintf(
			"spec.identity.path %q cannot be the path of a SPIFFE ID (%v): delete this %s and create it with another, or without", path, err, a.Kind))
	}
	p.id = id
	object := b.identities[key]
	if object == nil {
		return p, nil // it is about to be created
	}
	// One that was made for this object is put right where somebody has changed it: its path and its service account cannot be.
	own := metav1.IsControlledBy(object, a.object)
	if has, err := b.Cluster.Path(object); err != nil || has != path || object.Spec.ServiceAccountName != account || !own && missingLabel(object, a.PodLabels()) != "" {
		return p, a.problem(meshv1alpha1.ReasonIdentityMismatch, "spec.identity", fmt.Sprintf(
			"ServiceIdentity %s is not the one of this %s, which needs %s for its pods, with service account %s: delete that one when nobody uses it, or create this %s under another name",
			key, a.Kind, id, account, a.Kind))
	}
	p.trusted = wasAccepted(object)
	return p, a.unaccepted(object)
}

// identifyByName takes the ServiceIdentity that spec.identity.name refers to.
func (b *builder) identifyByName(a applicant) (principal, *Problem) {
	const field = "spec.identity.name"
	key := IdentityOf(a.object)
	p := principal{identity: key}
	object := b.identities[key]
	if object == nil {
		return p, a.problem(meshv1alpha1.ReasonIdentityNotFound, field, fmt.Sprintf(
			"%s: there is no ServiceIdentity %s: create it", field, key))
	}
	account := object.Spec.ServiceAccountName
	p.serviceAccountName = account
	path, err := b.Cluster.Path(object)
	if err != nil {
		return p, a.problem(meshv1alpha1.ReasonPathValueMissing, field, fmt.Sprintf(
			"%s: ServiceIdentity %s has no SPIFFE ID, for in its spec.pathTemplate %v: create it so", field, key, err))
	}
	id, err := spiffeid.FromPath(b.Cluster.TrustDomain, path)
	if err != nil {
		return p, a.problem(meshv1alpha1.ReasonPathInvalid, field, fmt.Sprintf(
			"%s: ServiceIdentity %s has the path %q, which no SPIFFE ID can have (%v): create another, and this %s with its name", field, key, path, err, a.Kind))
	}
	p.id = id
	if a.serviceAccountName != "" && a.serviceAccountName != account {
		return p, a.problem(meshv1alpha1.ReasonIdentityMismatch, "spec.workload.serviceAccountName", fmt.Sprintf(
			"spec.workload.serviceAccountName is %s, but ServiceIdentity %s is for pods of the service account %s: delete this %s and create it with that one, or with another spec.identity.name",
			a.serviceAccountName, key, account, a.Kind))
	}
	if label := missingLabel(object, a.PodLabels()); label != "" {
		return p, a.problem(meshv1alpha1.ReasonIdentityMismatch, field, fmt.Sprintf(
			"%s: ServiceIdentity %s is for pods with the label %s, which the pods of this %s do not have: remove it from spec.podLabels there", field, key, label, a.Kind))
	}
	p.trusted = wasAccepted(object)
	return p, a.unaccepted(object)
}

// unaccepted passes on why the ServiceIdentity is not accepted. One of which nothing is known yet is no problem: it is waited for.
func (a applicant) unaccepted(object *meshv1alpha1.ServiceIdentity) *Problem {
	condition := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionAccepted)
	if condition == nil || condition.Status != metav1.ConditionFalse {
		return nil
	}
	return a.problem(condition.Reason, "spec.identity", fmt.Sprintf("ServiceIdentity %s: %s", keyOf(object), condition.Message))
}

func (a applicant) problem(reason, field, message string) *Problem {
	return &Problem{Kind: a.Kind, Object: a.NamespacedName, Condition: meshv1alpha1.ConditionAccepted, Reason: reason, Field: field, Message: message}
}

// missingLabel is a pod label that the identity wants and that pods with have lack; empty where there is none.
func missingLabel(object *meshv1alpha1.ServiceIdentity, have map[string]string) string {
	for _, key := range sets.List(sets.KeySet(object.Spec.PodLabels)) {
		if value, ok := have[key]; !ok || value != string(object.Spec.PodLabels[key]) {
			return key + "=" + string(object.Spec.PodLabels[key])
		}
	}
	return ""
}
