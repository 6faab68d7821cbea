package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a file, or with a variable that overrides a key of it.
type Problem struct {
	// Key is where it is in the file, as in mtls.cert_file; empty, it is about no single key.
	Key string
	// Variable is the environment variable whose value is wrong; empty, it is the file's.
	Variable string
	// Unset is the environment variable that the value refers to as ${NAME}, and that is not set; empty where it is another problem.
	Unset string
	// Text is what is wrong with the value, and what is wanted. It shows no secret.
	Text string

	where string // how a log names the place
}

// String is a line for a log: the file and its line or the variable, the key, and what is wrong.
func (p Problem) String() string { return p.where + ": " + p.Text }

// InvalidError is all that is wrong with a file: its text has a line for each.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

type problems []Problem

func (p *problems) add(key, format string, args ...any) {
	*p = append(*p, Problem{Key: key, Text: fmt.Sprintf(format, args...), where: key})
}

// in says in which file they are.
func (p problems) in(file string) problems {
	for i := range p {
		p[i].where = file + ": " + p[i].where
	}
	return p
}

// err is nil where there are none.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &InvalidError{p}
}
