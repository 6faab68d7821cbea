package v1alpha1_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

const crdFile = "../../config/crd/bases/mesh.jia.app_serviceidentities.yaml"

func loadCRD(t testing.TB) *verdict.CRD {
	t.Helper()
	crd, err := verdict.LoadCRD(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	return crd
}

// identity returns a valid ServiceIdentity, changed by the fields of spec.
func identity(spec map[string]any) map[string]any {
	fields := map[string]any{"serviceAccountName": "payment"}
	for name, value := range spec {
		fields[name] = value
	}
	return map[string]any{
		"apiVersion": "mesh.jia.app/v1alpha1",
		"kind":       "ServiceIdentity",
		"metadata":   map[string]any{"name": "payment", "namespace": "payments"},
		"spec":       fields,
	}
}

// kinds are the CRD files by the plural names of their kinds.
func kinds(t *testing.T) map[string]*verdict.CRD {
	t.Helper()
	const folder = "../../config/crd/bases/"
	files, err := filepath.Glob(folder + "*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("%s has the files %v, %v: want one of each kind", folder, files, err)
	}
	all := map[string]*verdict.CRD{}
	for _, file := range files {
		crd, err := verdict.LoadCRD(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "mesh.jia.app_"), ".yaml")] = crd
	}
	return all
}

// untyped is what has no schema here: the operator judges it.
var untyped = map[string]bool{"spec.workload.config": true, "spec.workload.patch": true}

func TestEveryStringListMapAndNumberIsBounded(t *testing.T) {
	for kind, crd := range kinds(t) {
		crd.EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
			fail := func(what string) { t.Errorf("%s: %s %s", kind, field, what) }
			switch {
			case untyped[field]:
				if schema.Type != "object" {
					fail("is not an object")
				}
			case (schema.Type == "string" || schema.XIntOrString) && schema.MaxLength == nil && len(schema.Enum) == 0 && schema.Format != "date-time":
				fail("has no maxLength")
			case schema.Type == "array" && schema.MaxItems == nil:
				fail("has no maxItems")
			case schema.Type == "array" && strings.HasPrefix(field, "spec.") && schema.MinItems == nil && schema.XListType != nil && kind != "serviceidentities":
				fail("has no minItems: an empty list would say what leaving it out says")
			case schema.Type == "array" && schema.XListType == nil:
				fail("has no list type, so server-side apply replaces it as a whole")
			case schema.AdditionalProperties != nil && schema.MaxProperties == nil:
				fail("has no maxProperties")
			case schema.Type == "integer" && schema.Minimum == nil:
				fail("has no minimum")
			case schema.Type == "object" && schema.Properties == nil && schema.AdditionalProperties == nil, schema.XPreserveUnknownFields != nil:
				fail("is not typed")
			}
		})
	}
}

// A pattern's message is the pattern: a rule says the same and what to write instead.
func TestEveryRuleHasAMessageThatNamesItsField(t *testing.T) {
	// The rules of types that several fields have say what the value is: a name, a duration, an amount.
	shared := regexp.MustCompile(`^(a|an|the) [A-Za-z ]*? must (be|begin|consist of|have) `)
	for kind, crd := range kinds(t) {
		for _, rule := range crd.Schema.XValidations {
			if !strings.HasPrefix(rule.Message, "metadata.name ") {
				t.Errorf("%s: message %q does not begin with metadata.name", kind, rule.Message)
			}
		}
		crd.EachField(func(field, name string, schema *apiextensions.JSONSchemaProps) {
			if schema.Pattern != "" && len(schema.XValidations) == 0 && !strings.HasPrefix(field, "status.conditions") {
				t.Errorf("%s: %s has a pattern, which says nothing to who breaks it: write a rule with a message", kind, field)
			}
			for _, rule := range schema.XValidations {
				if rule.FieldPath != "" {
					name = strings.TrimPrefix(rule.FieldPath, ".")
				}
				if !regexp.MustCompile(`^`+regexp.QuoteMeta(name)+`[ .]`).MatchString(rule.Message) && !shared.MatchString(rule.Message) {
					t.Errorf("%s: %s: message %q does not begin with %q", kind, field, rule.Message, name)
				}
				if len(rule.Message) > 300 {
					t.Errorf("%s: %s: message %q is longer than a reader is patient", kind, field, rule.Message)
				}
			}
		})
	}
}

