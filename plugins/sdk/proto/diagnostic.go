package pluginpb

import (
	"errors"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxText bounds a message for people, in bytes.
const maxText = 64 << 10

// FromError says err to the other side: a *problem.Problem keeps its code and hint.
func FromError(err error) *Diagnostic {
	d := &Diagnostic{Severity: Severity_SEVERITY_ERROR, Message: Text(err.Error())}
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		d.Code, d.Hint = string(p.Code), Text(p.Hint)
		for _, line := range p.Detail {
			d.Detail = append(d.Detail, Text(line))
		}
	}
	return d
}

// ToProblem is the first error among the diagnostics, nil if there is none. A code that this side does not know becomes
// fallback.
func ToProblem(ds []*Diagnostic, fallback problem.Code) *problem.Problem {
	for _, d := range ds {
		if d.GetSeverity() == Severity_SEVERITY_WARNING {
			continue
		}
		code := fallback
		for _, i := range problem.All() {
			if string(i.Code) == d.GetCode() {
				code = i.Code
			}
		}
		msg := Text(d.GetMessage())
		if msg == "" {
			msg = "the plugin gave no reason"
		}
		p := problem.New(code, "%s", msg)
		p.Hint = Text(d.GetHint())
		return p.WithDetail(d.GetDetail()...)
	}
	return nil
}

// Text makes s fit to be sent: valid UTF-8 of a bounded length, keeping its end.
func Text(s string) string {
	if len(s) > maxText {
		s = "..." + s[len(s)-maxText:]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
