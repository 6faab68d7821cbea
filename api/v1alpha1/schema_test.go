package v1alpha1_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
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

func TestTheCRDIsSmallEnoughForKubectlApply(t *testing.T) {
	info, err := os.Stat(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	// kubectl apply keeps the whole of it in an annotation, and all annotations together have 262,144 bytes.
	if info.Size() > 262_144/4 {
		t.Errorf("the CRD has %d bytes", info.Size())
	}
}

func TestEveryStringListMapAndNumberIsBounded(t *testing.T) {
	loadCRD(t).EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
		switch {
		case schema.Type == "string" && schema.MaxLength == nil && len(schema.Enum) == 0 && schema.Format != "date-time":
			t.Errorf("%s has no maxLength", field)
		case schema.Type == "array" && schema.MaxItems == nil:
			t.Errorf("%s has no maxItems", field)
		case schema.Type == "array" && schema.XListType == nil:
			t.Errorf("%s has no list type, so server-side apply replaces it as a whole", field)
		case schema.AdditionalProperties != nil && schema.MaxProperties == nil:
			t.Errorf("%s has no maxProperties", field)
		case schema.Type == "integer" && schema.Minimum == nil:
			t.Errorf("%s has no minimum", field)
		case schema.Type == "object" && schema.Properties == nil && schema.AdditionalProperties == nil, schema.XPreserveUnknownFields != nil, schema.XIntOrString:
			t.Errorf("%s is not typed", field)
		}
	})
}

// A pattern's message is the pattern: a rule says the same and what to write instead.
func TestEveryRuleHasAMessageThatNamesItsField(t *testing.T) {
	crd := loadCRD(t)
	for _, rule := range crd.Schema.XValidations {
		if !strings.HasPrefix(rule.Message, "metadata.name ") {
			t.Errorf("message %q does not begin with metadata.name", rule.Message)
		}
	}
	crd.EachField(func(field, name string, schema *apiextensions.JSONSchemaProps) {
		if schema.Pattern != "" && !strings.HasPrefix(field, "status.conditions") {
			t.Errorf("%s has a pattern, which says nothing to who breaks it: write a rule with a message", field)
		}
		for _, rule := range schema.XValidations {
			if rule.FieldPath != "" {
				name = strings.TrimPrefix(rule.FieldPath, ".")
			}
			// The rule of the type Duration serves every field of that type.
			if !strings.HasPrefix(rule.Message, name+" ") && !strings.HasPrefix(rule.Message, "a duration ") {
				t.Errorf("%s: message %q does not begin with %q", field, rule.Message, name)
			}
			if len(rule.Message) > 300 {
				t.Errorf("%s: message %q is longer than a reader is patient", field, rule.Message)
			}
		}
	})
}

func TestTheDescriptionOfEachFieldOfSpecHoldsItsBounds(t *testing.T) {
	bounds := regexp.MustCompile(`[<>]= duration\('(\w+)'\)`)
	for name, schema := range loadCRD(t).Schema.Properties["spec"].Properties {
		var want []string
		for _, rule := range schema.XValidations {
			for _, bound := range bounds.FindAllStringSubmatch(rule.Rule, -1) {
				want = append(want, bound[1])
			}
		}
		if want == nil { // a duration's bounds are those in its rule
			for _, bound := range []*int64{schema.MaxLength, schema.MaxItems, schema.MaxProperties} {
				if bound != nil {
					want = append(want, thousands(*bound))
				}
			}
		}
		if want == nil {
			t.Errorf("%s: no bound found", name)
		}
		for _, bound := range want {
			if !regexp.MustCompile(`(^|[^\w,])` + bound + `([^\w]|$)`).MatchString(schema.Description) {
				t.Errorf("%s: the bound %s is not in the description %q", name, bound, schema.Description)
			}
		}
	}
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
	reason := regexp.MustCompile(`^Reason(\w+) \((True|False|Unknown)(, (True|False|Unknown))*\): `)
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
