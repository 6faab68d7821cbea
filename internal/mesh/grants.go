package mesh

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// grant is what the annotation of a namespace grants to it.
type grant struct {
	// prefixes are the paths that it grants, with all below them.
	prefixes []string
	// unread are the parts of it that are no path, and corrected is the annotation as it was probably meant.
	unread    []unreadGrant
	corrected []string
}

// unreadGrant is a part that is no path, why, and what was probably meant; empty where that is no path either.
type unreadGrant struct {
	part  string
	err   error
	meant string
}

// readGrant reads the value of the annotation that grants path prefixes to a namespace. What is not a path grants nothing.
func readGrant(annotation string) grant {
	var g grant
	for part := range strings.SplitSeq(annotation, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		err := spiffeid.ValidatePath(part)
		if err == nil {
			g.prefixes = append(g.prefixes, part)
			g.corrected = append(g.corrected, part)
			continue
		}
		// The slashes are what people get wrong.
		meant := "/" + strings.Join(strings.FieldsFunc(part, func(r rune) bool { return r == '/' }), "/")
		if spiffeid.ValidatePath(meant) == nil {
			g.corrected = append(g.corrected, meant)
		} else {
			meant = ""
		}
		g.unread = append(g.unread, unreadGrant{part, err, meant})
	}
	return g
}

// covers reports whether a path is granted.
func (g grant) covers(path string) bool {
	return slices.ContainsFunc(g.prefixes, func(prefix string) bool { return covers(prefix, path) })
}

// mayCover reports whether a part that cannot be read may have been meant to grant a path.
func (g grant) mayCover(path string) bool {
	return slices.ContainsFunc(g.unread, func(unread unreadGrant) bool { return unread.meant == "" || covers(unread.meant, path) })
}

// complaint says which parts cannot be read; empty where all can.
func (g grant) complaint() string {
	parts := make([]string, len(g.unread))
	for i, unread := range g.unread {
		parts[i] = fmt.Sprintf("%q is no path (%v)", unread.part, unread.err)
	}
	return strings.Join(parts, ", ")
}

// command is what an administrator types so that the namespace is granted what it is, what was probably meant by parts that
// cannot be read, and a path.
func (g grant) command(namespace, path string) string {
	parts := g.corrected
	if !slices.ContainsFunc(parts, func(prefix string) bool { return covers(prefix, path) }) {
		parts = append(slices.Clone(parts), path)
	}
	return "kubectl annotate --overwrite namespace " + namespace + " " + meshv1alpha1.AnnotationSPIFFEPathPrefixes + "=" + strings.Join(parts, ",")
}

// judgePath says why a ServiceIdentity may not have the path it wants; nil where it may.
// A namespace may have the default path of its own service accounts, and what an administrator granted to it; but nobody
// is granted SPIRE's own paths, paymesh's own, or those of another namespace.
func (c ClusterID) judgePath(object *meshv1alpha1.ServiceIdentity, granted grant) *Problem {
	subject := "spec.path"
	if object.Spec.PathTemplate != "" {
		subject = fieldOfPath(object) + ": the path"
	}
	problem := func(reason, format string, args ...any) *Problem {
		return problemOfPath(object, reason, subject+" "+fmt.Sprintf(format, args...))
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
	if granted.covers(path) {
		return nil
	}
	unread := ""
	if len(granted.unread) > 0 {
		unread = " (of the annotation " + meshv1alpha1.AnnotationSPIFFEPathPrefixes + " " + granted.complaint() + ")"
	}
	return problem(meshv1alpha1.ReasonPathNotGranted, "%s is not granted to namespace %s%s: leave it out for %s, or an administrator types: %s",
		path, object.Namespace, unread, DefaultPath(object.Namespace, object.Spec.ServiceAccountName), granted.command(object.Namespace, path))
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
