// Command plot draws what the bench of the identity side measured: its report as JSON goes in, an SVG comes out. It is a
// module of its own, so that what draws is not among the product's dependencies.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"io"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: plot REPORT.json PLOT.svg")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(from, to string) (err error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	r, err := read(text)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return r.draw(file)
}

// report is what of the bench's report is drawn.
type report struct {
	Sizes []size `json:"sizes"`
}

type size struct {
	Foreign     float64 `json:"foreign"`
	Object      events  `json:"object"`
	Pod         events  `json:"pod"`
	BareSingle  latency `json:"bareSingle"`
	FromNothing start   `json:"fromNothing"`
	Recovery    start   `json:"recovery"`
	Idle        struct {
		RPCsPerSecond float64 `json:"rpcsPerSecond"`
		CPUPercent    float64 `json:"cpuPercent"`
		RSSBytes      float64 `json:"rssBytes"`
		PeakBytes     float64 `json:"peakBytes"`
	} `json:"idle"`
}

type events struct {
	FromRequest latency `json:"fromRequest"`
}

type latency struct {
	P50 float64 `json:"p50Millis"`
	P99 float64 `json:"p99Millis"`
}

type start struct {
	Bare    rate `json:"bare"`
	Manager rate `json:"manager"`
}

type rate struct {
	PerSecond float64 `json:"perSecond"`
}

func read(text []byte) (report, error) {
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if len(r.Sizes) == 0 {
		return r, errors.New("the report has no sizes: nothing to draw")
	}
	for _, s := range r.Sizes {
		if s.Foreign <= 0 { // the axis is logarithmic
			return r, fmt.Errorf("a size has %v foreign entries: want 1 or more", s.Foreign)
		}
	}
	return r, nil
}

// line is a series of a panel, target one that is drawn across it.
type line struct {
	name  string
	value func(size) float64
}

type panel struct {
	title, unit string
	target      float64 // none where it is zero
	lines       []line
}

const mebibyte = 1 << 20

// panels are drawn two in a row.
var panels = [][]panel{
	{
		{"from an event to the entry", "ms", 50, []line{
			{"ServiceIdentity created, p99", func(s size) float64 { return s.Object.FromRequest.P99 }},
			{"ServiceIdentity created, p50", func(s size) float64 { return s.Object.FromRequest.P50 }},
			{"pod on a new node, p99", func(s size) float64 { return s.Pod.FromRequest.P99 }},
			{"pod on a new node, p50", func(s size) float64 { return s.Pod.FromRequest.P50 }},
			{"bare client, one entry, p99", func(s size) float64 { return s.BareSingle.P99 }},
		}},
		{"all entries made", "entries a second", 0, []line{
			{"bare client, in batches", func(s size) float64 { return s.FromNothing.Bare.PerSecond }},
			{"manager, from nothing", func(s size) float64 { return s.FromNothing.Manager.PerSecond }},
			{"manager, SPIRE lost all", func(s size) float64 { return s.Recovery.Manager.PerSecond }},
		}},
	},
	{
		{"idle", "calls a second; percent of a core", 1, []line{
			{"calls to SPIRE a second", func(s size) float64 { return s.Idle.RPCsPerSecond }},
			{"CPU of the manager, percent", func(s size) float64 { return s.Idle.CPUPercent }},
		}},
		{"manager's memory", "MiB", 0, []line{
			{"most since the start", func(s size) float64 { return s.Idle.PeakBytes / mebibyte }},
			{"idle", func(s size) float64 { return s.Idle.RSSBytes / mebibyte }},
		}},
	},
}

const (
	width, height = 10 * vg.Inch, 7 * vg.Inch
	gap           = 5 * vg.Millimeter
)

// draw writes the SVG.
func (r report) draw(out io.Writer) error {
	plots := make([][]*plot.Plot, len(panels))
	for i, row := range panels {
		for _, p := range row {
			drawn, err := r.plot(p)
			if err != nil {
				return fmt.Errorf("draw %q: %w", p.title, err)
			}
			plots[i] = append(plots[i], drawn)
		}
	}
	canvas := vgsvg.New(width, height)
	tiles := draw.Tiles{Rows: len(panels), Cols: len(panels[0]), PadX: gap, PadY: gap, PadTop: gap, PadBottom: gap, PadLeft: gap, PadRight: gap}
	for i, row := range plot.Align(plots, tiles, draw.New(canvas)) {
		for j, tile := range row {
			plots[i][j].Draw(tile)
		}
	}
	_, err := canvas.WriteTo(out)
	return err
}

func (r report) plot(from panel) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = from.title, "foreign entries in the SPIRE server", from.unit
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for _, style := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		style.Typeface, style.Variant = sans.Typeface, sans.Variant
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	most := from.target
	var series []any
	for _, l := range from.lines {
		points := make(plotter.XYs, len(r.Sizes))
		for i, s := range r.Sizes {
			points[i].X, points[i].Y = s.Foreign, l.value(s)
			most = max(most, points[i].Y)
		}
		series = append(series, l.name, points)
	}
	if err := plotutil.AddLinePoints(p, series...); err != nil {
		return nil, err
	}
	p.X.Scale, p.X.Min, p.X.Max = plot.LogScale{}, r.Sizes[0].Foreign/1.5, r.Sizes[len(r.Sizes)-1].Foreign*1.5
	var ticks []plot.Tick
	for _, s := range r.Sizes {
		ticks = append(ticks, plot.Tick{Value: s.Foreign, Label: fmt.Sprintf("%.0f", s.Foreign)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Y.Min, p.Y.Max = 0, 1.5*most // room for the legend
	if from.target > 0 {
		target, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: from.target}, {X: p.X.Max, Y: from.target}})
		if err != nil {
			return nil, err
		}
		target.Color, target.Dashes = color.RGBA{R: 200, A: 255}, []vg.Length{4, 4}
		p.Add(target)
		p.Legend.Add("target: below", target)
	}
	return p, nil
}
