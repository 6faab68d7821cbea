package api_test

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// quick is how long the API server may take for any refusal: it must not compute what it refuses.
const quick = 10 * time.Second

// violation is a change of one field that breaks one bound of it.
type violation struct {
	does  string
	wrong any      // nil removes the field
	below []any    // where in the field, if not the field itself
	under []any    // where the cause is, below that
	says  []string // words of each cause
	cause metav1.CauseType
	also  bool // causes of other types come with it, always
}

// violations are one for each bound of a field, given its value in a valid object.
func violations(schema *apiextensions.JSONSchemaProps, value any) []violation {
	var all []violation
	add := func(does string, wrong any, cause metav1.CauseType, says string) {
		all = append(all, violation{does: does, wrong: wrong, cause: cause, says: []string{says}})
	}
	if n := schema.MaxLength; n != nil {
		add("too long", strings.Repeat("a", int(*n)+1), "FieldValueTooLong", fmt.Sprintf("may not be more than %d bytes", *n))
	}
	if n := schema.MinLength; n != nil {
		add("too short", strings.Repeat("a", int(*n)-1), metav1.CauseTypeFieldValueInvalid, fmt.Sprintf("should be at least %d chars long", *n))
	}
	if n := schema.Minimum; n != nil {
		add("too small", int64(*n)-1, metav1.CauseTypeFieldValueInvalid, fmt.Sprintf("should be greater than or equal to %d", int64(*n)))
	}
	if n := schema.Maximum; n != nil {
		add("too large", int64(*n)+1, metav1.CauseTypeFieldValueInvalid, fmt.Sprintf("should be less than or equal to %d", int64(*n)))
	}
	if len(schema.Enum) > 0 {
		add("no such value", "Nothing", metav1.CauseTypeFieldValueNotSupported, fmt.Sprintf("supported values: %q", fmt.Sprint(schema.Enum[0])))
	}
	// A boolean is what hardly a field wants. What else is said of it depends on the field: lists, enums and scales say more.
	var other any = true
	if schema.Type == "boolean" {
		other = "true"
	}
	all = append(all, violation{does: "of another type", wrong: other, also: true, cause: metav1.CauseTypeTypeInvalid, says: []string{"must be of type "}})
	for _, name := range schema.Required {
		all = append(all, violation{does: "no " + name, below: []any{name}, cause: metav1.CauseTypeFieldValueRequired, says: []string{"Required value"}})
	}
	switch value := value.(type) {
	case []any:
		all = append(all, ofList(schema, value)...)
	case map[string]any:
		if n := schema.MaxProperties; n != nil {
			many, first := map[string]any{}, value[slices.Sorted(maps.Keys(value))[0]]
			for i := range int(*n) + 1 {
				many[fmt.Sprintf("example.com/n%d", i)] = first
			}
			add("too many", many, "FieldValueTooMany", fmt.Sprintf("must have at most %d items", *n))
		}
		if n := schema.MinProperties; n != nil {
			add("none", map[string]any{}, metav1.CauseTypeFieldValueInvalid, fmt.Sprintf("should have at least %d properties", *n))
		}
	}
	return all
}

// unbroken says of a schema that it has what no violation is made for. A pattern is broken with the rule that has its words.
func unbroken(s *apiextensions.JSONSchemaProps) bool {
	return s.MultipleOf != nil || s.ExclusiveMinimum || s.ExclusiveMaximum || s.UniqueItems || s.Nullable || s.Not != nil ||
		len(s.AllOf)+len(s.OneOf)+len(s.AnyOf)+len(s.PatternProperties)+len(s.Dependencies) > 0 || s.XPreserveUnknownFields != nil || s.XEmbeddedResource ||
		s.Format != "" && s.Type != "integer" || s.Pattern != "" && len(s.XValidations) == 0
}

