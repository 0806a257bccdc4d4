package bench

import (
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WritePage writes the comparison as Markdown, with charts as SVG files in a folder beside it that has the page's name
// without ".md". place is FILE, which is written anew, or FILE#SECTION: then the lines between
//
//	<!-- begin SECTION -->
//	<!-- end SECTION -->
//
// are replaced, and all the rest of the page, written by hand, stays.
func (c *Comparison) WritePage(place string) error {
	file, section, _ := strings.Cut(place, "#")
	page, err := pageAround(file, section)
	if err != nil {
		return err
	}
	folder := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	var images []string
	for _, m := range c.metrics() {
		if !m.chart {
			continue
		}
		name := strings.Trim(section+"-"+m.key, "-") + ".svg"
		if err := os.MkdirAll(filepath.Join(filepath.Dir(file), folder), 0o755); err != nil {
			return err
		}
		var svg strings.Builder
		if err := c.writeChart(&svg, m); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), folder, name), []byte(svg.String()), 0o644); err != nil {
			return err
		}
		images = append(images, fmt.Sprintf("![%s](%s/%s)", m.head, folder, name))
	}
	return os.WriteFile(file, []byte(page[0]+c.markdown(images)+page[1]), 0o644)
}

// CheckPage returns what would keep WritePage from finding its place: to be asked before the runs.
func CheckPage(place string) error {
	file, section, _ := strings.Cut(place, "#")
	_, err := pageAround(file, section)
	return err
}

// pageAround returns what stands before and after the section.
func pageAround(file, section string) (around [2]string, err error) {
	if section == "" {
		return around, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return around, fmt.Errorf("%s: there is no such file: with #%s it must be there", file, section)
	}
	if err != nil {
		return around, err
	}
	begin, end := "<!-- begin "+section+" -->\n", "<!-- end "+section+" -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return around, fmt.Errorf("%s: it has no lines %s and %s", file, strings.TrimSpace(begin), end)
	}
	return [2]string{before + begin, end + after}, nil
}

// markdown is the comparison's part of a page.
func (c *Comparison) markdown(images []string) string {
	var b strings.Builder
	if remark := c.busyRemark(); remark != "" {
		fmt.Fprintf(&b, "> **%s**\n\n", remark)
	}
	for _, fault := range c.faults() {
		fmt.Fprintf(&b, "> **Failed: %s.**\n\n", fault)
	}
	fmt.Fprintf(&b, "%s. %s, commit %s, %s. Rounds: %d; other processes took %.0f %% of the machine.\n\n", c.load(),
		c.Began.Format("2006-01-02"), c.Commit, c.machineText(), c.Rounds, c.OtherCPUShare*100)
	for _, image := range images {
		b.WriteString(image + "\n\n")
	}
	metrics := c.metrics()
	b.WriteString("| server |")
	for _, m := range metrics {
		b.WriteString(" " + m.head + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(metrics)) + "\n")
	for _, s := range c.Servers {
		b.WriteString("| " + strings.ReplaceAll(s.Name, "|", "\\|") + " |")
		for _, m := range metrics {
			v, ok := s.Metrics[m.key]
			if !ok {
				b.WriteString(" |")
				continue
			}
			fmt.Fprintf(&b, " **%s** (%s)<br>%s .. %s |", figure(v.Median), ratioText(v.Ratio), figure(v.Min), figure(v.Max))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nMedian (ratio to %s), least .. most. The command:\n\n    %s\n\n", c.Servers[0].Name, c.commandText())
	return b.String()
}

// commandText is the command line, a server per line.
func (c *Comparison) commandText() string {
	var b strings.Builder
	for i, word := range c.Command {
		switch {
		case i == 0:
		case strings.HasPrefix(word, "--peer") || strings.HasPrefix(word, "--server"):
			b.WriteString(" \\\n        ")
		default:
			b.WriteString(" ")
		}
		b.WriteString(joinCommand([]string{word}))
	}
	return b.String()
}

// Sizes of the chart [px].
const (
	barsWidth   = 720
	barsFrom    = 120 // where the bars begin
	barsLongest = 420 // the longest bar
	barsRow     = 26
	barsTop     = 40
)

var barChart = template.Must(template.New("chart").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="{{.Title}}" font-family="system-ui, sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="24" font-size="15" font-weight="600" fill="#1f2328">{{.Title}}</text>
{{- range .Bars}}
<text x="{{.NameX}}" y="{{.TextY}}" text-anchor="end" fill="#1f2328">{{.Name}}</text>
<rect x="{{.X}}" y="{{.Y}}" width="{{.W}}" height="16" rx="2" fill="{{.Fill}}"/>
<path d="M{{.Low}} {{.Mid}}H{{.High}}" stroke="#1f2328" stroke-width="1.5"/>
<text x="{{.ValueX}}" y="{{.TextY}}" fill="#1f2328">{{.Value}}</text>
{{- end}}
</svg>
`))

// writeChart writes horizontal bars: the length is the median, the thin line from the least to the most.
func (c *Comparison) writeChart(w *strings.Builder, m comparedMetric) error {
	type bar struct {
		Name, Value, Fill                             string
		NameX, X, Y, W, Mid, Low, High, TextY, ValueX int
	}
	most := 0.0
	for _, s := range c.Servers {
		most = max(most, s.Metrics[m.key].Max)
	}
	length := func(v float64) int {
		if most <= 0 {
			return 0
		}
		return int(max(v, 0) / most * barsLongest)
	}
	var bars []bar
	for i, s := range c.Servers {
		b := bar{Name: s.Name, Value: "not measured", Fill: "#8c959f", NameX: barsFrom - 8, X: barsFrom, Y: barsTop + i*barsRow}
		b.Mid, b.TextY, b.Low, b.High, b.ValueX = b.Y+8, b.Y+13, barsFrom, barsFrom, barsFrom+8
		if i == 0 {
			b.Fill = "#0969da"
		}
		if v, ok := s.Metrics[m.key]; ok {
			b.Value = figure(v.Median) + "  (" + ratioText(v.Ratio) + ")"
			b.W, b.Low, b.High = length(v.Median), barsFrom+length(v.Min), barsFrom+length(v.Max)
			b.ValueX = max(b.High, barsFrom+b.W) + 8
		}
		bars = append(bars, b)
	}
	return barChart.Execute(w, map[string]any{"Width": barsWidth, "Height": barsTop + len(bars)*barsRow + 8, "Title": m.head, "Bars": bars})
}
