package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestEveryConditionAndReasonIsInTheTablesOfTheGuides(t *testing.T) {
	var tables strings.Builder
	for _, name := range []string{"mesh-integration.md", "identity.md"} {
		text, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "|") {
				tables.WriteString(line)
			}
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(node ast.Node) bool {
		constant, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(constant.Names[0].Name, "Reason") && !strings.HasPrefix(constant.Names[0].Name, "Condition") {
			return true
		}
		value, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found++
		if value != "Ready" && value != "NotApplicable" && !regexp.MustCompile(`\|[^|]*\b`+value+`\b[^|]*\|`).MatchString(tables.String()) {
			t.Errorf("%s is in no table: say there what it means and what to do about it", value)
		}
		return true
	})
	if found < 40 {
		t.Errorf("conditions.go has %d conditions and reasons: the test does not see all of them", found)
	}
}
