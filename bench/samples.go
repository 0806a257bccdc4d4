package bench

import (
	"context"
	"math"
	"strings"
)

// Samples are the metrics of a server at one moment: the values of counters and gauges by name and labels, as Prometheus
// writes them but without the quotes: mqgate_requests_total{outcome=ok}. Histograms are not among them.
type Samples map[string]float64

// Metrics reads the metrics of the server.
type Metrics func(ctx context.Context) (Samples, error)

// SumMetrics reads the metrics of several servers and adds them up, metric by metric.
func SumMetrics(list []Metrics) Metrics {
	return func(ctx context.Context) (Samples, error) {
		sum := Samples{}
		for _, read := range list {
			s, err := read(ctx)
			if err != nil {
				return nil, err
			}
			for key, v := range s {
				if key == "mqgate_accounting_drift" {
					v = math.Abs(v) // that of one server must not make up for that of another
				}
				sum[key] += v
			}
		}
		return sum, nil
	}
}

// value returns the sum of all samples of that name, whatever their labels, or of the one sample whose labels are given
// as well. NaN when there is none: nothing compares equal to it.
func (s Samples) value(name string) float64 {
	if v, ok := s[name]; ok {
		return v
	}
	total, any := 0.0, false
	for key, v := range s {
		if strings.HasPrefix(key, name+"{") {
			total, any = total+v, true
		}
	}
	if !any {
		return math.NaN()
	}
	return total
}

// or0 returns v, or 0 where a sample is left out while it is 0.
func or0(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}
