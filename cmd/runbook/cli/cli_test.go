package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// ran is what a command line did.
type ran struct {
	exit     problem.Exit
	out, err string
	// what the command saw, if it was called at all
	called bool
	args   []string
	dry    bool
	target string
	wait   time.Duration
	labels []string
}

// play runs a line against a small list of commands with every kind of flag.
func play(t *testing.T, line ...string) ran {
	t.Helper()
	return playWith(t, context.Background(), nil, line...)
}

func playWith(t *testing.T, ctx context.Context, fail error, line ...string) ran {
	t.Helper()
	var r ran
	act := spec{
		name: "act", group: "Run", summary: "act on paths", args: "PATH...", min: 1, max: 2, takes: takesProject,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run"},
			&cli.StringFlag{Name: "target", Aliases: []string{"t"}},
			&cli.StringSliceFlag{Name: "label"},
			durationFlag("wait", "how long"),
		},
		example: "runbook act a.star",
		run: func(_ context.Context, c *call) (result, error) {
			r.called, r.args = true, c.args
			r.dry, r.target = c.Bool("dry-run"), c.String("target")
			r.wait, r.labels = c.Duration("wait"), c.StringSlice("label")
			return seen{Paths: c.args}, fail
		},
	}
	cmds := []spec{
		act,
		{name: "group", group: "Run", summary: "a prefix", example: "runbook group list", sub: []spec{
			{name: "list", summary: "list", example: "runbook group list", run: func(context.Context, *call) (result, error) {
				r.called = true
				return nil, nil
			}},
		}},
	}
	var out, errs bytes.Buffer
	stdio := Stdio{
		In: strings.NewReader(""), Out: &out, Err: &errs,
		Env: func(string) (string, bool) { return "", false },
		Now: func() time.Time { return time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC) },
	}
	r.exit = run(ctx, cmds, line, stdio, newUI(stdio))
	r.out, r.err = out.String(), errs.String()
	return r
}

type seen struct {
	Paths []string `json:"paths"`
}

func (s seen) text(u *ui) { u.Printf("%s\n", strings.Join(s.Paths, " ")) }

// urfave/cli stops at the first positional argument: "run x.star --dry-run" acted for real.
func TestFlagsCountAnywhere(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"act a.star --dry-run --target w3 --wait 1d --label x=1 --label y=2,3",
		"act --dry-run --target w3 --wait 1d --label x=1 a.star --label y=2,3",
		"act --dry-run=true -t w3 a.star --wait=24h --label=x=1 --label=y=2,3",
		"--json act a.star --target=w3 --label x=1 --label y=2,3 --wait 24h --dry-run",
	} {
		r := play(t, strings.Fields(line)...)
		if r.exit != problem.ExitOK || !r.dry || r.target != "w3" || r.wait != 24*time.Hour ||
			!cmp.Equal(r.args, []string{"a.star"}) || !cmp.Equal(r.labels, []string{"x=1", "y=2,3"}) {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestTwoDashesEndFlags(t *testing.T) {
	t.Parallel()
	r := play(t, "act", "--", "--dry-run", "help")
	if r.dry || !cmp.Equal(r.args, []string{"--dry-run", "help"}) {
		t.Errorf("%+v", r)
	}
}

// urfave/cli runs a positional argument that is called like a sub-command, "help" among them.
func TestArgumentsAreNotCommands(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"help", "h", "act", "list"} {
		if r := play(t, "act", word); !cmp.Equal(r.args, []string{word}) {
			t.Errorf("%s: %+v", word, r)
		}
	}
}

// urfave/cli prints usage errors to stdout, exits 3 for an unknown command, and does not hand OnUsageError down.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"atc a.star":                  `error: unknown command "atc" for runbook; did you mean runbook act?`,
		"nonsense":                    `error: unknown command "nonsense" for runbook; runbook --help`,
		"group lst":                   `error: unknown command "lst" for runbook group; did you mean runbook group list?`,
		"group":                       `error: runbook group needs one of: list; runbook group --help`,
		"group list x":                `error: runbook group list takes no arguments, got "x"; runbook group list --help`,
		"act":                         `error: runbook act needs PATH...; for example: runbook act a.star`,
		"act a b c":                   `error: runbook act takes PATH..., got "c" as well; runbook act --help`,
		"act a --dry-rum":             `error: unknown flag --dry-rum for runbook act; did you mean --dry-run?`,
		"act a -dry-run":              `error: unknown flag -dry-run for runbook act; did you mean --dry-run?`,
		"act a --target":              `error: --target needs a value; runbook act --help`,
		"act a --target --dry-run":    `error: --target needs a value, and --dry-run looks like a flag; if it is the value, write --target=--dry-run`,
		"act a --target x --target y": `error: --target is given twice; runbook act --help`,
		"act a --wait 5":              `error: runbook act: --wait must be a duration such as 30m or 2d, got "5"; runbook act --help`,
		"act a --dry-run=maybe":       `error: runbook act: --dry-run cannot be read, got "maybe"; runbook act --help`,
		"--target w3 act a.star":      `error: flag --target stands before its command; runbook act --target w3 a.star`,
		"--project p group list":      `error: unknown flag --project for runbook group list; runbook group list --help`,
		"act a --state s":             `error: unknown flag --state for runbook act; runbook act --help`,
	} {
		r := play(t, strings.Fields(line)...)
		got := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(r.err, "runbook: "), "\n"), "\nrunbook: hint: ", "; ")
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", line, got, want)
		}
		if r.exit != problem.ExitUsage || r.out != "" || r.called {
			t.Errorf("%s: exit %d, stdout %q, called %v", line, r.exit, r.out, r.called)
		}
	}
}

