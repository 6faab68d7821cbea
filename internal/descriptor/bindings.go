package descriptor

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Binding is an HTTP method and a path template that mean a gRPC method (google.api.http).
type Binding struct {
	HTTPMethod string `json:"httpMethod"`
	Template   string `json:"template"` // as in /v1/payments/{payment_id}
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
		if !slices.Contains(bindings, binding) {
			bindings = append(bindings, binding)
		}
	}
	slices.SortFunc(bindings, func(x, y Binding) int {
		return cmp.Or(cmp.Compare(x.Template, y.Template), cmp.Compare(x.HTTPMethod, y.HTTPMethod))
	})
	return bindings, nil
}

var httpMethod = regexp.MustCompile(`^[A-Z]{1,32}$`)

func bindingOf(rule *annotations.HttpRule, method protoreflect.MethodDescriptor) (Binding, error) {
	var binding Binding
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		binding = Binding{"GET", pattern.Get}
	case *annotations.HttpRule_Put:
		binding = Binding{"PUT", pattern.Put}
	case *annotations.HttpRule_Post:
		binding = Binding{"POST", pattern.Post}
	case *annotations.HttpRule_Delete:
		binding = Binding{"DELETE", pattern.Delete}
	case *annotations.HttpRule_Patch:
		binding = Binding{"PATCH", pattern.Patch}
	case *annotations.HttpRule_Custom:
		binding = Binding{pattern.Custom.GetKind(), pattern.Custom.GetPath()}
	}
	if !httpMethod.MatchString(binding.HTTPMethod) {
		return binding, fmt.Errorf("it names no HTTP method and path (%.32q): write for example get: \"/v1/things\"", binding.HTTPMethod)
	}
	_, variables, err := ParseTemplate(binding.Template)
	if err != nil {
		return binding, fmt.Errorf("the path %.100q: %w", binding.Template, err)
	}
	for _, variable := range variables {
		if err := checkVariable(method.Input(), variable); err != nil {
			return binding, fmt.Errorf("the path %.100q: %w", binding.Template, err)
		}
	}
	if body := rule.GetBody(); body != "" && body != "*" {
		if _, err := fieldOf(method.Input(), body); err != nil {
			return binding, fmt.Errorf("body: %w", err)
		}
	}
	if body := rule.GetResponseBody(); body != "" {
		field, err := fieldOf(method.Output(), body)
		if err != nil {
			return binding, fmt.Errorf("response_body: %w", err)
		}
		if field.Message() == nil || field.Message().FullName() != "google.api.HttpBody" {
			return binding, fmt.Errorf("response_body: Envoy sends a part of an answer only where it is a google.api.HttpBody, which %s is not: leave response_body out, and the whole answer is sent", body)
		}
	}
	return binding, nil
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

// longestTemplate is far below what a gateway is set to load as a regular expression, which takes about two steps a character.
const longestTemplate = 1024

var (
	errLong       = fmt.Errorf("it is longer than %d characters: shorten it", longestTemplate)
	errTemplate   = errors.New("it is no path template: write it as google/api/http.proto has it, for example /v1/payments/{payment_id}")
	errEverything = errors.New("it takes every path of its host names, those of all others, too: begin it with a segment of its own, for example /v1/payments/{name=**}")
	literal       = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()+,;@-]|%[0-9A-Fa-f]{2})+$`)
	fieldPath     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$`)
	variable      = regexp.MustCompile(`\{([^{}=]*)(=([^{}]*))?\}`)
)

// ParseTemplate takes a path template apart (google/api/http.proto). The normal form has no variables, only what they
// match, so that templates with the same normal form match the same paths.
//
//	Template = "/" Segments [ ":" LITERAL ], Segments = Segment { "/" Segment }, Segment = "*" | "**" | LITERAL | Variable;
//	a Variable is "{" FieldPath [ "=" Segments ] "}", and a ** can only be the last segment
func ParseTemplate(template string) (normal string, variables []string, err error) {
	if len(template) > longestTemplate {
		return "", nil, errLong
	}
	path, ok := strings.CutPrefix(template, "/")
	if !ok {
		return "", nil, errTemplate
	}
	if path == "" {
		return "/", nil, nil
	}
	// A variable is a whole segment, or the last one before the verb.
	bounds := variable.FindAllStringSubmatchIndex(path, -1)
	for _, at := range bounds {
		start, end := at[0], at[1]
		if start > 0 && path[start-1] != '/' || end < len(path) && path[end] != '/' && path[end] != ':' {
			return "", nil, errTemplate
		}
	}
	normal = variable.ReplaceAllStringFunc(path, func(text string) string {
		parts := variable.FindStringSubmatch(text)
		variables = append(variables, parts[1])
		if parts[2] == "" {
			return "*"
		}
		return parts[3]
	})
	for i, name := range variables {
		if !fieldPath.MatchString(name) || slices.Contains(variables[:i], name) {
			return "", nil, errTemplate
		}
	}
	segments, verb, hasVerb := strings.Cut(normal, ":")
	if hasVerb && !literal.MatchString(verb) {
		return "", nil, errTemplate
	}
	parts := strings.Split(segments, "/")
	if parts[0] == "**" {
		return "", nil, errEverything
	}
	for i, segment := range parts {
		if segment != "*" && (segment != "**" || i != len(parts)-1) && !literal.MatchString(segment) {
			return "", nil, errTemplate
		}
	}
	return "/" + normal, variables, nil
}
