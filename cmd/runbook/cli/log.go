package cli

import (
	"context"
	"log/slog"
	"strings"
)

// logHandler writes log records in the form of the other lines on stderr: "runbook: warning: message key=value".
func (u *ui) logHandler(level slog.Level) slog.Handler {
	return &logHandler{level: level, out: u.err}
}

type logHandler struct {
	level  slog.Level
	out    *stream
	prefix string // of groups: "plugin."
	attrs  string // rendered already
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("runbook: ")
	switch {
	case r.Level >= slog.LevelError:
		b.WriteString(red("error:") + " ")
	case r.Level >= slog.LevelWarn:
		b.WriteString(yellow("warning:") + " ")
	case r.Level < slog.LevelInfo:
		b.WriteString(faint("debug:") + " ")
	}
	b.WriteString(clean(r.Message) + h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(h.render(a))
		return true
	})
	h.out.print(b.String() + "\n")
	return nil
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	with := *h
	for _, a := range as {
		with.attrs += h.render(a)
	}
	return &with
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.prefix += name + "."
	return &with
}

func (h *logHandler) render(a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		inner := *h
		if a.Key != "" {
			inner.prefix += a.Key + "."
		}
		var b strings.Builder
		for _, m := range v.Group() {
			b.WriteString(inner.render(m))
		}
		return b.String()
	}
	return " " + h.prefix + a.Key + "=" + quoteLine([]string{v.String()})
}
