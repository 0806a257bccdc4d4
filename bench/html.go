package bench

import (
	"bytes"
	_ "embed"
	"html/template"
	"io"
)

// chart is a drawn chart of the page.
type chart struct {
	Title, Note string
	SVG         template.HTML
}

//go:embed report.html
var pageText string

var page = template.Must(template.New("report.html").Parse(pageText))

// WriteHTML writes the report as one page that needs nothing else: no script, no font, no address. The charts over time
// are there when Options.Charts was set.
func (p *Report) WriteHTML(w io.Writer) error {
	charts, err := p.charts()
	if err != nil {
		return err
	}
	var text, json bytes.Buffer
	if err := p.WriteText(&text); err != nil {
		return err
	}
	if err := p.WriteJSON(&json); err != nil {
		return err
	}
	return page.Execute(w, struct {
		*Report
		Charts     []chart
		Text, JSON string
	}{p, charts, text.String(), json.String()})
}
