package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stored = "../../../docs/bench/identity"

// The drawing reads the bench's report by names of its own: this fails where a field is called otherwise since.
func TestTheStoredReportHasEveryFigureThatIsDrawn(t *testing.T) {
	r := load(t)
	for _, row := range panels {
		for _, p := range row {
			for _, l := range p.lines {
				for _, s := range r.Sizes {
					if l.value(s) <= 0 {
						t.Errorf("%s, %s, at %.0f foreign entries: %v", p.title, l.name, s.Foreign, l.value(s))
					}
				}
			}
		}
	}
}

func TestTheStoredPlotIsThatOfTheStoredReport(t *testing.T) {
	to := filepath.Join(t.TempDir(), "plot.svg")
	if err := run(stored+".json", to); err != nil {
		t.Fatal(err)
	}
	got, want := file(t, to), file(t, stored+".svg")
	if !bytes.Equal(got, want) {
		t.Errorf("docs/bench/identity.svg is not what docs/bench/identity.json gives: go run . %s.json %s.svg", stored, stored)
	}
}

func TestThePlotIsXMLThatNamesEverySeriesAndSize(t *testing.T) {
	for name, r := range map[string]report{"all sizes": load(t), "one size": {Sizes: load(t).Sizes[:1]}} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := r.draw(&out); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			for decoder := xml.NewDecoder(&out); ; {
				if _, err := decoder.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
				t.Error("a coordinate is no number")
			}
			for _, row := range panels {
				for _, p := range row {
					for _, l := range p.lines {
						if !strings.Contains(text, l.name) {
							t.Errorf("no %q", l.name)
						}
					}
				}
			}
			if !strings.Contains(text, "1000<") {
				t.Error("the axis does not name the size of 1000")
			}
		})
	}
}

func TestAReportWithNothingToDrawIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		`{"sizes": []}`:               "no sizes",
		`{"sizes": [{"foreign": 0}]}`: "want 1 or more",
		`[]`:                          "cannot unmarshal",
	} {
		if _, err := read([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want an error with %q", text, err, says)
		}
	}
}

func load(t *testing.T) report {
	t.Helper()
	r, err := read(file(t, stored+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func file(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