func TestTheDescriptionOfEachFieldOfSpecHoldsItsBoundsAndItsDefault(t *testing.T) {
	for kind, crd := range kinds(t) {
		fields, description := 0, ""
		crd.EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
			if !strings.HasPrefix(field, "spec.") {
				return
			}
			// What holds of each item of a list stands in the description of the list.
			if !strings.HasSuffix(field, "]") && !strings.HasSuffix(field, "}") {
				description = schema.Description
				fields++
			}
			for _, want := range documented(schema) {
				if !regexp.MustCompile(`(^|[^\w,])` + want + `([^\w]|$)`).MatchString(description) {
					t.Errorf("%s: %s: %s is not in the description %q", kind, field, want, description)
				}
			}
		})
		if fields < 7 {
			t.Errorf("%s: only %d fields found", kind, fields)
		}
	}
}

// documented are the bounds and the default of a field, as a reader looks for them.
func documented(schema *apiextensions.JSONSchemaProps) []string {
	var want []string
	for _, rule := range schema.XValidations {
		for _, bound := range regexp.MustCompile(`[<>]= duration\('(\w+)'\)`).FindAllStringSubmatch(rule.Rule, -1) {
			want = append(want, bound[1])
		}
	}
	if want == nil && !schema.XIntOrString { // the bounds of a duration and of an amount are in its rule
		for _, bound := range []*int64{schema.MaxLength, schema.MaxItems, schema.MaxProperties} {
			if bound != nil {
				want = append(want, thousands(*bound))
			}
		}
	}
	for _, bound := range []*float64{schema.Minimum, schema.Maximum} {
		if bound != nil { // a port has no comma
			want = append(want, fmt.Sprintf("(%s|%d)", thousands(int64(*bound)), int64(*bound)))
		}
	}
	for _, value := range schema.Enum {
		want = append(want, fmt.Sprint(value))
	}
	if schema.Default != nil {
		want = append(want, regexp.QuoteMeta(fmt.Sprint(*schema.Default)))
	}
	return want
}

func thousands(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// controller-gen cuts descriptions at this length (its argument maxDescLen).
const maxDescription = 400

func TestTheCommentOfEachFieldStartsWithItsJSONNameAndFitsTheDescription(t *testing.T) {
	fields := 0
	for _, file := range parse(t, "*_types.go") {
		ast.Inspect(file, func(node ast.Node) bool {
			field, ok := node.(*ast.Field)
			if !ok || field.Tag == nil {
				return true
			}
			text, _ := strconv.Unquote(field.Tag.Value)
			name, _, _ := strings.Cut(reflect.StructTag(text).Get("json"), ",")
			if name == "" || len(field.Names) == 0 && name != "metadata" {
				return true
			}
			fields++
			doc := withoutMarkers(field.Doc)
			if len(field.Names) > 0 && !strings.HasPrefix(doc, name+" ") {
				t.Errorf("the comment of %s begins with %.40q", name, doc)
			}
			if len(doc) > maxDescription {
				t.Errorf("the comment of %s has %d bytes: kubectl explain would show %d of them", name, len(doc), maxDescription)
			}
			return true
		})
	}
	if fields < 15 {
		t.Errorf("only %d fields found", fields)
	}
}

func TestEachConditionTypeAndReasonIsADocumentedConstant(t *testing.T) {
	reason := regexp.MustCompile(`^Reason(\w+) \(((True|False|Unknown)(, (True|False|Unknown))*|of status\.\w+ alone)\): `)
	valid := regexp.MustCompile(`^[A-Z][A-Za-z]{1,62}$`)
	types, reasons := 0, 0
	for _, file := range parse(t, "conditions.go") {
		ast.Inspect(file, func(node ast.Node) bool {
			constant, ok := node.(*ast.ValueSpec)
			if !ok {
				return true
			}
			name := constant.Names[0].Name
			value, _ := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
			doc := withoutMarkers(constant.Doc)
			switch {
			case strings.HasPrefix(name, "Condition"):
				types++
				if name != "Condition"+value || !valid.MatchString(value) || !strings.HasPrefix(doc, name+" ") {
					t.Errorf("%s = %q: %q", name, value, doc)
				}
			case strings.HasPrefix(name, "Reason"):
				reasons++
				if name != "Reason"+value || !valid.MatchString(value) || !reason.MatchString(doc) || !strings.HasPrefix(doc, name+" ") {
					t.Errorf("%s = %q: %q", name, value, doc)
				}
			}
			return true
		})
	}
	if types < 3 || reasons < 10 {
		t.Errorf("only %d types and %d reasons found", types, reasons)
	}
}

func parse(t *testing.T, pattern string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no file is called %s: %v", pattern, err)
	}
	files := make([]*ast.File, 0, len(paths))
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func withoutMarkers(doc *ast.CommentGroup) string {
	var lines []string
	for line := range strings.Lines(doc.Text()) {
		if !strings.HasPrefix(line, "+") {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, ""))
}
