package workload

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/config"
)

// configCheck finds what is wrong with a config.yaml before a process does.
type configCheck struct {
	process  *process
	given    tree // as the spec has it
	problems []mesh.Problem
}

// add keeps the first thing that is said of a field.
func (c *configCheck) add(field, message string) {
	if slices.ContainsFunc(c.problems, func(p mesh.Problem) bool { return p.Field == field }) {
		return
	}
	c.problems = append(c.problems, c.process.problem(meshv1alpha1.ReasonConfigInvalid, field, message))
}

// anyValue stands for a value that only the process will see: of a Secret, or one that refers to other variables. It passes
// for text and for numbers; what is said of keys that get it is not believed.
const anyValue = "1"

// environment is the process's: what the image itself sets, such as PATH, is not known and not asked for. What goes against
// the mesh is left out here, for overrides tells it.
func (c *configCheck) environment(name string) (value string, set bool) {
	if c.process.decidesConfig(name) {
		return "", false
	}
	value, set, known := c.variable(name)
	if !known {
		return anyValue, set
	}
	return value, set
}

func (c *configCheck) variable(name string) (value string, set, known bool) {
	for _, variable := range c.process.allEnv() {
		if variable.Name == name {
			return variable.Value, true, variable.ValueFrom == nil && !strings.Contains(variable.Value, "$(")
		}
	}
	return "", false, true
}

// line is one thing that payment/config says of a file.
var line = regexp.MustCompile(`^(?:` + regexp.QuoteMeta(configFile) + `(?::\d+)?: ([^:\s]+): |the variable \S+, for (\S+) of ` + regexp.QuoteMeta(configFile) + `: )(?s:(.*))$`)

// text has payment/config read the file as the process will.
func (c *configCheck) text(text []byte) {
	parsed, err := config.Parse(configFile, text, c.environment)
	for _, err := range lines(err) {
		found := line.FindStringSubmatch(err.Error())
		switch {
		case found == nil:
			c.add(configField, err.Error())
		case found[1] != "" && !c.hidden(found[1]):
			c.add(configField+"."+found[1], found[3]+c.advice(found[1], found[3]))
		case found[2] != "" && !c.hidden(found[2]):
			c.add("spec.workload.env[name="+config.Variable(found[2])+"].value", "for "+found[2]+" of config.yaml "+found[3])
		}
	}
	if err == nil {
		c.process.shutdownSeconds = int64(parsed.GRPC.ShutdownTimeoutSeconds)
	}
	draft, err := config.Draft(configFile, text)
	if err == nil {
		_, err = draft.Marshal() // which refuses a secret in the clear; a type at fault has been reported
		if err != nil {
			c.add(configField, err.Error())
		}
		c.store(draft.Store.Path)
	}
}

// storePath is the key that says where payments are.
const storePath = "store.path"

// store holds that payments and idempotency keys are on the volume, which has one writer: a store of its own in each pod
// knows nothing of what another one, or the container before it, has taken.
func (c *configCheck) store(file string) {
	if c.hidden(storePath) {
		return
	}
	field := configField + "." + storePath
	if value, set, _ := c.variable(config.Variable(storePath)); set {
		file, field = value, "spec.workload.env[name="+config.Variable(storePath)+"].value"
	}
	file = references.ReplaceAllStringFunc(file, func(reference string) string {
		value, _ := c.environment(reference[2 : len(reference)-1])
		return value
	})
	switch {
	case file == "": // it is missed already
	case c.process.Workload.Persistence == nil:
		c.add(field, fmt.Sprintf("is %s, which no volume keeps: payments and idempotency keys would end with the container, and each replica would have its own, so that a repeated call pays again; add spec.workload.persistence", file))
	case !strings.HasPrefix(path.Clean(file), c.process.mountPath()+"/"):
		c.add(field, fmt.Sprintf("is %s, which is not below %s, where the volume is: leave it out, or choose a file there", file, c.process.mountPath()))
	}
}

// hidden reports whether a key's value can only be seen by the process.
func (c *configCheck) hidden(key string) bool {
	if _, set, known := c.variable(config.Variable(key)); set {
		return !known
	}
	value, _ := c.given.get(key)
	text, _ := value.(string)
	for _, reference := range references.FindAllStringSubmatch(text, -1) {
		if _, _, known := c.variable(reference[1]); !known {
			return true
		}
	}
	return false
}

var references = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// advice is what to write instead, where the key alone does not tell.
func (c *configCheck) advice(key, message string) string {
	service, isService := strings.CutPrefix(strings.TrimSuffix(key, ".address"), "external_services.")
	switch {
	case strings.HasPrefix(message, "the variable ") && strings.HasSuffix(message, " is not set"):
		return ": set it in spec.workload.env"
	case isService && strings.HasSuffix(key, ".address"):
		return fmt.Sprintf("; add spec.dependsOn with the name %s, or set this key", strings.ReplaceAll(service, "_", "-"))
	case key == storePath:
		return "; add spec.workload.persistence"
	}
	return ""
}

// overrides refuses variables that would change what the mesh decides: a variable of this name wins over the file. The
// operator's own variables must not be such for any key.
func (c *configCheck) overrides() {
	for i, argument := range c.process.Workload.Args {
		if name, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "="); name == "config" && strings.HasPrefix(argument, "-") {
			c.add(fmt.Sprintf("spec.workload.args[%d]", i), "the process would read that file in place of spec.workload.config: leave it out")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.process.decided)) {
		value, set, known := c.variable(config.Variable(key))
		if set && (!known || value != fmt.Sprint(c.process.decided[key])) && !c.process.isOwn(config.Variable(key)) {
			c.add("spec.workload.env[name="+config.Variable(key)+"]", "the process would take it for "+key+" of config.yaml, which the mesh decides: leave it out")
		}
	}
	for _, dependency := range c.process.Dependencies {
		for _, key := range config.Keys() {
			name := config.Variable(key.Path)
			if c.process.isOwn(name) && (name == variable(dependency.Name, "ADDRESS") || name == variable(dependency.Name, "SPIFFE_ID")) {
				c.add("spec.dependsOn[name="+dependency.Name+"].name", "the process would take its variable "+name+" for "+key.Path+" of config.yaml: choose another name")
			}
		}
	}
}

// lines are the errors that were joined.
func lines(err error) []error {
	var joined interface{ Unwrap() []error }
	if err == nil {
		return nil
	}
	if !errors.As(err, &joined) {
		return []error{err}
	}
	return joined.Unwrap()
}
