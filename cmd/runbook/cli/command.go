package cli

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// spec describes a command. It is all that one has to write: parsing, help, usage errors, --json and exit codes come from
// command, the one constructor.
type spec struct {
	name     string
	group    string      // heading in runbook --help
	summary  string      // one line, lower case, no full stop
	about    string      // a short paragraph for --help, wrapped by hand at 80 columns
	args     string      // the positional arguments as help shows them: "PATH..."
	min, max int         // how many there are; max many: any number
	flags    []cli.Flag  // besides the global ones
	required []string    // flags that must be given
	takes    globalFlags // which global flags make sense here
	example  string      // a command that runs as it stands
	hidden   bool
	sub      []spec
	run      func(ctx context.Context, c *call) (result, error)
}

// many is a spec.max without limit.
const many = -1

// globalFlags are the flags that several commands share. Every command has --help, --json and --verbose.
type globalFlags int

const (
	takesProject globalFlags = 1 << iota // --project DIR
	takesState                           // --state DIR
)

// result is what a command found or did. With --json it is marshalled; otherwise it writes itself for a person.
type result interface{ text(u *ui) }

// call is one invocation of a command. The embedded Context has the flags by name and type: c.String("reason"),
// c.Bool("kill"), c.Duration("for").
type call struct {
	*cli.Context
	args  []string // positional arguments, counted already
	stdio Stdio
	ui    *ui
	log   *slog.Logger
}

// projectDir is the directory of project.star: --project, $RUNBOOK_PROJECT, or the working directory.
func (c *call) projectDir() string {
	if d := c.String("project"); d != "" {
		return d
	}
	if d := c.stdio.env(envProject); d != "" {
		return d
	}
	return "."
}

// givenState is the state directory that was named by --state or $RUNBOOK_STATE, made absolute, or "": then project.star
// says where it is.
func (c *call) givenState() (string, error) {
	d := c.String("state")
	if d == "" {
		d = c.stdio.env(envState)
	}
	if d == "" {
		return "", nil
	}
	abs, err := filepath.Abs(d)
	if err != nil {
		return "", problem.Wrap(problem.StateUnusable, err, "state directory %s", d)
	}
	return abs, nil
}

// command turns a spec into urfave/cli's form. What urfave/cli v2 does by itself (help and usage errors on stdout, exit
// codes of its own, a help command below every command) is switched off here, for all commands at once.
func command(s spec, path string, stdio Stdio, u *ui) *cli.Command {
	full := strings.TrimSpace(path + " " + s.name)
	c := &cli.Command{
		Name: s.name, Hidden: s.hidden, HideHelp: true, HideHelpCommand: true,
		Flags:        append(s.shared(), s.flags...),
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return badFlag(full, err) },
	}
	for _, sub := range s.sub {
		c.Subcommands = append(c.Subcommands, command(sub, full, stdio, u))
	}
	c.Action = func(x *cli.Context) error {
		if s.run == nil {
			return missingWord(full, s.sub)
		}
		if err := s.check(full, x); err != nil {
			return err
		}
		level := slog.LevelWarn
		if x.Bool("verbose") {
			level = slog.LevelDebug
		}
		in := &call{Context: x, args: x.Args().Slice(), stdio: stdio, ui: u, log: slog.New(u.logHandler(level))}
		res, err := s.run(x.Context, in)
		return u.finish(res, err)
	}
	return c
}

// check refuses missing and surplus arguments and missing flags.
func (s spec) check(full string, x *cli.Context) error {
	args := x.Args().Slice()
	switch n := len(args); {
	case s.max != many && n > s.max && s.max == 0:
		return problem.New(problem.Usage, "%s takes no arguments, got %q", full, args[0]).
			WithHint("%s --help", full)
	case s.max != many && n > s.max:
		return problem.New(problem.Usage, "%s takes %s, got %q as well", full, s.args, args[s.max]).
			WithHint("%s --help", full)
	case n < s.min:
		return problem.New(problem.Usage, "%s needs %s", full, s.args).
			WithHint("for example: %s", s.example)
	}
	for _, f := range s.required {
		if !x.IsSet(f) || x.String(f) == "" {
			return problem.New(problem.Usage, "%s needs --%s", full, f).WithHint("for example: %s", s.example)
		}
	}
	return nil
}

// shared are the flags that the command has besides its own.
func (s spec) shared() []cli.Flag {
	var fs []cli.Flag
	if s.takes&takesProject != 0 {
		fs = append(fs, &cli.StringFlag{Name: "project", Usage: "`DIR` with project.star; default $RUNBOOK_PROJECT, or here"})
	}
	if s.takes&takesState != 0 {
		fs = append(fs, &cli.StringFlag{Name: "state", Usage: "state `DIR`; default $RUNBOOK_STATE, or what project.star says"})
	}
	return append(fs,
		&cli.BoolFlag{Name: "json", Usage: "print one JSON document"},
		&cli.BoolFlag{Name: "verbose", Usage: "log what happens to stderr"},
	)
}

// durationFlag is a flag for a length of time: "30m", "2d".
func durationFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: new(durationValue)}
}

// durationValue reads durations as runbooks write them. Its text is one that cli.Context.Duration reads back.
type durationValue time.Duration

func (d *durationValue) String() string { return time.Duration(*d).String() }

func (d *durationValue) Set(text string) error {
	v, err := value.ParseDuration(text)
	if err != nil || v == 0 {
		return fmt.Errorf("must be a duration such as 30m or 2d")
	}
	*d = durationValue(v)
	return nil
}

var badValue = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:invalid value|invalid boolean value) "(.*)" for (?:flag )?-([^:]+): (.*)$`)
})

// badFlag rewords what urfave/cli says about the value of a flag. Unknown flags never get that far.
func badFlag(full string, err error) error {
	if m := badValue().FindStringSubmatch(err.Error()); m != nil {
		text, flag, why := m[1], m[2], m[3]
		if why == "parse error" {
			why = "cannot be read"
		}
		return problem.New(problem.Usage, "%s: --%s %s, got %q", full, flag, why, text).WithHint("%s --help", full)
	}
	return problem.New(problem.Usage, "%s: %v", full, err).WithHint("%s --help", full)
}
