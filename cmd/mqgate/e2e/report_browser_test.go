//go:build browser

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mqgate/mqgate/bench"
)

// view is what browser.js says of a page laid out.
type view struct {
	Width      float64  // of the whole page, what must be scrolled for included [CSS pixels]
	Requests   int      // that the page and all it needs have taken
	Complaints []string // of the browser
	Charts     []struct {
		Title               string
		X, Y, Width, Height float64
	}
}

// TestBrowserReport looks at the HTML report of mqgate-bench as a person does: all charts are drawn, in both colour
// schemes and on a narrow screen, nothing has to be scrolled sideways, and the page asks for nothing but itself.
// MQGATE_SCREENSHOTS names a folder where the pictures stay.
func TestBrowserReport(t *testing.T) {
	s := startServer(t, "--echo-path", "/echo", "--ping-interval", "1s")
	var html bytes.Buffer
	for _, scenario := range []string{"ramp", "heartbeat"} {
		o := bench.Options{Scenario: scenario, Connections: 50, Loops: 1, Payload: 128, Depth: 1, RampOf: "echo", P99Limit: time.Second,
			Rate: 2000, Duration: 600 * time.Millisecond, ServerPings: time.Second, ClientPings: 100 * time.Millisecond, Charts: true}
		if scenario == "heartbeat" {
			o.Duration = 3 * time.Second
		}
		var err error
		if o.Target, err = bench.ParseTarget(s.url("/echo")); err != nil {
			t.Fatal(err)
		}
		sys, err := bench.ThisSystem()
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(sys); err != nil {
			t.Fatal(err)
		}
		report, err := bench.Run(t.Context(), o, sys, nil)
		if err != nil {
			t.Fatal(err)
		}
		html.Reset()
		if err := report.WriteHTML(&html); err != nil {
			t.Fatal(err)
		}
		t.Run(scenario, func(t *testing.T) { lookAtReport(t, scenario, html.Bytes()) })
	}
}

func lookAtReport(t *testing.T, name string, html []byte) {
	folder := os.Getenv("MQGATE_SCREENSHOTS")
	if folder == "" {
		folder = t.TempDir()
	}
	n := openBrowser(t, "chromium", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		if _, err := w.Write(html); err != nil {
			t.Error(err)
		}
	}))
	for _, screen := range []struct {
		width int
		dark  bool
	}{{1280, false}, {1280, true}, {390, false}} {
		file := filepath.Join(folder, fmt.Sprintf("%s-%d-%v.png", name, screen.width, screen.dark))
		var v view
		if err := json.Unmarshal(n.call(t, "look", map[string]any{"width": screen.width, "dark": screen.dark, "png": file}), &v); err != nil {
			t.Fatal(err)
		}
		picture, err := readPNG(file)
		if err != nil {
			t.Fatal(err)
		}
		if v.Width > float64(screen.width) {
			t.Errorf("%s: the page is %v wide on a screen of %d", file, v.Width, screen.width)
		}
		if len(v.Complaints) > 0 {
			t.Errorf("%s: the browser says %q", file, v.Complaints)
		}
		if v.Requests != 1 {
			t.Errorf("%s: the page took %d requests", file, v.Requests)
		}
		if len(v.Charts) < 5 {
			t.Errorf("%s: %d charts", file, len(v.Charts))
		}
		for _, c := range v.Charts {
			box := image.Rect(int(c.X), int(c.Y), int(c.X+c.Width), int(c.Y+c.Height))
			switch ink, colour := inked(picture, box); {
			case c.Title == "" || c.Width < float64(screen.width)/2 || c.Height < 100 || !box.In(picture.Bounds()):
				t.Errorf("%s: chart %q is at %v of %v", file, c.Title, box, picture.Bounds())
			case ink < 0.01 || colour < 50: // axes and text; the lines
				t.Errorf("%s: chart %q is blank: %.4f of it has ink, %d pixels have colour", file, c.Title, ink, colour)
			}
		}
	}

}

func readPNG(file string) (image.Image, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written
	return png.Decode(f)
}

// inked returns which part of box is not of the colour of its corner, and how many pixels are neither black, white nor
// grey.
func inked(picture image.Image, box image.Rectangle) (part float64, coloured int) {
	at := func(x, y int) color.NRGBA { return color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA) }
	paper, ink := at(box.Min.X+1, box.Min.Y+1), 0
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			c := at(x, y)
			if c != paper {
				ink++
			}
			if max(c.R, c.G, c.B)-min(c.R, c.G, c.B) > 60 {
				coloured++
			}
		}
	}
	return float64(ink) / float64(box.Dx()*box.Dy()), coloured
}
