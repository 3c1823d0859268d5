package config

import (
	"fmt"
	"reflect"
	"strings"
)

// A Setting describes one setting, for tables and messages.
type Setting struct {
	Name    string // whole: WSGW_ADDR
	Default string // as one would write it, or in words; "" for none
	Allowed string // min..max, a|b, or "" for what Doc says
	Doc     string
	Secret  bool // its value is never shown
}

// Settings returns every setting in the order of [Config]'s fields.
func Settings() []Setting {
	var all []Setting
	for f := range reflect.TypeFor[Config]().Fields() {
		all = append(all, setting(f))
	}
	return all
}

// setting reads the tags of a field of Config.
func setting(f reflect.StructField) Setting {
	s := Setting{
		Name:    Prefix + f.Tag.Get("env"),
		Default: f.Tag.Get("envDefault"),
		Allowed: f.Tag.Get("allowed"),
		Doc:     f.Tag.Get("doc"),
	}
	if words := f.Tag.Get("default"); words != "" {
		s.Default = words
	}
	t := f.Type
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	s.Secret = t == reflect.TypeFor[Secret]()
	return s
}

// Markdown returns all settings as a table for a document.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| setting | default | allowed | |\n|---|---|---|---|\n")
	for _, s := range Settings() {
		def := s.Default
		if def != "" && !strings.Contains(def, " ") {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, def, readable(s.Allowed), s.Doc)
	}
	return b.String()
}

// Text returns all settings for a terminal: two lines each.
func Text() string {
	var b strings.Builder
	for _, s := range Settings() {
		fmt.Fprintf(&b, "  %s", s.Name)
		if s.Default != "" {
			fmt.Fprintf(&b, " (%s)", s.Default)
		}
		fmt.Fprintf(&b, "\n        %s", s.Doc)
		if s.Allowed != "" {
			fmt.Fprintf(&b, " [%s]", readable(s.Allowed))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// readable returns an allowed tag as a sentence has it.
func readable(allowed string) string {
	lo, hi, isRange := strings.Cut(allowed, "..")
	switch {
	case !isRange:
		return strings.ReplaceAll(allowed, "|", ", ")
	case hi == "":
		return lo + " or more"
	default:
		return lo + " to " + hi
	}
}
