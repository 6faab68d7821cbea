package mesh

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// grants reads the value of the annotation that grants path prefixes to a namespace. What is not a path grants nothing.
func grants(annotation string) []string {
	var prefixes []string
	for part := range strings.SplitSeq(annotation, ",") {
		if part = strings.TrimSpace(part); part != "" && spiffeid.ValidatePath(part) == nil {
			prefixes = append(prefixes, part)
		}
	}
	return prefixes
}

// judgePath says why a ServiceIdentity may not have the path it wants; nil where it may.
// A namespace may have the default path of its own service accounts, and what an administrator granted to it; but nobody
// is granted SPIRE's own paths, paymesh's own, or those of another namespace.
func (c ClusterID) judgePath(object *meshv1alpha1.ServiceIdentity, granted []string) *Problem {
	field, subject := fieldOfPath(object), "spec.path"
	if object.Spec.PathTemplate != "" {
		subject = field + ": the path"
	}
	problem := func(reason, format string, args ...any) *Problem {
		return &Problem{Kind: KindServiceIdentity, Object: KeyOf(object), Condition: meshv1alpha1.ConditionAccepted, Reason: reason, Field: field, Message: subject + " " + fmt.Sprintf(format, args...)}
	}
	path, err := c.Path(object)
	if err != nil {
		return problem(meshv1alpha1.ReasonPathValueMissing, "cannot be made of %s: %v; delete this ServiceIdentity and create it so", object.Spec.PathTemplate, err)
	}
	id, err := spiffeid.FromPath(c.TrustDomain, path)
	if err != nil {
		return problem(meshv1alpha1.ReasonPathInvalid, "%q cannot be the path of a SPIFFE ID (%v): choose another, or leave it out", path, err)
	}
	if length := len(id.String()); length > maxIDBytes {
		return problem(meshv1alpha1.ReasonPathInvalid, "makes a SPIFFE ID of %d bytes, more than the %d that every implementation supports: shorten it", length, maxIDBytes)
	}
	if path == DefaultPath(object.Namespace, object.Spec.ServiceAccountName) {
		return nil
	}
	if owner := reservedFor(path, object.Namespace); owner != "" {
		return problem(meshv1alpha1.ReasonPathReserved, "%s is reserved for %s and cannot be granted to anybody else: choose another path, or leave it out for %s",
			path, owner, DefaultPath(object.Namespace, object.Spec.ServiceAccountName))
	}
	for _, prefix := range granted {
		if covers(prefix, path) {
			return nil
		}
	}
	return problem(meshv1alpha1.ReasonPathNotGranted,
		"%s is not granted to namespace %s: leave it out for %s, or an administrator types: kubectl annotate --overwrite namespace %s %s=%s",
		path, object.Namespace, DefaultPath(object.Namespace, object.Spec.ServiceAccountName),
		object.Namespace, meshv1alpha1.AnnotationSPIFFEPathPrefixes, strings.Join(append(granted[:len(granted):len(granted)], path), ","))
}

// reservedFor names whom a path is reserved for where no grant can give it to the namespace.
func reservedFor(path, namespace string) string {
	switch {
	case covers(reservedForSPIRE, path):
		return "SPIRE"
	case covers(reservedForPaymesh, path):
		return "paymesh"
	case covers("/ns", path) && !covers("/ns/"+namespace, path):
		return "the namespace that it names"
	}
	return ""
}

// id is the SPIFFE ID with this path, as text; for messages.
func (c ClusterID) id(path string) string { return c.TrustDomain.IDString() + path }

// mustID is the SPIFFE ID with a path that judgePath has accepted.
func (c ClusterID) mustID(path string) spiffeid.ID {
	return spiffeid.RequireFromPath(c.TrustDomain, path)
}

// IDOf is the SPIFFE ID that a ServiceIdentity wants, as text, whether or not it may have it; empty where its template
// lacks a value.
func (c ClusterID) IDOf(object *meshv1alpha1.ServiceIdentity) string {
	path, err := c.Path(object)
	if err != nil {
		return ""
	}
	return c.id(path)
}
