// Package argv is for plugins that run commands which an operator has listed: a runbook names one, and the target contributes single arguments, or parts of
// one, that cannot become an option.
package argv

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// saidBytes is how much of a failed command's output its message quotes.
const saidBytes = 4 << 10

// Named are the arguments of a function that runs one of a connection's commands.
type Named struct {
	Command string `rb:"command,required,positional" doc:"name of a command of the connection"`
}

// Result is how a command ended by itself.
type Result struct {
	Exit   int    `rb:"exit"`
	Stdout string `rb:"stdout"` // at most the last 64 KiB
	Stderr string `rb:"stderr"`
}

// List is the arguments of each command, by its name. The first is the absolute path of a program.
type List map[string][]string

// Check looks at a list that is called so in the project's settings. Only where placeholders are allowed may an argument have one.
func (l List) Check(kind string, placeholders bool) error {
	for _, name := range slices.Sorted(maps.Keys(l)) {
		if err := check(l[name], placeholders); err != nil {
			return problem.New(problem.Project, "%s: %q: %v", kind, name, err)
		}
	}
	return nil
}

func check(argv []string, placeholders bool) error {
	if len(argv) == 0 {
		return errors.New("it is empty")
	}
	if !path.IsAbs(argv[0]) || placeholder().MatchString(argv[0]) {
		return fmt.Errorf("%q is not the absolute path of a program", argv[0])
	}
	for _, a := range argv {
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument contains a zero byte")
		}
		if !placeholders && placeholder().MatchString(a) {
			return fmt.Errorf("%q: a read has no target", a)
		}
	}
	return nil
}

// Find returns the arguments of a command; one that is not there is a mistake in the runbook.
func (l List) Find(kind, name string) ([]string, error) {
	if argv, ok := l[name]; ok {
		return argv, nil
	}
	names := slices.Sorted(maps.Keys(l))
	return nil, problem.New(problem.Argument, "the connection's %s have no %q%s", kind, name, problem.DidYouMean(name, names)).
		WithHint("list it in the connection in project.star, or use one of: %s", strings.Join(names, ", "))
}

// placeholder is what stands for a part of the target. Other braces, as in an awk program, mean nothing.
var placeholder = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{(target|label:[^{}]*)\}`) })

// Expand puts the target into the arguments. Each stays one argument, whatever the target is called.
func Expand(argv []string, t sdk.Target) ([]string, error) {
	out := slices.Clone(argv)
	for i, arg := range argv {
		var failed error
		out[i] = placeholder().ReplaceAllStringFunc(arg, func(ph string) string {
			v, what := t.Name, "the target's name"
			if label, ok := strings.CutPrefix(ph, "{label:"); ok {
				label = strings.TrimSuffix(label, "}")
				v, what = t.Labels[label], "the target's label "+label
			}
			switch {
			case v == "":
				failed = problem.New(problem.Argument, "%s is missing, and argument %d needs it", what, i)
			case strings.ContainsRune(v, 0):
				failed = problem.New(problem.Argument, "%s contains a zero byte", what)
			case v[0] == '-' && strings.HasPrefix(arg, ph):
				failed = problem.New(problem.Argument, "%s is %q, which the command could take for an option", what, v).
					WithHint("put the placeholder behind something in the argument, such as --unit=%s", ph)
			}
			return v
		})
		if failed != nil {
			return nil, failed
		}
	}
	return out, nil
}

// Text is output as text, whatever bytes it has.
func Text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// Said is the end of what a command printed, for a message.
func Said(stdout, stderr []byte) string {
	out := strings.TrimSpace(Text(stderr))
	if out == "" {
		out = strings.TrimSpace(Text(stdout))
	}
	if out == "" {
		return ""
	}
	if len(out) > saidBytes {
		out = "..." + strings.ToValidUTF8(out[len(out)-saidBytes:], "")
	}
	return ": " + out
}