func ofList(schema *apiextensions.JSONSchemaProps, list []any) []violation {
	var all []violation
	// A list of at most one of the only value has one twice as soon as it is too long.
	only := len(schema.Items.Schema.Enum) == 1
	if n := schema.MaxItems; n != nil {
		var many []any
		for i := range int(*n) + 1 {
			many = append(many, withOtherPorts(renamed(schema, list[0], fmt.Sprintf("n%d", i)), i))
		}
		all = append(all, violation{does: "too many", wrong: many, also: only, cause: "FieldValueTooMany", says: []string{fmt.Sprintf("must have at most %d item", *n)}})
	}
	if n := schema.MinItems; n != nil {
		all = append(all, violation{does: "none", wrong: []any{}, cause: metav1.CauseTypeFieldValueInvalid, says: []string{fmt.Sprintf("should have at least %d items", *n)}})
	}
	if schema.XListType != nil && *schema.XListType != "atomic" {
		twice := append(slices.Clone(list), withOtherPorts(runtime.DeepCopyJSONValue(list[0]), 1))
		all = append(all, violation{does: "one twice", wrong: twice, under: []any{len(list)}, also: only, cause: metav1.CauseTypeFieldValueDuplicate, says: []string{"Duplicate value"}})
	}
	return all
}

// renamed is an item with another key.
func renamed(schema *apiextensions.JSONSchemaProps, item any, name string) any {
	fields, ok := runtime.DeepCopyJSONValue(item).(map[string]any)
	if !ok {
		return name
	}
	for _, key := range schema.XListMapKeys {
		fields[key] = name
	}
	return fields
}

// withOtherPorts makes way for the rules that want ports to differ.
func withOtherPorts(item any, by int) any {
	fields, _ := item.(map[string]any)
	for _, name := range []string{"port", "localPort"} {
		if port, ok := fields[name].(int64); ok {
			fields[name] = port + int64(by)
		}
	}
	return item
}

// TestEachBoundRefusesWhatIsBeyondIt breaks each bound of the CRDs, and nothing beside it, in objects that are valid without.
func TestEachBoundRefusesWhatIsBeyondIt(t *testing.T) {
	for plural := range meshKinds {
		t.Run(plural, func(t *testing.T) {
			from, n := storedObjects(t, plural), 0
			crdOf(t, plural).EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
				if strings.HasPrefix(field, "status.conditions[]") {
					return // Kubernetes' own
				}
				if unbroken(schema) && field != "spec.workload.config" && field != "spec.workload.patch" {
					t.Errorf("%s has a bound of a sort that violations does not know: add it", field)
				}
				places := locate(from, field)
				if len(places) == 0 && field != "status" {
					t.Errorf("%s is in no object of testdata/full/%s.yaml: add it", field, plural)
					return
				}
				for i := range violations(schema, places[0].value()) {
					n++
					tryEach(t, field, places, func(p place) violation { return violations(schema, p.value())[i] })
				}
			})
			t.Logf("%d bounds", n)
		})
	}
}

// tryEach fails unless at one of the places nothing else is refused but the violation: what breaks a second rule at one may
// not at another.
func tryEach(t *testing.T, field string, places []place, of func(place) violation) {
	t.Helper()
	var tried []string
	for _, p := range places {
		v := of(p)
		err := p.submit(t, v)
		if v.brokenAlone(err, p) {
			return
		}
		tried = append(tried, fmt.Sprintf("%s of %s: %v", p, p.object.GetName(), err))
	}
	v := of(places[0])
	t.Errorf("%s, %s: want %s %q alone, got\n%s", field, v.does, v.cause, v.says, strings.Join(tried, "\n"))
}

// brokenAlone says whether err has a cause for each of the words, at the place, and no other.
func (v violation) brokenAlone(err error, p place) bool {
	found := slices.DeleteFunc(causes(err), followsFromAnother)
	at := p.at(v)
	if v.also {
		found = slices.DeleteFunc(found, func(c metav1.StatusCause) bool { return c.Type != v.cause })
	}
	for _, cause := range found {
		// A map's values have a dot before their key in the schema's words, and brackets around it in the rules'.
		if cause.Field != at.String() && cause.Field != at.dotted() || cause.Type != v.cause {
			return false
		}
	}
	for _, words := range v.says {
		if !slices.ContainsFunc(found, func(c metav1.StatusCause) bool { return strings.Contains(c.Message, words) }) {
			return false
		}
	}
	return len(found) == len(v.says)
}

