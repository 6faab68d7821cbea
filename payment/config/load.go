package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LookupEnv is os.LookupEnv, or what a test puts in its place.
type LookupEnv func(name string) (value string, set bool)

// Load reads the file at path, expands its references, lets the environment override it, and checks the result. What is
// wrong with what it read is an InvalidError.
func Load(path string, env LookupEnv) (Config, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the path is the operator's own argument
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, text, env)
}

// Parse is Load for a text that has been read; name stands in its errors.
func Parse(name string, text []byte, env LookupEnv) (Config, error) {
	config := Default()
	d := decoder{file: name, env: env}
	d.document(text, reflect.ValueOf(&config).Elem())
	if err := d.problems.err(); err != nil {
		return Config{}, err
	}
	if err := config.problems().in(name).err(); err != nil {
		return Config{}, err
	}
	return config, nil
}

// Draft reads a part of a config.yaml that somebody else completes, as the operator does: keys and types are checked, what
// is missing has its default, and references like ${NAME} stay as they are, for the process to expand. Check tells the rest.
func Draft(name string, text []byte) (Config, error) {
	config := Default()
	d := decoder{file: name, env: noVariables, keep: true}
	d.document(text, reflect.ValueOf(&config).Elem())
	return config, d.problems.err()
}

// Marshal writes config.yaml: each key, in the order of the type, so that the same Config has the same bytes.
func (c Config) Marshal() ([]byte, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write config.yaml: %w", err)
	}
	return text, nil
}

func noVariables(string) (value string, set bool) { return "", false }

// decoder goes over the file and the type at once. A yaml.Unmarshal would name neither the key's path nor, for an
// environment variable, anything at all.
type decoder struct {
	file string
	env  LookupEnv
	keep bool // references stay

	problems problems
}

func (d *decoder) fail(line int, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...), where: d.at(line, key)})
}

// at is a place in the file, for a log.
func (d *decoder) at(line int, key string) string { return fmt.Sprintf("%s:%d: %s", d.file, line, key) }

// failWhole is for what is wrong with the file as a whole.
func (d *decoder) failWhole(where, text string) {
	d.problems = append(d.problems, Problem{Text: text, where: where})
}

func (d *decoder) document(text []byte, config reflect.Value) {
	var document yaml.Node
	reader := yaml.NewDecoder(bytes.NewReader(text))
	if err := reader.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		if strings.Contains(err.Error(), "unknown anchor") { // it quotes the text, which may be a secret
			err = errors.New("has an alias of nothing: put a text that begins with * in quotes")
		}
		d.failWhole(d.file, err.Error())
		return
	}
	if err := reader.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		d.failWhole(d.file, "has more than one document")
		return
	}
	var root *yaml.Node
	if len(document.Content) > 0 && document.Content[0].Tag != "!!null" {
		root = document.Content[0]
	}
	d.section(root, "", config)
}

// section decodes a mapping, and then looks for variables that override its keys, in the file or not.
func (d *decoder) section(node *yaml.Node, path string, into reflect.Value) {
	given := d.keys(node, path, into.Type())
	for i := range into.NumField() {
		key := into.Type().Field(i).Tag.Get("yaml")
		child, full := given[key], strings.TrimPrefix(path+"."+key, ".")
		if isSection(into.Field(i).Type()) {
			d.section(child, full, into.Field(i))
			continue
		}
		if value, set := d.env(Variable(full)); set {
			d.override(full, value, into.Field(i))
		} else if child != nil {
			d.value(child, full, into.Field(i))
		}
	}
}

// keys are the values of a mapping by key; what the type does not have is an error.
func (d *decoder) keys(node *yaml.Node, path string, of reflect.Type) map[string]*yaml.Node {
	given := map[string]*yaml.Node{}
	if node == nil {
		return given
	}
	if node.Kind != yaml.MappingNode {
		want := "want keys with values below it, not " + kindOf(node)
		if path == "" {
			d.failWhole(fmt.Sprintf("%s:%d: the file", d.file, node.Line), want)
		} else {
			d.fail(node.Line, path, "%s", want)
		}
		return given
	}
	var known []string
	for i := range of.NumField() {
		known = append(known, of.Field(i).Tag.Get("yaml"))
	}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		switch {
		case !slices.Contains(known, key.Value):
			d.fail(key.Line, full, "unknown key; %s has %s", orRoot(path), strings.Join(known, ", "))
		case given[key.Value] != nil:
			d.fail(key.Line, full, "is there twice")
		default:
			given[key.Value] = value
		}
	}
	return given
}

