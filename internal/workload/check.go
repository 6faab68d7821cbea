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

// text has payment/config read the file as the process will.
func (c *configCheck) text(text []byte) {
	parsed, err := config.Parse(configFile, text, c.environment)
	var invalid *config.InvalidError
	switch {
	case errors.As(err, &invalid):
		for _, problem := range invalid.Problems {
			c.report(problem)
		}
	case err != nil:
		c.add(configField, err.Error())
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

// report says of a field what payment/config says of a key.
func (c *configCheck) report(p config.Problem) {
	switch {
	case p.Key == "" || strings.ContainsAny(p.Key, ": \t\n\f\r"): // it is about the whole, or its key would make no field that can be read
		c.add(configField, p.String())
	case c.hidden(p.Key):
	case p.Variable != "":
		c.add("spec.workload.env[name="+p.Variable+"].value", "for "+p.Key+" of config.yaml "+p.Text)
	default:
		c.add(configField+"."+p.Key, p.Text+c.advice(p))
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
func (c *configCheck) advice(p config.Problem) string {
	service, isService := strings.CutPrefix(strings.TrimSuffix(p.Key, ".address"), "external_services.")
	switch {
	case p.Unset != "":
		return ": set it in spec.workload.env"
	case isService && strings.HasSuffix(p.Key, ".address"):
		return fmt.Sprintf("; add spec.dependsOn with the name %s, or set this key", strings.ReplaceAll(service, "_", "-"))
	case p.Key == storePath:
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
