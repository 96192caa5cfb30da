package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// command lines as messages and pages write them: after a colon, a quote, a backtick, or an imperative.
var named = []*regexp.Regexp{
	regexp.MustCompile("(?:[:`'\"] ?|\\b(?:type|with|see|or|is)\\b:? )runbook ([a-z][a-z-]+)(?: ([a-z]+)\\b)?"),
	regexp.MustCompile("^runbook ([a-z][a-z-]+)(?: ([a-z]+))?(?:$| --)"), // a message that is nothing but a command line
}

// TestHintsNameCommands finds every command that an error, a hint or a page tells a person to type, and checks that it
// exists.
func TestHintsNameCommands(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	subs := map[string]map[string]bool{}
	for _, s := range commands() {
		known[s.name] = true
		for _, sub := range s.sub {
			if subs[s.name] == nil {
				subs[s.name] = map[string]bool{}
			}
			subs[s.name][sub.name] = true
		}
	}
	subs["plugin"]["serve"] = true // `runbook plugin serve NAME` is for the program itself
	seen := 0
	check := func(where, text string) {
		for _, form := range named {
			for _, m := range form.FindAllStringSubmatch(text, -1) {
				seen++
				if !known[m[1]] {
					t.Errorf("%s: there is no command %q: %s", where, m[1], m[0])
				} else if sub := subs[m[1]]; sub != nil && !sub[m[2]] && (m[2] != "" || !strings.HasSuffix(where, "cli.md")) { // the reference has a page for each group
					t.Errorf("%s: %q has no command %q: %s", where, m[1], m[2], m[0])
				}
			}
		}
	}
	root := filepath.Join("..", "..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			b, err := os.ReadFile(path)
			check(path, string(b))
			return err
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".pb.go"):
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil {
						check(path, s)
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Fatalf("only %d command lines were found: the search is broken", seen)
	}
}
