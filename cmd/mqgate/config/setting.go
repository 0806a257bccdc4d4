package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting describes one setting: everything that flags, environment, file, help, documentation and checks need.
type setting struct {
	name        string // of the flag, without dashes; key in the file
	group       string
	placeholder string // for the value in the help
	def         string // default, as one would write it; lists with commas
	doc         string // meaning, in sentences

	list      bool // may be given more than once; the values add up within one place
	flagOnly  bool // --check: a switch without a value, of the command line alone
	notInFile bool

	expected string // what a value must be: "a duration from 10ms to 1h"
	rangeDoc string // the same for the help, shorter: "10ms to 1h"
	numeric  *numericRange

	// store checks texts and puts their values into the Serve. Its error is a *valueError, or another error for what
	// concerns the list as a whole.
	store func(*Serve, []string) error
	// show returns the value in the Serve as canonical texts: store of these gives the same value.
	show func(*Serve) []string
}

// numericRange is the range of a value that is counted in units.
type numericRange struct {
	min, max int64
	text     func(int64) string
}

// env returns the name of the setting's environment variable.
func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// defaults returns the default as the texts that store takes.
func (s *setting) defaults() []string { return s.split(s.def) }

// split divides a text at its commas when the setting is a list. The empty text is an empty list.
func (s *setting) split(text string) []string {
	switch {
	case !s.list:
		return []string{text}
	case text == "":
		return nil
	}
	return strings.Split(text, ",")
}

// fault makes a Fault of an error of store.
func (s *setting) fault(o origin, err error) Fault {
	return Fault{o.where, fmt.Sprintf("%v, expected %s", err, s.expected), o.line}
}

// findSetting returns the setting of mqgate serve called name, or nil.
func findSetting(name string) *setting { return findIn(settings, name) }

// findIn returns the setting of the table called name, or nil.
func findIn(table []setting, name string) *setting {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

// single makes store for a setting that has one value.
func single[T any](parse func(string) (T, error), field func(*Serve) *T) func(*Serve, []string) error {
	return func(s *Serve, texts []string) error {
		v, err := parse(texts[0])
		if err != nil {
			return err
		}
		*field(s) = v
		return nil
	}
}

// numeric completes a setting whose value is a number of units from low to high, both included.
func numeric[T ~int | ~int64](s setting, noun string, low, high T, parse func(string) (int64, error), text func(T) string,
	field func(*Serve) *T) setting {
	s.rangeDoc = text(low) + " to " + text(high)
	s.expected = noun + " from " + s.rangeDoc
	s.numeric = &numericRange{int64(low), int64(high), func(n int64) string { return text(T(n)) }}
	s.store = single(func(t string) (T, error) {
		n, err := parse(t)
		if err != nil {
			return 0, err
		}
		if n < int64(low) || n > int64(high) {
			return 0, &valueError{t, "is out of range"}
		}
		return T(n), nil
	}, field)
	s.show = func(serve *Serve) []string { return []string{text(*field(serve))} }
	return s
}

func number(s setting, low, high int, field func(*Serve) *int) setting {
	s.placeholder = "NUMBER"
	return numeric(s, "a whole number", low, high, parseNumber, strconv.Itoa, field)
}

func size(s setting, low, high Size, field func(*Serve) *Size) setting {
	s.placeholder = "SIZE"
	return numeric(s, "a size", low, high, parseSize, Size.String, field)
}

func duration(s setting, low, high time.Duration, field func(*Serve) *time.Duration) setting {
	s.placeholder = "DURATION"
	return numeric(s, "a duration", low, high, parseDuration, formatDuration, field)
}

// What --memory-limit says without a number.
const (
	memoryAuto Size = -1 // until check replaces it
	memoryOff  Size = 0
)

// memoryLimit completes a setting whose value is a size, auto or off.
func memoryLimit(s setting, field func(*Serve) *Size) setting {
	words := map[string]Size{"auto": memoryAuto, "off": memoryOff}
	text := func(v Size) string {
		for word, meaning := range words {
			if v == meaning {
				return word
			}
		}
		return v.String()
	}
	s = numeric(s, "a size", minMemoryLimit, maxMemoryLimit, parseSize, text, field)
	s.rangeDoc += ", auto or off"
	s.expected += ", auto or off"
	number := s.store
	s.store = func(serve *Serve, texts []string) error {
		if v, ok := words[texts[0]]; ok {
			*field(serve) = v
			return nil
		}
		return number(serve, texts)
	}
	return s
}

// textOf completes a setting whose value is a text of some form.
func textOf(s setting, expected string, parse func(string) (string, error), field func(*Serve) *string) setting {
	s.expected = expected
	s.store = single(parse, field)
	s.show = func(serve *Serve) []string { return []string{*field(serve)} }
	return s
}

// addressOrNone completes a setting whose value is an address or nothing.
func addressOrNone(s setting, expected string, field func(*Serve) **Address) setting {
	s.expected = expected
	s.store = single(func(text string) (*Address, error) {
		if text == "" {
			return nil, nil
		}
		a, err := parseAddress(text)
		return &a, err
	}, field)
	s.show = func(serve *Serve) []string {
		if a := *field(serve); a != nil {
			return []string{a.String()}
		}
		return []string{""}
	}
	return s
}

// choice completes a setting whose value is one of a few words.
func choice[T interface {
	comparable
	word() string
}](s setting, values []T, field func(*Serve) *T) setting {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = v.word()
	}
	last := len(words) - 1
	s.rangeDoc = strings.Join(words[:last], ", ") + " or " + words[last]
	s.expected = s.rangeDoc
	s.store = single(func(text string) (T, error) {
		if i := slices.Index(words, text); i >= 0 {
			return values[i], nil
		}
		var none T
		return none, &valueError{text, "is none of them"}
	}, field)
	s.show = func(serve *Serve) []string { return []string{(*field(serve)).word()} }
	return s
}