func TestNoCommandShowsHelpOnStderr(t *testing.T) {
	t.Parallel()
	if r := play(t); r.exit != problem.ExitUsage || r.out != "" || !strings.Contains(r.err, "usage: runbook COMMAND") {
		t.Errorf("%+v", r)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"--help", "help", "-h", "act --help", "act a b c --help", "help act", "group --help", "group list -h"} {
		r := play(t, strings.Fields(line)...)
		if r.exit != problem.ExitOK || r.err != "" || !strings.Contains(r.out, "usage: runbook") || r.called {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// A wrapped cli.Exit loses its code; ours come from the error alone, however deep it is.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	stopped, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("%w: interrupt", errSignal))
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want problem.Exit
	}{
		{t.Context(), nil, 0},
		{t.Context(), problem.New(problem.Script, "x"), 1},
		{t.Context(), problem.New(problem.Syntax, "x"), 2},
		{t.Context(), exitWith(problem.ExitFindings), 3},
		{t.Context(), problem.New(problem.Halted, "x"), 4},
		{t.Context(), fmt.Errorf("run worker: %w", problem.New(problem.Refused, "x")), 4},
		{t.Context(), errors.Join(problem.New(problem.Refused, "x"), problem.New(problem.Script, "y")), 4},
		{t.Context(), errors.New("a bug"), 5},
		{t.Context(), cli.Exit("not ours", 3), 5},
		{stopped, context.Canceled, 130},
		{stopped, problem.New(problem.Script, "x"), 130},
		{stopped, nil, 0},
	} {
		if r := playWith(t, c.ctx, c.err, "act", "a"); r.exit != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, r.exit, c.want)
		}
	}
}

// Every code has an exit code of the list that help shows.
func TestCodesMapToListedExits(t *testing.T) {
	t.Parallel()
	listed := map[problem.Exit]bool{}
	for _, e := range exitCodes {
		listed[e.code] = true
	}
	for _, i := range problem.All() {
		if !listed[i.Exit] {
			t.Errorf("%s exits %d, which is not in the list", i.Code, i.Exit)
		}
	}
}

