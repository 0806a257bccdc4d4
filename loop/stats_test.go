package loop

import (
	"reflect"
	"testing"
)

// No counter of a loop is forgotten in the sum.
func TestStatsAdd(t *testing.T) {
	var one, sum Stats
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(i + 1))
	}
	sum.Add(&one)
	sum.Add(&one)
	for i := range v.NumField() {
		if got := reflect.ValueOf(sum).Field(i).Uint(); got != uint64(2*(i+1)) {
			t.Errorf("%s: %d, want %d", v.Type().Field(i).Name, got, 2*(i+1))
		}
	}
}
