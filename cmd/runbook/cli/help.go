package cli

import (
	"fmt"
	"strings"

	cli "github.com/urfave/cli/v2"
)

// groups are the headings of runbook --help, in the order in which a newcomer meets them.
var groups = []string{"Start", "Run", "Look", "Decide", "Maintain"}

// helpFor is the help of a command, or of runbook itself if the line names none. It fits one screen: a test counts.
func helpFor(cmds []spec, l line) string {
	if len(l.path) == 0 {
		return helpRoot(cmds)
	}
	return helpCommand(l.name(), l.cmd)
}

func helpRoot(cmds []spec) string {
	var b strings.Builder
	b.WriteString("usage: runbook COMMAND [flags] [arguments]: carry out operating procedures, and say why, or why not\n")
	for _, g := range groups {
		var rows [][2]string
		for _, s := range cmds {
			if s.group == g && !s.hidden {
				rows = append(rows, [2]string{s.name, s.summary})
			}
		}
		if len(rows) > 0 {
			fmt.Fprintf(&b, "\n%s\n", g)
			columns(&b, rows)
		}
	}
	b.WriteString("\nexit codes: ")
	for i, e := range exitCodes {
		sep := "; "
		switch i {
		case 0:
			sep = ""
		case 4:
			sep = ";\n            "
		}
		fmt.Fprintf(&b, "%s%d %s", sep, e.code, e.what)
	}
	b.WriteString("\nfor example: runbook demo\n")
	return b.String()
}

func helpCommand(full string, s spec) string {
	var b strings.Builder
	usage := []string{full}
	if len(s.sub) > 0 {
		usage = append(usage, "COMMAND")
	}
	if s.args != "" {
		usage = append(usage, s.args)
	}
	for _, r := range s.required {
		usage = append(usage, "--"+r, placeholder(s.flags, r))
	}
	fmt.Fprintf(&b, "%s: %s\n\nusage: %s [flags]\n", full, s.summary, strings.Join(usage, " "))
	if s.about != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(s.about))
	}
	if len(s.sub) > 0 {
		var rows [][2]string
		for _, c := range s.sub {
			if !c.hidden {
				rows = append(rows, [2]string{c.name, c.summary})
			}
		}
		b.WriteString("\ncommands\n")
		columns(&b, rows)
	}
	if s.run != nil {
		var rows [][2]string
		for _, f := range append(append([]cli.Flag{}, s.flags...), s.shared()...) {
			rows = append(rows, flagRow(f))
		}
		b.WriteString("\nflags\n")
		columns(&b, rows)
	}
	fmt.Fprintf(&b, "\nfor example: %s\n", s.example)
	return b.String()
}

func columns(b *strings.Builder, rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(b, "  %-*s  %s\n", width, r[0], r[1])
	}
}

// flagRow is "--for DURATION" and what it means.
func flagRow(f cli.Flag) [2]string {
	name, text := "--"+f.Names()[0], ""
	if d, ok := f.(cli.DocGenerationFlag); ok {
		text = d.GetUsage()
	}
	word := flagWord(f, text)
	if word != "" {
		name += " " + word
	}
	return [2]string{name, strings.ReplaceAll(text, "`", "")}
}

// flagWord is the word in backquotes in the usage, or one that fits the flag's type.
func flagWord(f cli.Flag, usage string) string {
	if _, isBool := f.(*cli.BoolFlag); isBool {
		return ""
	}
	if _, after, ok := strings.Cut(usage, "`"); ok {
		word, _, _ := strings.Cut(after, "`")
		return word
	}
	if _, isDuration := f.(*cli.GenericFlag); isDuration {
		return "DURATION"
	}
	return "VALUE"
}

func placeholder(fs []cli.Flag, name string) string {
	for _, f := range fs {
		if f.Names()[0] == name {
			_, word, _ := strings.Cut(flagRow(f)[0], " ")
			return word
		}
	}
	return "VALUE"
}