func TestErrorsForPeople(t *testing.T) {
	t.Parallel()
	p := problem.New(problem.Argument, "metrics.query: timeout must be a duration, got %q", "5").
		At(value.Pos{File: "disk.star", Line: 12, Col: 5}).WithHint(`write timeout="5s"`).
		WithDetail(`    ctx.metrics.query("up", timeout="5")`, "\x1b[2Jlast words\r")
	r := playWith(t, t.Context(), p, "act", "a")
	want := `runbook: error: disk.star:12:5: metrics.query: timeout must be a duration, got "5"
        ctx.metrics.query("up", timeout="5")
    \x1b[2Jlast words\x0d
runbook: hint: write timeout="5s"
`
	if diff := cmp.Diff(want, r.err); diff != "" {
		t.Error(diff)
	}
}

func TestJSONIsOneDocument(t *testing.T) {
	t.Parallel()
	located := problem.New(problem.Script, "it broke").At(value.Pos{File: "a.star", Line: 3}).WithHint("mend it")
	for _, c := range []struct {
		name string
		err  error
		line string
		want string
	}{
		{"success", nil, "act a --json", `{"paths":["a"]}`},
		{"no result", nil, "group list --json", `{}`},
		{"usage", nil, "act --json --nope", `{"error":{"code":"usage","message":"unknown flag --nope for runbook act","hint":"runbook act --help","doc":"docs/errors/usage.md"}}`},
		{"result and error", located, "act a --json", `{"error":{"code":"script","message":"it broke","pos":{"file":"a.star","line":3},"hint":"mend it","doc":"docs/errors/script.md"},"paths":["a"]}`},
		{
			"several", errors.Join(problem.New(problem.Script, "one"), problem.New(problem.Limit, "two")), "--json act a",
			`{"error":{"code":"script","message":"one","doc":"docs/errors/script.md","more":[{"code":"limit","message":"two"}]},"paths":["a"]}`,
		},
		{"code only", exitWith(problem.ExitFindings), "act a --json", `{"paths":["a"]}`},
	} {
		r := playWith(t, t.Context(), c.err, strings.Fields(c.line)...)
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(r.out)); err != nil {
			t.Errorf("%s: %v in %q", c.name, err, r.out)
			continue
		}
		if diff := cmp.Diff(c.want+"\n", compact.String()); diff != "" && diff != c.want {
			if compact.String() != c.want {
				t.Errorf("%s: %s", c.name, diff)
			}
		}
	}
}

// Each help fits a screen of 24 lines (the list of all commands: 48) and 100 columns, and ends in a line to run.
func TestHelpFitsOneScreen(t *testing.T) {
	t.Parallel()
	var walk func(path []string, s spec)
	walk = func(path []string, s spec) {
		path = append(path, s.name)
		text := helpFor(nil, line{path: path, cmd: s})
		checkScreen(t, strings.Join(path, " "), text, 24)
		if !strings.HasPrefix(s.example, "runbook "+strings.Join(path, " ")) {
			t.Errorf("%v: the example %q runs something else", path, s.example)
		}
		if _, err := takeApart(commands(), strings.Fields(s.example)[1:]); err != nil {
			t.Errorf("%v: the example %q: %v", path, s.example, err)
		}
		for _, sub := range s.sub {
			walk(path, sub)
		}
	}
	for _, s := range commands() {
		if known := strings.Join(groups, "|"); !s.hidden && !strings.Contains(known, s.group) || s.group == "" && !s.hidden {
			t.Errorf("%s: group %q is not in the list", s.name, s.group)
		}
		walk(nil, s)
	}
	checkScreen(t, "runbook", helpFor(commands(), line{}), 48)
}

func checkScreen(t *testing.T, name, text string, most int) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) > most {
		t.Errorf("%s: help has %d lines", name, len(lines))
	}
	for _, l := range lines {
		if len(l) > 110 {
			t.Errorf("%s: line of %d columns: %s", name, len(l), l)
		}
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "for example: runbook ") {
		t.Errorf("%s: help ends in %q", name, last)
	}
}
