package cli

// This file is the only one that formats for people. The rules are:
//
//   - stdout gets the result and nothing else. With --json that is one JSON document, also on failure; its fields are only
//     ever added to.
//   - stderr gets everything else, each line with "runbook:" in front: progress, warnings, logs, and how it failed as
//     "runbook: error: where: what" and "runbook: hint: what to type next". Details are indented below the error.
//   - No capitalised initials and no full stops at the end of a message.
//   - Durations and relative times are written for people ("4m", "2h ago"), to two units. JSON has exact ones.
//   - Colour repeats what the words say already. It is used on a terminal only, and not with NO_COLOR.
//   - What comes from outside (labels, a plugin's last words) cannot move the cursor: control characters are spelled out.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// ui writes to a person, or one document to a program.
type ui struct {
	stdio    Stdio
	out, err *stream
	json     bool
	doc      result         // with json: printed by report, together with the error if there is one
	ending   sync.WaitGroup // what a command leaves to be ended beside its report; no command ends before it
}

func newUI(s Stdio) *ui {
	color := func(terminal bool) bool {
		return terminal && s.env(envNoColor) == "" && s.env(envTerm) != "dumb"
	}
	return &ui{
		stdio: s,
		out:   &stream{w: s.Out, color: color(s.OutIsTerminal)},
		err:   &stream{w: s.Err, color: color(s.ErrIsTerminal)},
	}
}

// Printf writes to stdout. With --json there is nothing to read there but the document, so it writes nothing.
func (u *ui) Printf(format string, args ...any) {
	if !u.json {
		u.out.print(fmt.Sprintf(format, args...))
	}
}

// Progress writes a line that says what is being done now to stderr.
func (u *ui) Progress(format string, args ...any) {
	u.err.print("runbook: " + fmt.Sprintf(format, args...) + "\n")
}

// Percent says on a terminal how far something long is, in one line that is written over. Elsewhere it says nothing.
func (u *ui) Percent(what string, done, all int) {
	if !u.stdio.ErrIsTerminal || all == 0 {
		return
	}
	const wide = 40
	n := wide * done / all
	u.err.write(fmt.Sprintf("\r%s [%s%s] %d%%", what, strings.Repeat("#", n), strings.Repeat(".", wide-n), 100*done/all))
	if done == all {
		u.err.print("\n")
	}
}

// Warn writes a warning to stderr.
func (u *ui) Warn(format string, args ...any) {
	u.err.print("runbook: " + yellow("warning:") + " " + fmt.Sprintf(format, args...) + "\n")
}

// finish takes a command's result: prints it, or keeps it for the one document.
func (u *ui) finish(res result, err error) error {
	switch {
	case res == nil:
	case u.json:
		u.doc = res
	default:
		res.text(u)
	}
	return err
}

// report ends every command: its error for people and, with --json, the document.
func (u *ui) report(ctx context.Context, err error) {
	var problems []*problem.Problem
	for _, e := range each(err) {
		if !errors.As(e, new(exitError)) {
			problems = append(problems, asProblem(ctx, e))
		}
	}
	for _, p := range problems {
		u.fail(p)
	}
	if u.json {
		u.document(problems)
	}
}

// each takes joined errors apart.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range j.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}

// fail writes an error, its details and its hint to stderr.
func (u *ui) fail(p *problem.Problem) {
	var b strings.Builder
	fmt.Fprintf(&b, "runbook: %s %s\n", red("error:"), clean(p.Error()))
	for _, d := range p.Detail {
		fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(clean(d), "\n", "\n    "))
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "runbook: %s %s\n", bold("hint:"), clean(p.Hint))
	}
	u.err.print(b.String())
}

// errorDocument is how an error looks in JSON. With several, the first decides the exit code and the rest is in more.
type errorDocument struct {
	*problem.Problem
	Doc  string             `json:"doc"`
	More []*problem.Problem `json:"more,omitempty"`
}

func (u *ui) document(problems []*problem.Problem) {
	body := []byte("{}")
	if u.doc != nil {
		var err error
		if body, err = marshal(u.doc); err != nil {
			problems = append(problems, problem.Wrap(problem.Internal, err, "write the result as JSON"))
			body = []byte("{}")
		}
	}
	if len(problems) > 0 {
		first := problems[0]
		head, err := marshal(errorDocument{first, docPage(first.Code), problems[1:]})
		if err != nil {
			head = []byte(`{"code":"internal","message":"the error cannot be written as JSON"}`)
		}
		rest := bytes.TrimPrefix(bytes.TrimSpace(body), []byte("{"))
		if string(rest) != "}" {
			rest = append([]byte(","), rest...)
		}
		body = append(append([]byte(`{"error":`), head...), rest...)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, body, "", "  "); err != nil {
		pretty.Reset()
		pretty.Write(body)
	}
	u.out.write(pretty.String() + "\n")
}

