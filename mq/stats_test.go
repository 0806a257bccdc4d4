package mq

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// Add adds every field, also those that somebody adds later.
func TestStatsAdd(t *testing.T) {
	var one, sum Stats
	fill(reflect.ValueOf(&one).Elem())
	sum.Add(&one)
	if sum != one {
		t.Errorf("0 + 1 =\n%+v", sum)
	}
	sum.Add(&one)
	sum.Add(&one)
	if reflect.ValueOf(sum).IsZero() || sum.Accepted != 3 || sum.Panics != 3 || sum.Duration[3] != 3 {
		t.Errorf("1 + 1 + 1 =\n%+v", sum)
	}
}

func fill(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case v.CanUint():
		v.SetUint(1)
	default:
		v.SetInt(1)
	}
}

// Every drop and outcome has a label of its own.
func TestLabels(t *testing.T) {
	seen := map[string]bool{}
	for d := range drops {
		seen[d.String()] = true
	}
	if len(seen) != NumDrops || seen[""] {
		t.Errorf("labels of drops: %v", seen)
	}
	clear(seen)
	for o := range outcomes {
		seen[o.String()] = true
	}
	if len(seen) != NumOutcomes || seen[""] {
		t.Errorf("labels of outcomes: %v", seen)
	}
}

// A duration falls into the first bucket that it is not above, and into the last when it is above all.
func TestDurationBuckets(t *testing.T) {
	for i, bound := range DurationBuckets {
		var st Stats
		st.observe(int64(bound) - 1)
		st.observe(int64(bound))
		st.observe(int64(bound) + 1)
		if st.Duration[i] != 2 || st.Duration[i+1] != 1 || st.DurationSumUS != 3*uint64(bound) {
			t.Errorf("around %d us: %v, sum %d", bound, st.Duration, st.DurationSumUS)
		}
	}
}

// New reports all faults of a configuration at once.
func TestConfig(t *testing.T) {
	good := Config{Worker: &script{}, RequestTimeout: time.Second, ServerRequestTimeout: time.Second, MaxRequests: 1}
	if _, err := New(good, 1); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for _, timeout := range []time.Duration{0, -1} {
		bad := Config{RequestTimeout: timeout, ServerRequestTimeout: time.Second}
		_, err := New(bad, 0)
		for _, fault := range []string{"worker", "timeouts", "request in flight", "loop"} {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%+v: %v, expected %q in it", bad, err, fault)
			}
		}
	}
	bad := good
	bad.ServerRequestTimeout = 0
	if _, err := New(bad, 1); err == nil {
		t.Error("a server request timeout of 0 was accepted")
	}
}
