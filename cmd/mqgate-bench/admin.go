package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/mqgate/mqgate/bench"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parseAdmin reads the URL of an admin interface and returns what reads its metrics; "" is none.
func parseAdmin(text string) (bench.Metrics, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("is not like http://127.0.0.1:9090")
	}
	metrics := u.JoinPath("metrics").String()
	return func(ctx context.Context) (bench.Samples, error) { return scrape(ctx, metrics) }, nil
}

// scrape reads the counters and gauges of a page in the text format of Prometheus.
func scrape(ctx context.Context, page string) (bench.Samples, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, err
	}
	// A connection that stays would be an open file and two goroutines of the server, which are counted here.
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", page, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", page, err)
	}
	samples := bench.Samples{}
	for name, family := range families {
		for _, m := range family.Metric {
			var v float64
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				v = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				v = m.Gauge.GetValue()
			default:
				continue
			}
			key := name
			if len(m.Label) > 0 {
				var labels []string
				for _, l := range m.Label {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
				key += "{" + strings.Join(labels, ",") + "}"
			}
			samples[key] = v
		}
	}
	return samples, nil
}