// listOf completes a setting with low to high values.
func listOf[T any](s setting, noun string, low, high int, parse func(string) (T, error), text func(T) string,
	field func(*Serve) *[]T) setting {
	s.list = true
	s.rangeDoc = fmt.Sprintf("%d to %d values", low, high)
	s.expected = fmt.Sprintf("%d to %d %s", low, high, noun)
	s.store = func(serve *Serve, texts []string) error {
		if len(texts) < low || len(texts) > high {
			return fmt.Errorf("has %d values", len(texts))
		}
		values := make([]T, len(texts))
		for i, t := range texts {
			v, err := parse(t)
			if err != nil {
				return err
			}
			values[i] = v
		}
		*field(serve) = values
		return nil
	}
	s.show = func(serve *Serve) []string {
		texts := make([]string, len(*field(serve)))
		for i, v := range *field(serve) {
			texts[i] = text(v)
		}
		return texts
	}
	return s
}

// wordsOf completes a list of texts that check accepts one by one and together; its error may have several lines.
func wordsOf(s setting, noun string, high int, check func([]string) error, field func(*Serve) *[]string) setting {
	oneLine := func(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
	s = listOf(s, noun, 1, high, func(text string) (string, error) {
		if err := check([]string{text}); err != nil {
			return "", &valueError{text, "is wrong (" + oneLine(err) + ")"}
		}
		return text, nil
	}, func(text string) string { return text }, field)
	each := s.store
	s.store = func(serve *Serve, texts []string) error {
		if err := each(serve, texts); err != nil {
			return err
		}
		if err := check(texts); err != nil {
			return errors.New(oneLine(err))
		}
		return nil
	}
	return s
}

// emptyOr accepts nothing besides what parse accepts.
func emptyOr(parse func(string) (string, error)) func(string) (string, error) {
	return func(text string) (string, error) {
		if text == "" {
			return "", nil
		}
		return parse(text)
	}
}

func parseFileName(text string) (string, error) {
	if strings.ContainsRune(text, 0) {
		return "", &valueError{text, "contains a zero byte"}
	}
	return text, nil
}

// word returns the texts of the choices.
func (h Heartbeat) word() string     { return string(h) }
func (c Compression) word() string   { return string(c) }
func (a Auth) word() string          { return string(a) }
func (p ProxyProtocol) word() string { return string(p) }
func (f LogFormat) word() string     { return string(f) }
func (f FDTables) word() string      { return string(f) }

// logLevel is a slog.Level by its lower-case name.
type logLevel slog.Level

func (l logLevel) word() string { return strings.ToLower(slog.Level(l).String()) }
