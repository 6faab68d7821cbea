package descriptor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Binding is an HTTP method and a path template that mean a gRPC method (google.api.http).
type Binding struct {
	HTTPMethod string   `json:"httpMethod"`
	Template   Template `json:"template"` // as in /v1/payments/{payment_id}
}

// bindingsOf reads the google.api.http option of a method (google/api/http.proto) and checks it as far as a proxy does:
// a template or a field that it cannot make sense of costs it the whole listener, and with it the routes of others.
func bindingsOf(method protoreflect.MethodDescriptor) ([]Binding, error) {
	rule := httpRule(method)
	if rule == nil {
		return nil, nil
	}
	var bindings []Binding
	for i, rule := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		if i > 0 && len(rule.GetAdditionalBindings()) > 0 {
			return nil, fmt.Errorf("google.api.http of %s has additional_bindings within additional_bindings: leave these out", method.FullName())
		}
		binding, err := bindingOf(rule, method)
		if err != nil {
			return nil, fmt.Errorf("google.api.http of %s: %w", method.FullName(), err)
		}
		if !slices.ContainsFunc(bindings, func(other Binding) bool { return compareBindings(other, binding) == 0 }) {
			bindings = append(bindings, binding)
		}
	}
	slices.SortFunc(bindings, compareBindings)
	return bindings, nil
}

func compareBindings(x, y Binding) int {
	return cmp.Or(cmp.Compare(x.Template.text, y.Template.text), cmp.Compare(x.HTTPMethod, y.HTTPMethod))
}

// httpRule is the google.api.http option of a method; nil where it has none.
func httpRule(method protoreflect.MethodDescriptor) *annotations.HttpRule {
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	if !ok || !proto.HasExtension(options, annotations.E_Http) {
		return nil
	}
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	return rule
}

var httpMethods = regexp.MustCompile(`^[A-Z]{1,32}$`)

func bindingOf(rule *annotations.HttpRule, method protoreflect.MethodDescriptor) (Binding, error) {
	httpMethod, path := patternOf(rule)
	if !httpMethods.MatchString(httpMethod) {
		return Binding{}, fmt.Errorf("it names no HTTP method and path (%.32q): write for example get: \"/v1/things\"", httpMethod)
	}
	template, err := ParseTemplate(path)
	if err != nil {
		return Binding{}, fmt.Errorf("the path %.100q: %w", path, err)
	}
	for _, variable := range template.variables {
		if err := checkVariable(method.Input(), variable); err != nil {
			return Binding{}, fmt.Errorf("the path %.100q: %w", path, err)
		}
	}
	if body := rule.GetBody(); body != "" && body != "*" {
		if _, err := fieldOf(method.Input(), body); err != nil {
			return Binding{}, fmt.Errorf("body: %w", err)
		}
	}
	if body := rule.GetResponseBody(); body != "" {
		field, err := fieldOf(method.Output(), body)
		if err != nil {
			return Binding{}, fmt.Errorf("response_body: %w", err)
		}
		if field.Message() == nil || field.Message().FullName() != "google.api.HttpBody" {
			return Binding{}, fmt.Errorf("response_body: Envoy sends a part of an answer only where it is a google.api.HttpBody, which %s is not: leave response_body out, and the whole answer is sent", body)
		}
	}
	return Binding{httpMethod, template}, nil
}

// patternOf is the HTTP method and the path of a rule; empty where it has none.
func patternOf(rule *annotations.HttpRule) (httpMethod, path string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "GET", pattern.Get
	case *annotations.HttpRule_Put:
		return "PUT", pattern.Put
	case *annotations.HttpRule_Post:
		return "POST", pattern.Post
	case *annotations.HttpRule_Delete:
		return "DELETE", pattern.Delete
	case *annotations.HttpRule_Patch:
		return "PATCH", pattern.Patch
	case *annotations.HttpRule_Custom:
		return pattern.Custom.GetKind(), pattern.Custom.GetPath()
	}
	return "", ""
}

// checkVariable wants a field that one segment of a path, or several, can fill.
func checkVariable(message protoreflect.MessageDescriptor, path string) error {
	field, err := fieldOf(message, path)
	if err != nil {
		return err
	}
	wellKnown := field.Message() != nil && field.Message().ParentFile().Package() == "google.protobuf"
	if field.IsList() || field.IsMap() || field.Message() != nil && !wellKnown {
		return fmt.Errorf("the variable %s is not a single value: choose another field", path)
	}
	return nil
}

func fieldOf(message protoreflect.MessageDescriptor, path string) (field protoreflect.FieldDescriptor, err error) {
	for name := range strings.SplitSeq(path, ".") {
		if field != nil {
			message = field.Message()
		}
		if message == nil || field != nil && (field.IsList() || field.IsMap()) || message.Fields().ByName(protoreflect.Name(name)) == nil {
			return nil, fmt.Errorf("there is no field %.100s: correct the name", path)
		}
		field = message.Fields().ByName(protoreflect.Name(name))
	}
	return field, nil
}
