package bench

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"math"
	"strconv"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of a chart.
const (
	chartWidth  = 22 * vg.Centimeter
	chartHeight = 8 * vg.Centimeter
)

// chartColours are told apart by people who do not see all colours (Okabe and Ito), on white and, inverted, on black.
var chartColours = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff},
}

// line is one line of a chart.
type line struct {
	name string
	xys  plotter.XYs
}

// newChart returns an empty chart whose axes have names with units.
func newChart(x, y string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.Legend.Top, p.Legend.Left = true, true
	p.X.Min, p.Y.Min = 0, 0
	p.BackgroundColor = color.Transparent
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xdd}, color.Gray{0xdd}
	p.Add(grid)
	return p
}

// addLines draws the lines that have points, with points that show where few are.
func addLines(p *plot.Plot, lines ...line) error {
	for k, l := range lines {
		if len(l.xys) == 0 {
			continue
		}
		drawn, points, err := plotter.NewLinePoints(l.xys)
		if err != nil {
			return err
		}
		drawn.Color, points.Color = chartColours[k%len(chartColours)], chartColours[k%len(chartColours)]
		drawn.Width = vg.Points(1.5)
		points.Shape, points.Radius = draw.CircleGlyph{}, vg.Points(1.5)
		p.Add(drawn)
		if len(l.xys) <= 60 {
			p.Add(points)
		}
		if l.name != "" {
			p.Legend.Add(l.name, drawn)
		}
	}
	p.Y.Max *= 1.15 // room for the legend
	return nil
}

// svg draws a chart as an element to stand in HTML: without the XML declaration, and as wide as there is room.
func svg(p *plot.Plot) (template.HTML, error) {
	c := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartHeight))
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	at := bytes.Index(b.Bytes(), []byte("<svg"))
	if at < 0 {
		return "", io.ErrUnexpectedEOF
	}
	return template.HTML(b.Bytes()[at:]), nil // made from numbers and our own names, which the library escapes
}

// percentileTicks are the marks of the percentile axis, on which x is log10(1/(1-q)).
type percentileTicks struct{}

// Ticks implements plot.Ticker.
func (percentileTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for _, percent := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999} {
		if x := percentileX(percent); x >= low && x <= high {
			ticks = append(ticks, plot.Tick{Value: x, Label: strconv.FormatFloat(percent, 'f', -1, 64) + "%"})
		}
	}
	return ticks
}

// percentileX places a percentile on its axis.
func percentileX(percent float64) float64 { return -math.Log10(1 - percent/100) }

// percentileCurve returns the latency [ms] by percentile, as HdrHistogram's own plots have it: each further nine has as much
// room as the one before.
func percentileCurve(h *hdrhistogram.Histogram) plotter.XYs {
	var xys plotter.XYs
	total := float64(h.TotalCount())
	for _, b := range h.CumulativeDistributionWithTicks(10) {
		// The last bracket is at 100%, which is nowhere on the axis: half a value from the end.
		percent := min(b.Quantile, 100*(1-0.5/total))
		xys = append(xys, plotter.XY{X: percentileX(percent), Y: float64(b.ValueAt) / 1e6})
	}
	return xys
}

// Names of axes, with units.
const (
	axisTime    = "time since the beginning of the run [s]"
	axisLatency = "latency [ms]"
)

