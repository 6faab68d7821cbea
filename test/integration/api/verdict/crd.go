// Package verdict says of an object or a name, in this process, what the API server, go-spiffe and SPIRE say of it:
// the CRD file and objects go in, errors come out.
package verdict

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// CRD validates objects of one version of a kind as the API server does: schema, list types, then CEL.
// It holds one compiled program per rule, so that a verdict costs microseconds. Not for concurrent use.
type CRD struct {
	// Schema is the version's schema as the CRD has it.
	Schema *apiextensions.JSONSchemaProps

	structural *schema.Structural
	schema     validation.SchemaValidator
	cel        *cel.Validator
}

// LoadCRD reads the CRD at path and its only version. The error is what the API server would say to the CRD itself, the
// cost of its CEL rules included.
func LoadCRD(path string) (*CRD, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the CRD: %w", err)
	}
	var versioned apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &versioned); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	scheme.Default(&versioned)
	var crd apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&versioned, &crd, nil); err != nil {
		return nil, fmt.Errorf("convert %s: %w", path, err)
	}
	if len(crd.Spec.Versions) != 1 {
		return nil, fmt.Errorf("%s has %d versions, want one", path, len(crd.Spec.Versions))
	}
	// The API server has filled it in by the time it validates.
	crd.Status.StoredVersions = []string{crd.Spec.Versions[0].Name}
	if errs := crdvalidation.ValidateCustomResourceDefinition(context.Background(), &crd); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", path, errs.ToAggregate())
	}
	// The conversion has moved the schema of an only version to the top.
	props := crd.Spec.Validation.OpenAPIV3Schema
	structural, err := schema.NewStructural(props)
	if err != nil {
		return nil, fmt.Errorf("structural schema of %s: %w", path, err)
	}
	validator, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", path, err)
	}
	return &CRD{
		Schema:     props,
		structural: structural,
		schema:     validator,
		cel:        cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, nil
}

// blocking are the faults after which rules are not run: the object's size or types are not what their cost was estimated for.
var blocking = []field.ErrorType{
	field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid,
}

// Create returns what the API server has against the creation of object, a JSON value with apiVersion, kind and metadata.
//
// It follows customResourceStrategy.Validate of k8s.io/apiextensions-apiserver/pkg/registry/customresource, which cannot be
// imported without the API server's whole storage layer.
func (c *CRD) Create(object map[string]any) field.ErrorList {
	errs := validation.ValidateCustomResource(nil, object, c.schema)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, object)...)
	for _, err := range errs {
		if slices.Contains(blocking, err.Type) {
			return errs
		}
	}
	broken, _ := c.cel.Validate(context.Background(), nil, c.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, broken...)
}

// EachField calls do with each field of spec and status, in the order of their paths and a field before what is in it. field
// is its path, with [] for the items of a list and {} for the values of a map; name is the last property in it.
func (c *CRD) EachField(do func(field, name string, schema *apiextensions.JSONSchemaProps)) {
	var walk func(field, name string, schema *apiextensions.JSONSchemaProps)
	walk = func(field, name string, schema *apiextensions.JSONSchemaProps) {
		do(field, name, schema)
		if schema.Items != nil {
			walk(field+"[]", name, schema.Items.Schema)
		}
		if schema.AdditionalProperties != nil {
			walk(field+"{}", name, schema.AdditionalProperties.Schema)
		}
		for _, child := range slices.Sorted(maps.Keys(schema.Properties)) {
			s := schema.Properties[child]
			walk(field+"."+child, child, &s)
		}
	}
	for _, child := range []string{"spec", "status"} {
		s := c.Schema.Properties[child]
		walk(child, child, &s)
	}
}
