package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func terminal(env map[string]string) (*ui, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	return newUI(Stdio{
		Out: &out, Err: &err, OutIsTerminal: true, ErrIsTerminal: true,
		Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
	}), &out, &err
}

func TestColorIsAnExtra(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{nil, "  \x1b[31mrefused\x1b[0m  cooldown      4m ago\n"},
		{map[string]string{"NO_COLOR": "1"}, "  refused  cooldown      4m ago\n"},
		{map[string]string{"NO_COLOR": ""}, "  \x1b[31mrefused\x1b[0m  cooldown      4m ago\n"},
		{map[string]string{"TERM": "dumb"}, "  refused  cooldown      4m ago\n"},
	} {
		u, out, _ := terminal(c.env)
		u.Verdict(refused, "cooldown", "4m ago")
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("%v: %s", c.env, diff)
		}
	}
}

// A label or a plugin's last words must not clear the screen or rewrite a line that was already read.
func TestTextFromOutsideCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	u, out, _ := terminal(nil)
	u.Printf("%s|%s\n", "a\x1b[2Jb\rc\x9bd", green("fine"))
	if want := "a\\x1b[2Jb\\x0dc\\xfffdd|\x1b[32mfine\x1b[0m\n"; out.String() != want && !strings.HasPrefix(out.String(), `a\x1b[2Jb\x0dc`) {
		t.Errorf("%q", out.String())
	}
	if strings.ContainsAny(strings.ReplaceAll(out.String(), "\x1b[", ""), "\r\x1b") {
		t.Errorf("%q", out.String())
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	u, out, _ := terminal(map[string]string{"NO_COLOR": "1"})
	u.Table([]string{"RUN", "TARGET", "OUTCOME"}, [][]string{
		{"r1", "wörker-1", green("acted")},
		{"r22", red("w"), ""},
	})
	want := "RUN  TARGET    OUTCOME\nr1   wörker-1  acted\nr22  w\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestDurationsForPeople(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 350 * time.Microsecond: "under 1ms", 350 * time.Millisecond: "350ms", 1500 * time.Millisecond: "1.5s",
		59 * time.Second: "59s", 90 * time.Second: "1m30s", 4 * time.Minute: "4m", 90*time.Minute + time.Second: "1h30m",
		51*time.Hour + time.Minute: "2d3h", -4 * time.Minute: "-4m",
	} {
		if got := howLong(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	now := time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC)
	for at, want := range map[time.Time]string{
		{}: "never", now: "now", now.Add(-4 * time.Minute): "4m ago", now.Add(26 * time.Minute): "in 26m",
	} {
		if got := when(at, now); got != want {
			t.Errorf("%v: %s, want %s", at, got, want)
		}
	}
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	u, _, errs := terminal(map[string]string{"NO_COLOR": "1"})
	log := slog.New(u.logHandler(slog.LevelInfo)).With("run", "r1").WithGroup("plugin")
	log.Debug("not shown")
	log.Info("started", "name", "exec", slog.Group("pid", "child", 7))
	log.Warn("slow", "took", 2*time.Second, "text", "two words")
	want := "runbook: started run=r1 plugin.name=exec plugin.pid.child=7\nrunbook: warning: slow run=r1 plugin.took=2s plugin.text='two words'\n"
	if diff := cmp.Diff(want, errs.String()); diff != "" {
		t.Error(diff)
	}
}

type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

// "runbook status | head -1" is no failure; a full disk is.
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{syscall.EPIPE: false, syscall.ENOSPC: true} {
		u := newUI(Stdio{Out: brokenWriter{err}, Err: new(bytes.Buffer), Env: func(string) (string, bool) { return "", false }})
		u.Printf("x")
		u.Printf("y")
		if got := u.writeError(); (got != nil) != want || want && !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
