package cli

import (
	"slices"
	"strings"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// line is a command line taken apart, so that flags count wherever they stand. urfave/cli stops looking for flags at the
// first positional argument, and "run x.star --dry-run" would act for real.
type line struct {
	path  []string // the command words: "plugin", "list"
	flags []string // "--name=value" each
	args  []string // positional arguments
	help  bool
	json  bool
	cmd   spec // what path names; the zero spec for runbook itself
}

// forUrfave is the order that urfave/cli reads without surprises.
func (l line) forUrfave() []string {
	out := append([]string{"runbook"}, l.path...)
	out = append(out, l.flags...)
	return append(append(out, "--"), l.args...)
}

// takeApart reads a command line against the list of commands. The line is returned also with an error, as far as it was
// understood, because --json says how to report the error.
func takeApart(cmds []spec, tokens []string) (line, error) {
	l := line{json: wantsJSON(tokens)}
	known := spec{takes: takesProject | takesState}.shared() // until the command is known
	inner := cmds                                            // words that may come next
	given := map[string]bool{}
	for i := 0; i < len(tokens); i++ {
		tok := tokens[i]
		if tok == "--version" && len(l.path) == 0 {
			tok = "version" // what one types at any program
		}
		switch {
		case tok == "--":
			l.args = append(l.args, tokens[i+1:]...)
			i = len(tokens)
		case tok == "--help" || tok == "-h":
			l.help = true
		case len(tok) > 1 && tok[0] == '-':
			name, val, hasVal := strings.Cut(strings.TrimLeft(tok, "-"), "=")
			f := lookup(known, tok, name)
			if f == nil {
				return l, unknownFlag(cmds, l, known, tokens, i)
			}
			name = f.Names()[0]
			if _, isBool := f.(*cli.BoolFlag); !isBool && !hasVal {
				i++
				if i == len(tokens) {
					return l, problem.New(problem.Usage, "--%s needs a value", name).WithHint("%s", usageHint(l))
				}
				if val = tokens[i]; len(val) > 1 && val[0] == '-' {
					return l, problem.New(problem.Usage, "--%s needs a value, and %s looks like a flag", name, val).
						WithHint("if it is the value, write --%s=%s", name, val)
				}
			} else if isBool && !hasVal {
				val = "true"
			}
			if _, isSlice := f.(*cli.StringSliceFlag); given[name] && !isSlice {
				return l, problem.New(problem.Usage, "--%s is given twice", name).WithHint("%s", usageHint(l))
			}
			given[name] = true
			l.flags = append(l.flags, "--"+name+"="+val)
		case inner != nil:
			if tok == "help" && len(l.path) == 0 {
				l.help = true
				continue
			}
			s, ok := find(inner, tok)
			if !ok {
				return l, unknownWord(l, inner, tok)
			}
			l.path, l.cmd, inner = append(l.path, tok), s, s.sub
			known = append(s.shared(), s.flags...)
		default:
			l.args = append(l.args, tok)
		}
	}
	if len(l.path) == 0 {
		return l, nil
	}
	for name := range given { // a global flag before the command, which the command does not take
		if lookup(known, "--"+name, name) == nil {
			return l, unknownFlag(cmds, l, known, []string{"--" + name}, 0)
		}
	}
	return l, nil
}

// wantsJSON says whether --json is on the line, also when the rest of it is wrong.
func wantsJSON(tokens []string) bool {
	for _, t := range tokens {
		switch t {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// lookup finds a flag; long names have two dashes and aliases of one letter have one.
func lookup(fs []cli.Flag, tok, name string) cli.Flag {
	if strings.HasPrefix(tok, "--") != (len(name) > 1) {
		return nil
	}
	for _, f := range fs {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func find(cmds []spec, name string) (spec, bool) {
	for _, s := range cmds {
		if s.name == name {
			return s, true
		}
	}
	return spec{}, false
}

func unknownFlag(cmds []spec, l line, known []cli.Flag, tokens []string, i int) error {
	tok, _, _ := strings.Cut(tokens[i], "=")
	p := problem.New(problem.Usage, "unknown flag %s for %s", tok, l.name())
	if len(l.path) == 0 { // runbook --reason x halt
		for j, word := range tokens[i+1:] {
			if s, ok := find(cmds, word); ok && lookup(append(s.shared(), s.flags...), tok, strings.TrimLeft(tok, "-")) != nil {
				moved := append([]string{"runbook", word}, tokens[:i+1+j]...)
				return problem.New(problem.Usage, "flag %s stands before its command", tok).
					WithHint("%s", quoteLine(append(moved, tokens[i+j+2:]...)))
			}
		}
	}
	var names []string
	for _, f := range known {
		names = append(names, "--"+f.Names()[0])
	}
	if n := problem.Nearest("--"+strings.TrimLeft(tok, "-"), append(names, "--help")); n != "" {
		return p.WithHint("did you mean %s?", n)
	}
	return p.WithHint("%s", usageHint(l))
}

func unknownWord(l line, words []spec, tok string) error {
	var names []string
	for _, s := range words {
		if !s.hidden {
			names = append(names, s.name)
		}
	}
	p := problem.New(problem.Usage, "unknown command %q for %s", tok, l.name())
	if n := problem.Nearest(tok, names); n != "" {
		return p.WithHint("did you mean %s %s?", l.name(), n)
	}
	return p.WithHint("%s", usageHint(l))
}

// missingWord is for a command that is only a prefix of others.
func missingWord(full string, sub []spec) error {
	var names []string
	for _, s := range sub {
		names = append(names, s.name)
	}
	return problem.New(problem.Usage, "%s needs one of: %s", full, strings.Join(names, ", ")).WithHint("%s --help", full)
}

func (l line) name() string { return strings.Join(append([]string{"runbook"}, l.path...), " ") }

func usageHint(l line) string { return l.name() + " --help" }

// quoteLine joins words into a line that a shell reads as those words.
func quoteLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