// charts draws what the report has.
func (p *Report) charts() ([]chart, error) {
	var list []chart
	add := func(title, note string, plotted *plot.Plot, lines ...line) error {
		if err := addLines(plotted, lines...); err != nil {
			return err
		}
		drawn, err := svg(plotted)
		list = append(list, chart{Title: title, Note: note, SVG: drawn})
		return err
	}
	var p50, p99, most, rate, open, server, client plotter.XYs
	if p.series != nil {
		for _, s := range p.series.points {
			if l := s.latency; l != nil {
				p50, p99, most = append(p50, plotter.XY{X: s.at, Y: l[0]}), append(p99, plotter.XY{X: s.at, Y: l[1]}), append(most, plotter.XY{X: s.at, Y: l[2]})
			}
			rate = append(rate, plotter.XY{X: s.at, Y: s.rate})
			open = append(open, plotter.XY{X: s.at, Y: float64(s.open)})
			if s.rssAnon > 0 {
				server = append(server, plotter.XY{X: s.at, Y: float64(s.rssAnon) / (1 << 20)})
			}
			if s.clientRSSAnon > 0 {
				client = append(client, plotter.XY{X: s.at, Y: float64(s.clientRSSAnon) / (1 << 20)})
			}
		}
	}
	if len(p50) > 0 {
		if err := add("Latency over time", "Of each interval between two points.", newChart(axisTime, axisLatency), line{"p50", p50}, line{"p99", p99}, line{"max", most}); err != nil {
			return nil, err
		}
	}
	if p.hist != nil && p.hist.TotalCount() > 0 {
		c := newChart("percentile", axisLatency)
		c.X.Tick.Marker = percentileTicks{}
		if err := add("Latency by percentile", fmt.Sprintf("HdrHistogram of %d values.", p.hist.TotalCount()), c, line{"", percentileCurve(p.hist)}); err != nil {
			return nil, err
		}
	}
	if len(rate) > 0 {
		if err := add("Rate over time", p.rateOf()+".", newChart(axisTime, "per second [1/s]"), line{"", rate}); err != nil {
			return nil, err
		}
		if err := add("Memory over time", "RssAnon: what a process has written to.", newChart(axisTime, "RssAnon [MiB]"), line{"server", server}, line{"generator", client}); err != nil {
			return nil, err
		}
		if err := add("Connections over time", "Open at that moment.", newChart(axisTime, "open connections"), line{"", open}); err != nil {
			return nil, err
		}
	}
	if p.Heartbeat != nil && p.Heartbeat.Phases != nil {
		c := newChart(fmt.Sprintf("phase in the interval of %v s [parts of %d]", p.Heartbeat.IntervalSeconds, pingPhases), "connections")
		values := make(plotter.Values, len(p.Heartbeat.Phases))
		for k, n := range p.Heartbeat.Phases {
			values[k] = float64(n)
		}
		bars, err := plotter.NewBarChart(values, vg.Points(16))
		if err != nil {
			return nil, err
		}
		bars.Color, bars.LineStyle.Width = chartColours[0], 0
		c.Add(bars)
		if err := add("Ping phases", "When connections got their first ping.", c); err != nil {
			return nil, err
		}
	}
	if p.Ramp != nil && len(p.Ramp.Steps) > 0 {
		var good, bad plotter.XYs
		for _, s := range p.Ramp.Steps {
			if s.Latency.P99 == nil {
				continue
			}
			if at := (plotter.XY{X: float64(s.Rate), Y: *s.Latency.P99}); s.Good {
				good = append(good, at)
			} else {
				bad = append(bad, at)
			}
		}
		c := newChart("rate asked for [1/s]", "p99 latency [ms]")
		for k, xys := range []plotter.XYs{good, bad} {
			if len(xys) == 0 {
				continue
			}
			points, err := plotter.NewScatter(xys)
			if err != nil {
				return nil, err
			}
			points.Color, points.Shape, points.Radius = chartColours[k], draw.CircleGlyph{}, vg.Points(4)
			c.Add(points)
			c.Legend.Add([]string{"good", "bad"}[k], points)
		}
		if err := add("Rates tried", fmt.Sprintf("The limit is a p99 of %v ms.", p.Ramp.LimitMs), c); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// rateOf says of what the rate over time is.
func (p *Report) rateOf() string {
	switch p.Scenario {
	case scenarioConnect:
		if p.Payload == 0 {
			return "Connections opened"
		}
	case scenarioChurn:
		return "Connections begun"
	case scenarioBroadcast:
		return "Deliveries"
	case scenarioHeartbeat:
		return "Pings of the server"
	}
	return "Messages that came back"
}
