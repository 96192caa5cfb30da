package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// explain shows the line of a problem, in front of its other details. An error of the engine stays as it is.
func (r *run) explain(err error) error {
	var p *problem.Problem
	if r.foreign || !errors.As(err, &p) {
		return err
	}
	if text, ok := r.w.texts[p.Pos.File]; ok {
		p.Detail = append(Caret(text, p.Pos), p.Detail...)
	}
	return err
}

// Caret is a source line with a mark under the column:
//
//	4 |     ctx.systemd.restart("w", reson = "x")
//	  |                              ^
func Caret(text string, at value.Pos) []string {
	if at.Line < 1 {
		return nil
	}
	n := 0
	for line := range strings.Lines(text) {
		if n++; n < at.Line {
			continue
		}
		runes := []rune(strings.TrimRight(line, "\r\n"))
		col := min(at.Col-1, len(runes))
		// Of a very long line only what is near the column is shown.
		from := 0
		if col > 100 {
			from = col - 60
		}
		shown := runes[from:min(len(runes), from+140)]
		number := fmt.Sprintf("%4d | ", at.Line)
		out := []string{number + clean(strings.ReplaceAll(string(shown), "\t", " "), 600)}
		if at.Col > 0 {
			out = append(out, strings.Repeat(" ", len(number)-2)+"| "+strings.Repeat(" ", col-from)+"^")
		}
		return out
	}
	return nil
}
