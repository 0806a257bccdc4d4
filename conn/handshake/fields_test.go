package handshake

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// The memory of a Request, of which a loop needs one.
func TestSizeof(t *testing.T) {
	if got := unsafe.Sizeof(Fields{}); got != 832 {
		t.Errorf("Fields take %d bytes; the comment at MaxHeaderLines says 832", got)
	}
}

func TestEnd(t *testing.T) {
	for _, tc := range []struct {
		block string
		want  int
	}{
		{"", 0}, {"\r", 0}, {"\r\n", 0}, {"\n", 0}, {"a\r\n\r", 0}, {"a\r\n\r\n", 5}, {"a\r\n\r\nb", 5}, {"\r\n\r\n", 4},
		{"a\n\n", 3}, {"a\n\r\n", 4}, {"a\r\n\n", 4}, {"a\r\r\n", 0}, {"a\r\nb\r\n\r\n\r\n", 8}, {"a\r\n\rb\r\n", 0},
	} {
		if got := End([]byte(tc.block), 0); got != tc.want {
			t.Errorf("End(%q) is %d, want %d", tc.block, got, tc.want)
		}
		from := 0
		for n := range len(tc.block) + 1 {
			got := End([]byte(tc.block[:n]), from)
			if want := tc.want; got != want && (n >= want && want != 0 || got != 0) {
				t.Errorf("End(%q, %d) is %d, want %d", tc.block[:n], from, got, want)
			}
			if got != 0 {
				break
			}
			from = n
		}
	}
}

func TestHeaders(t *testing.T) {
	r, refusal := parse(t, plus("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for:3.3.3.3 ,,\t4.4.4.4\r\nEmpty:\r\nX-FORWARDED-FOR:\r\n"))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := r.Header("None"); got != nil {
		t.Errorf("a header that is not there: %q", got)
	}
	if got := r.Header("empty"); got == nil || len(got) != 0 {
		t.Errorf("an empty header: %v", got)
	}
	check(t, "Header", r.Header("X-Forwarded-For"), "1.1.1.1, 2.2.2.2")
	check(t, "AppendHeader", r.AppendHeader([]byte("> "), "X-Forwarded-For"), "> 1.1.1.1, 2.2.2.2, 3.3.3.3 ,,\t4.4.4.4, ")
	check(t, "AppendHeader", r.AppendHeader(nil, "None"), "")
	var values, elements, backward []string
	for v := range r.Values("X-Forwarded-For") {
		values = append(values, string(v))
	}
	for v := range r.Elements("X-Forwarded-For") {
		elements = append(elements, string(v))
	}
	for v := range r.Backward("X-Forwarded-For") {
		backward = append(backward, string(v))
	}
	if !slices.Equal(values, []string{"1.1.1.1, 2.2.2.2", "3.3.3.3 ,,\t4.4.4.4", ""}) {
		t.Errorf("Values %q", values)
	}
	if !slices.Equal(elements, []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}) {
		t.Errorf("Elements %q", elements)
	}
	slices.Reverse(elements)
	if !slices.Equal(backward, elements) {
		t.Errorf("Backward %q", backward)
	}
	lines := 0
	for name, value := range r.All() {
		if !bytes.Equal(r.name(lines), name) || !bytes.Equal(r.value(lines), value) {
			t.Errorf("line %d is %q %q", lines, name, value)
		}
		lines++
	}
	if lines != 11 {
		t.Errorf("%d lines, want 11", lines)
	}
	for range r.All() {
		break
	}
	for range r.Values("Host") {
		break
	}
	for range r.Elements("X-Forwarded-For") {
		break
	}
	for v := range r.Backward("X-Forwarded-For") {
		check(t, "the last one", v, "4.4.4.4")
		break
	}
}

func TestExtensions(t *testing.T) {
	render := func(f *Fields) string {
		var b strings.Builder
		for e := range f.Extensions() {
			fmt.Fprintf(&b, "%s", e.Name)
			for name, value := range e.Params() {
				fmt.Fprintf(&b, ";%s", name)
				if value != nil {
					fmt.Fprintf(&b, "=%s", value)
				}
			}
			b.WriteString("|")
		}
		return b.String()
	}
	for _, tc := range []struct{ value, want string }{ // want "": malformed
		{"permessage-deflate", "permessage-deflate|"},
		{"permessage-deflate; client_max_window_bits", "permessage-deflate;client_max_window_bits|"},
		{"a;b=1;c=\"2\",d", "a;b=1;c=2|d|"},
		{" a ; b = 1 ;\tc , , d ; e ", "a;b=1;c|d;e|"},
		{"a\r\nSec-WebSocket-Extensions: b;c", "a|b;c|"},
		{",", "|"}, // compared below: no element
		{"a b", ""}, {"a;", ""}, {"a;;b", ""}, {"a;b=", ""}, {"a;b=\"\"", ""}, {"a;b=\"1", ""}, {"a;b=\"1 2\"", ""},
		{"a\r\nSec-WebSocket-Extensions: b;", ""}, {"a;b=\"1\\2\"", ""}, {"a;b=1 2", ""}, {";a", ""}, {"=", ""}, {"a=1", ""}, {"a;b=\"1\"2", ""}, {"a, b c", ""}, {"(a)", ""},
	} {
		r, refusal := parse(t, plus("Sec-WebSocket-Extensions: "+tc.value+"\r\n"))
		switch {
		case tc.want == "" && refusal != refuseExtension:
			t.Errorf("%q: %v, want a refusal", tc.value, refusal)
		case tc.want != "" && refusal != nil:
			t.Errorf("%q: %v", tc.value, refusal)
		case tc.want != "" && render(&r.Fields) != strings.TrimPrefix(tc.want, "|"):
			t.Errorf("%q: %s, want %s", tc.value, render(&r.Fields), tc.want)
		}
	}
	// What stands after a malformed element is left out, by callers that look although the request was refused.
	r, _ := parse(t, plus("Sec-WebSocket-Extensions: a;b, c;, d\r\n"))
	if got := render(&r.Fields); got != "a;b|" {
		t.Errorf("got %s", got)
	}
	for e := range r.Extensions() {
		for range e.Params() {
			break
		}
		break
	}
}

func TestFoldEqual(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			p, s := []byte{'x', byte(a)}, []byte{'X', byte(b)}
			// strings.ToLower would take bytes above ASCII for UTF-8.
			lower := func(c int) int {
				if 'A' <= c && c <= 'Z' {
					return c + 'a' - 'A'
				}
				return c
			}
			if got := foldEqual(p, s); got != (lower(a) == lower(b)) {
				t.Errorf("foldEqual(%q, %q) is %v", p, s, got)
			}
		}
	}
	if foldEqual("ab", "a") || foldEqual("", "a") || !foldEqual("", "") {
		t.Error("lengths are not compared")
	}
}