// docPage is where the code is explained.
func docPage(c problem.Code) string { return "docs/errors/" + string(c) + ".md" }

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// writeError is the first error of writing the result. That nobody reads any more (| head -1) is none.
func (u *ui) writeError() error {
	if errors.Is(u.out.failed, syscall.EPIPE) {
		return nil
	}
	return u.out.failed
}

// Table writes rows in aligned columns, the header above them. The last column is not padded.
func (u *ui) Table(header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], shown(cell))
		}
	}
	line := func(row []string, paint func(string) string) {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(paint(cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-shown(cell)))
			}
		}
		u.Printf("%s\n", strings.TrimRight(b.String(), " "))
	}
	line(header, faint)
	for _, row := range rows {
		line(row, func(s string) string { return s })
	}
}

// shown is how many columns a cell takes, colour aside.
func shown(cell string) int { return utf8.RuneCountInString(ownColor().ReplaceAllString(cell, "")) }

// Verdict writes one line that says how something was judged: a mark, what was judged, and why. The words carry the
// meaning; the mark and its colour help the eye.
func (u *ui) Verdict(j judgement, what, why string) {
	u.Printf("  %s  %-12s  %s\n", j.mark(), what, why)
}

// judgement is the outcome that a verdict line shows.
type judgement int

const (
	passed judgement = iota
	refused
	skipped
	unsure
)

func (j judgement) mark() string {
	switch j {
	case passed:
		return green("ok     ")
	case refused:
		return red("refused")
	case skipped:
		return faint("skipped")
	}
	return yellow("unsure ")
}

// Colour: the few that are used, each with a reset behind it. A stream without colour takes them out again.
const esc = "\x1b["

func red(s string) string    { return esc + "31m" + s + esc + "0m" }
func green(s string) string  { return esc + "32m" + s + esc + "0m" }
func yellow(s string) string { return esc + "33m" + s + esc + "0m" }
func bold(s string) string   { return esc + "1m" + s + esc + "0m" }
func faint(s string) string  { return esc + "2m" + s + esc + "0m" }

var ownColor = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\x1b\[(?:0|1|2|31|32|33)m`) })

// stream is stdout or stderr. It remembers the first error and stays silent after it.
type stream struct {
	w      io.Writer
	color  bool
	lock   sync.Mutex // a signal is told of while a command writes
	failed error
}

// print writes text for people: our own colours if they are wanted, and no other control characters.
func (s *stream) print(text string) {
	if !s.color {
		s.write(clean(ownColor().ReplaceAllString(text, "")))
		return
	}
	var b strings.Builder
	last := 0
	for _, at := range ownColor().FindAllStringIndex(text, -1) {
		b.WriteString(clean(text[last:at[0]]))
		b.WriteString(text[at[0]:at[1]])
		last = at[1]
	}
	b.WriteString(clean(text[last:]))
	s.write(b.String())
}

func (s *stream) write(text string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.failed == nil {
		_, s.failed = io.WriteString(s.w, text)
	}
}

// clean spells control characters out, but for line feed and tab.
func clean(s string) string {
	plain := func(r rune) bool { return r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) }
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if plain(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x%02x`, r)
		}
	}
	return b.String()
}

// tree prints an explanation, each level indented below the one above.
func (u *ui) tree(n *trace.Node, indent string) {
	mark := map[trace.Mark]string{trace.Good: green("+") + " ", trace.Bad: red("x") + " ", trace.Warn: yellow("!") + " "}[n.Mark]
	where := ""
	if n.Where != "" {
		where = faint("  " + n.Where)
	}
	u.Printf("%s%s%s%s\n", indent, mark, strings.ReplaceAll(n.Text, "\n", "\n"+indent+"    "), where)
	for _, c := range n.Children {
		u.tree(c, indent+"  ")
	}
}

// spoken is a state as people say it.
func spoken(state string) string { return strings.ReplaceAll(state, "_", " ") }

// compact renders arguments on one line.
func compact(v value.Value) string {
	b, err := value.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