// followsFromAnother says of a cause that the API server adds it to another: rules are not run on what has no valid types and
// sizes, and the replicas of the scale subresource are checked twice.
func followsFromAnother(c metav1.StatusCause) bool {
	return strings.Contains(c.Message, "some validation rules were not checked") || strings.HasPrefix(c.Field, ".") && strings.Contains(c.Message, "non-negative integer")
}

// place is where a field is in an object: names of properties, keys of maps, and indices.
type place struct {
	object *unstructured.Unstructured
	steps  []any
	keys   int // the number of steps up to the last key of a map
}

func (p place) String() string {
	var text strings.Builder
	for i, step := range p.steps {
		switch step := step.(type) {
		case int:
			fmt.Fprintf(&text, "[%d]", step)
		case string:
			switch {
			case i+1 == p.keys:
				fmt.Fprintf(&text, "[%s]", step)
			case i > 0:
				text.WriteString("." + step)
			default:
				text.WriteString(step)
			}
		}
	}
	return text.String()
}

func (p place) dotted() string { return place{steps: p.steps}.String() }

// at is where the cause of a violation is.
func (p place) at(v violation) place {
	p.steps = slices.Concat(p.steps, v.below, v.under)
	return p
}

func (p place) value() any {
	var value any = p.object.Object
	for _, step := range p.steps {
		switch step := step.(type) {
		case int:
			value = value.([]any)[step]
		case string:
			value = value.(map[string]any)[step]
		}
	}
	return value
}

// submit returns what the API server says to the object with the violation.
func (p place) submit(t *testing.T, v violation) error {
	t.Helper()
	changed := place{object: p.object.DeepCopy(), steps: slices.Concat(p.steps, v.below)}
	last := changed.steps[len(changed.steps)-1]
	switch parent := (place{object: changed.object, steps: changed.steps[:len(changed.steps)-1]}).value().(type) {
	case []any:
		parent[last.(int)] = v.wrong
	case map[string]any:
		if v.wrong == nil {
			delete(parent, last.(string))
		} else {
			parent[last.(string)] = v.wrong
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), quick)
	defer cancel()
	if p.steps[0] == "status" {
		return api.Status().Update(ctx, changed.object, client.DryRunAll)
	}
	changed.object.SetName("violation")
	changed.object.SetResourceVersion("")
	changed.object.SetUID("")
	return api.Create(ctx, changed.object, client.DryRunAll)
}

var steps = regexp.MustCompile(`[^.\[\]{}]+|\[\]|\{\}`)

// locate finds the places of a field, as EachField has it, in the objects.
func locate(from []*unstructured.Unstructured, field string) []place {
	var all []place
	for _, object := range from {
		found := []place{{object: object}}
		for _, step := range steps.FindAllString(field, -1) {
			var next []place
			for _, p := range found {
				next = append(next, p.children(step)...)
			}
			found = next
		}
		all = append(all, found...)
	}
	return all
}

func (p place) children(step string) []place {
	var all []place
	add := func(s any, keys int) {
		all = append(all, place{object: p.object, steps: append(slices.Clone(p.steps), s), keys: keys})
	}
	switch value := p.value().(type) {
	case []any:
		for i := range value {
			add(i, p.keys)
		}
	case map[string]any:
		if step == "{}" {
			for _, key := range slices.Sorted(maps.Keys(value)) {
				add(key, len(p.steps)+1)
			}
		} else if _, ok := value[step]; ok {
			add(step, p.keys)
		}
	}
	return all
}

// storedObjects creates the valid objects that have every field, with their status, until the end of the test.
func storedObjects(t *testing.T, plural string) []*unstructured.Unstructured {
	t.Helper()
	all := whole(t, plural)
	for _, object := range all {
		status := object.Object["status"]
		if err := api.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := api.Delete(context.WithoutCancel(t.Context()), object); err != nil {
				t.Error(err)
			}
		})
		if status == nil {
			continue
		}
		object.Object["status"] = status
		if err := api.Status().Update(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
