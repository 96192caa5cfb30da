package check

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/bazelbuild/buildtools/build"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Format returns the file as runbook fmt writes it. What it returns says the same: it is parsed again and compared, statement by statement, and a
// difference is an error.
func Format(name string, text []byte) ([]byte, error) {
	if p := sandbox.NotText(text); p != nil {
		return nil, p.At(value.Pos{File: name})
	}
	before, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	f, err := build.ParseDefault(name, text) // not ParseBuild or ParseBzl, which sort and rewrite what means something in Bazel only
	if e, ok := errors.AsType[build.ParseError](err); ok {
		return nil, problem.New(problem.Syntax, "%s", e.Message).At(value.Pos{File: name, Line: e.Pos.Line, Col: e.Pos.LineRune})
	}
	if err != nil {
		return nil, problem.New(problem.Syntax, "%v", err).At(value.Pos{File: name})
	}
	out := build.FormatWithoutRewriting(f)
	after, err := parse(name, out)
	if err != nil {
		return nil, problem.New(problem.Internal, "formatting would break it: %v", err).At(value.Pos{File: name})
	}
	if a, b := shape(before), shape(after); a != b {
		return nil, problem.New(problem.Internal, "formatting would change what it says: %s", firstDifference(a, b)).At(value.Pos{File: name}).WithHint("it is left as it was")
	}
	return out, nil
}

func parse(name string, text []byte) (*syntax.File, error) {
	f, err := (&syntax.FileOptions{Set: true}).Parse(name, text, syntax.RetainComments)
	if err == nil {
		return f, nil
	}
	if e, ok := err.(syntax.Error); ok { //nolint:errorlint // the parser returns it as it is
		return nil, problem.New(problem.Syntax, "%s", e.Msg).At(value.Pos{File: name, Line: int(e.Pos.Line), Col: int(e.Pos.Col)})
	}
	return nil, problem.Wrap(problem.Syntax, err, "parse").At(value.Pos{File: name})
}

// shape is a tree as text, without places, and with the comments in their order. Parentheses that mean nothing are left out.
func shape(f *syntax.File) string {
	var b bytes.Buffer
	var comments []string
	keep := func(c *syntax.Comments) {
		if c == nil {
			return
		}
		for _, list := range [][]syntax.Comment{c.Before, c.Suffix, c.After} {
			for _, x := range list {
				comments = append(comments, strings.TrimSpace(x.Text))
			}
		}
	}
	depth := 0
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			depth--
			return true
		}
		depth++
		keep(n.Comments())
		switch n := n.(type) {
		case *syntax.Literal:
			fmt.Fprintf(&b, "%d %v %v\n", depth, n.Token, n.Value)
		case *syntax.Ident:
			fmt.Fprintf(&b, "%d name %s\n", depth, n.Name)
		case *syntax.BinaryExpr:
			fmt.Fprintf(&b, "%d %s\n", depth, n.Op)
		case *syntax.UnaryExpr:
			fmt.Fprintf(&b, "%d %s\n", depth, n.Op)
		case *syntax.AssignStmt:
			fmt.Fprintf(&b, "%d %s\n", depth, n.Op)
		case *syntax.BranchStmt:
			fmt.Fprintf(&b, "%d %s\n", depth, n.Token)
		default:
			fmt.Fprintf(&b, "%d %T\n", depth, n)
		}
		return true
	})
	return b.String() + strings.Join(comments, "\n")
}

// firstDifference is where two texts part.
func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("%q became %q", x[i], y[i])
		}
	}
	return "something was lost or added at the end"
}
