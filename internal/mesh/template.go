package mesh

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// pathVariable is a place in a path template that a value is put into: {{namespace}}. There is nothing else to the syntax, so
// that what comes out is told by looking at it; the schema holds which variables there are.
var pathVariable = regexp.MustCompile(`\{\{([^{}]*)\}\}`)

const podLabelVariable = "podLabels."

// Path is the path of the SPIFFE ID that a ServiceIdentity wants. It fails where its template needs a value that the object
// does not say: a path with a gap in it would be another identity's.
func (c ClusterID) Path(object *meshv1alpha1.ServiceIdentity) (string, error) {
	if object.Spec.PathTemplate == "" {
		return cmp.Or(object.Spec.Path, DefaultPath(object.Namespace, object.Spec.ServiceAccountName)), nil
	}
	var missing error
	path := pathVariable.ReplaceAllStringFunc(object.Spec.PathTemplate, func(place string) string {
		value, err := c.valueOf(strings.Trim(place, "{}"), object)
		missing = cmp.Or(missing, err)
		return value
	})
	return path, missing
}

// valueOf is what a variable of a path template stands for.
func (c ClusterID) valueOf(name string, object *meshv1alpha1.ServiceIdentity) (string, error) {
	switch name {
	case "cluster":
		return c.Name, nil
	case "namespace":
		return object.Namespace, nil
	case "serviceAccount":
		return object.Spec.ServiceAccountName, nil
	}
	label, isLabel := strings.CutPrefix(name, podLabelVariable)
	if !isLabel {
		return "", fmt.Errorf("{{%s}} is no variable: write {{cluster}}, {{namespace}}, {{serviceAccount}} or {{podLabels.<key>}}", name)
	}
	switch value, pinned := object.Spec.PodLabels[label]; {
	case !pinned:
		return "", fmt.Errorf("{{%s}} needs the label %s in spec.podLabels, with the value that the pods have: one ServiceIdentity is one SPIFFE ID", name, label)
	case value == "":
		return "", fmt.Errorf("{{%s}} needs a value, and that of %s in spec.podLabels is empty: write one there that the pods have", name, label)
	default:
		return string(value), nil
	}
}

// fieldOfPath is the field that a ServiceIdentity's path comes from.
func fieldOfPath(object *meshv1alpha1.ServiceIdentity) string {
	if object.Spec.PathTemplate != "" {
		return "spec.pathTemplate"
	}
	return "spec.path"
}
