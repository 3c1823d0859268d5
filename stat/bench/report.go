package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// A Figure is one measured number.
type Figure struct {
	Name  string  `json:"name"` // such as cpu_per_delivery
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // us, ms, KB, /s or ""
}

// A Report is what one run found.
type Report struct {
	Scenario string   `json:"scenario"`
	URL      string   `json:"url"`
	Figures  []Figure `json:"figures"`
	Notes    []string `json:"notes,omitempty"` // why a figure is missing
	Verdict
}

func (r *Report) add(name string, value float64, unit string) {
	r.Figures = append(r.Figures, Figure{name, value, unit})
}

// Value returns a figure by name.
func (r *Report) Value(name string) (float64, bool) {
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

// print writes r for people.
func (r *Report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s %s\n", r.Scenario, r.URL)
	for _, f := range r.Figures {
		fmt.Fprintf(t, "  %s\t%s\t %s\n", f.Name, format(f.Value), f.Unit)
	}
	for _, c := range []struct {
		name string
		n    uint64
	}{
		{"lost", r.Lost}, {"duplicated", r.Duplicated}, {"misordered", r.Misordered},
		{"misaddressed", r.Misaddressed}, {"disconnected", r.Disconnected}, {"errors", r.Errors},
	} {
		fmt.Fprintf(t, "  %s\t%d\t \n", c.name, c.n)
	}
	t.Flush()
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
}

func (r *Report) printJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// format shows three significant digits, and all of the integer part.
func format(v float64) string {
	switch {
	case v >= 1000:
		return thousands(v)
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// printRows writes the result of a suite for people.
func printRows(w io.Writer, rows []suiteRow) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tmedian\tmin - max\tbar\taim\treaches\n")
	mark := func(v float64) string {
		if v == 0 {
			return ""
		}
		return format(v)
	}
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s %s\t%s - %s\t%s\t%s\t%s\n", r.What, format(r.Median), r.Unit, format(r.Min), format(r.Max), mark(r.Bar), mark(r.Aim), r.Meets)
	}
	t.Flush()
}
