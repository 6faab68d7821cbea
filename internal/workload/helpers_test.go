package workload_test

import (
	"testing"

	"sigs.k8s.io/yaml"
)

func text(t *testing.T, value any) string {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