// list decodes a list of text, or of sections.
func (d *decoder) list(node *yaml.Node, key string, into reflect.Value) {
	if node.Kind != yaml.SequenceNode {
		d.fail(node.Line, key, "want a list, not %s", kindOf(node))
		return
	}
	list := reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content))
	for i, item := range node.Content {
		if path := fmt.Sprintf("%s[%d]", key, i); isSection(into.Type().Elem()) {
			d.section(item, path, list.Index(i))
		} else {
			d.value(item, path, list.Index(i))
		}
	}
	into.Set(list)
}

// value decodes a scalar or a list.
func (d *decoder) value(node *yaml.Node, key string, into reflect.Value) {
	if into.Kind() == reflect.Slice {
		d.list(node, key, into)
		return
	}
	want := map[reflect.Kind]string{reflect.Bool: "!!bool", reflect.Int: "!!int", reflect.String: "!!str", reflect.Struct: "!!str"}[into.Kind()]
	text, expanded := d.expand(node, key, into.Type() == reflect.TypeFor[Secret]())
	if node.Kind != yaml.ScalarNode || (node.Tag != want && !expanded) {
		d.fail(node.Line, key, "want %s, not %s", wanted(into), kindOf(node))
		return
	}
	if err := set(into, text); err != nil {
		d.fail(node.Line, key, "%v", err)
	}
}

// override sets a key from its variable; a list is separated by commas.
func (d *decoder) override(key, value string, into reflect.Value) {
	if into.Kind() == reflect.Slice {
		var list []string
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		into.Set(reflect.ValueOf(list))
		return
	}
	if err := set(into, value); err != nil {
		name := Variable(key)
		d.problems = append(d.problems, Problem{Key: key, Variable: name, Text: err.Error(), where: fmt.Sprintf("the variable %s, for %s of %s", name, key, d.file)})
	}
}

var references = regexp.MustCompile(`\$\{([^}]*)\}?`)

// expand replaces each ${NAME} of a text by the variable's value, once: what stands in the value is taken as it is.
func (d *decoder) expand(node *yaml.Node, key string, secret bool) (text string, expanded bool) {
	if node.Kind != yaml.ScalarNode || node.Tag != "!!str" || d.keep {
		return node.Value, false
	}
	text = references.ReplaceAllStringFunc(node.Value, func(found string) string {
		expanded = true
		if !reference.MatchString(found) {
			if secret { // found may be a part of it
				d.fail(node.Line, key, "it has a ${ that begins no reference: want ${NAME}, of letters, digits and underscores")
				return found
			}
			d.fail(node.Line, key, "%q is not a reference: want ${NAME}, of letters, digits and underscores", found)
			return found
		}
		name := found[2 : len(found)-1]
		value, set := d.env(name)
		if !set {
			d.problems = append(d.problems, Problem{Key: key, Unset: name, Text: "the variable " + name + " is not set", where: d.at(node.Line, key)})
		}
		return value
	})
	return text, expanded
}

func set(into reflect.Value, text string) error {
	switch into.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("want true or false")
		}
		into.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("want a whole number")
		}
		into.SetInt(int64(n))
	case reflect.String:
		into.SetString(text)
	default: // the only other type, by the test that goes over all of them
		into.Set(reflect.ValueOf(NewSecret(text)))
	}
	return nil
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Secret]()
}

func wanted(into reflect.Value) string {
	switch into.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "text (in quotes, where it looks like something else)"
	}
}

func kindOf(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "keys with values"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.Kind == yaml.AliasNode:
		return "an alias"
	case node.Tag == "!!null":
		return "nothing"
	case node.Tag == "!!int" || node.Tag == "!!float":
		return "a number"
	case node.Tag == "!!bool":
		return "true or false"
	default:
		return "text"
	}
}

func orRoot(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// Variable is the environment variable that overrides a key: MTLS_CERT_FILE for mtls.cert_file.
func Variable(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// Key is one value of config.yaml.
type Key struct {
	// Path is where it is in the file, as in mtls.cert_file.
	Path string
	// Default is its value where it is missing, as YAML.
	Default string
}

// Keys are all values of config.yaml, in the file's order.
func Keys() []Key {
	var keys []Key
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			full := strings.TrimPrefix(path+"."+v.Type().Field(i).Tag.Get("yaml"), ".")
			field := v.Field(i)
			switch {
			case isSection(field.Type()):
				walk(full, field)
			case field.Kind() == reflect.Bool || field.Kind() == reflect.Int || field.Kind() == reflect.String:
				keys = append(keys, Key{full, fmt.Sprint(field.Interface())})
			default:
				keys = append(keys, Key{full, ""})
			}
		}
	}
	walk("", reflect.ValueOf(Default()))
	return keys
}
