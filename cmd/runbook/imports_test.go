package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed1de3961f/runbook"

// family and plugin stand for the packages of one family or one bundled plugin: such a package may import its own
// sub-packages, never a sibling.
const (
	self       = "(itself and below)"
	everything = "(all)"
)

// directions says which packages of this module a package may import: imports point down. The first rule that fits counts.
// The same table is in CONTRIBUTING.md in words, and .golangci.yml repeats the part that an editor should show at once.
var directions = []struct {
	from string // a package, with "/..." the ones below it too
	to   []string
	why  string
}{
	{"cmd/...", []string{everything}, "the program puts everything together"},
	{"runbooks", nil, "it is files, and nothing else"},
	{"runtime/...", []string{"runtime/...", "builtins/kit/...", "plugins/sdk/..."}, "cmd hands families and plugins to the engine"},
	{"builtins", []string{"builtins/..."}, "it is the list of families"},
	{"builtins/kit/...", []string{"builtins/kit/...", "plugins/sdk/value", "plugins/sdk/problem"}, "the contract knows no implementation"},
	{"builtins/...", []string{self, "builtins/kit/...", "plugins/sdk/value", "plugins/sdk/problem"}, "no family imports a family"},
	{"plugins", []string{"plugins/..."}, "it is the list of bundled plugins"},
	{"plugins/sdk/...", []string{"plugins/sdk/..."}, "a plugin author gets nothing else"},
	{"plugins/...", []string{self, "plugins/sdk/..."}, "a bundled plugin is built like anybody's"},
}

// confined says where a module or package from outside may be imported.
var confined = []struct {
	pkg    string
	except []string // parts of pkg with a rule of their own
	only   []string
	why    string
}{
	{"github.com/cockroachdb/pebble", nil, []string{"runtime/store/pebble"}, "the store is behind a port"},
	{"github.com/urfave/cli", nil, []string{"cmd/..."}, "the command line stops at cmd"},
	{"github.com/hashicorp/go-plugin", nil, []string{"runtime/pluginhost/...", "plugins/sdk/...", "cmd/runbook/bench"}, "the two ends of the plugin wire"},
	{"github.com/hashicorp/go-hclog", nil, []string{"runtime/pluginhost/...", "plugins/sdk/...", "cmd/runbook/bench"}, "go-plugin wants it, everything else has log/slog"},
	{"google.golang.org/grpc", nil, []string{"runtime/pluginhost/...", "plugins/sdk/..."}, "the two ends of the plugin wire"},
	{"google.golang.org/protobuf", nil, []string{"runtime/pluginhost/...", "plugins/sdk/..."}, "the two ends of the plugin wire"},
	{
		"github.com/prometheus/prometheus",
		[]string{"github.com/prometheus/prometheus/promql/parser", "github.com/prometheus/prometheus/model/labels"},
		[]string{"runtime/recorded/..."},
		"the engine is heavy, and production asks a real Prometheus",
	},
	{
		"github.com/prometheus/prometheus/promql/parser", nil,
		[]string{"runtime/promexpr/...", "runtime/recorded/..."},
		"one place that takes PromQL apart",
	},
	{
		"github.com/prometheus/prometheus/model/labels", nil,
		[]string{"runtime/promexpr/...", "runtime/recorded/..."},
		"matchers and labels belong to the parser and the engine",
	},
	{
		"go.starlark.net", nil,
		[]string{"runtime/sandbox/...", "runtime/project/...", "runtime/check/...", "runtime/testrun/...", "builtins/..."},
		"everything else sees plain values",
	},
}

// pure packages decide; they cannot touch the world even by accident.
var pure = []string{"runtime/action", "runtime/breaker", "runtime/guard", "plugins/sdk/value", "plugins/sdk/problem"}

var world = []string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "golang.org/x/sys/unix", "math/rand", "math/rand/v2", "crypto/rand"}

// sdkModules is all that a plugin author has to take in; grpc brings x/sys along anyway.
var sdkModules = []string{
	"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf",
	"golang.org/x/sys",
}

// besides is what a part of it takes in for those who use that part.
var besides = map[string]string{"golang.org/x/crypto/ssh": "plugins/sdk/sshlogin/..."}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		from := short(p.ImportPath)
		for _, imported := range p.Imports {
			if inModule(imported) {
				checkDirection(t, from, short(imported))
				continue
			}
			for _, c := range confined {
				if below(imported, c.pkg) && !slices.ContainsFunc(c.except, func(e string) bool { return below(imported, e) }) && !anyFits(from, from, c.only) {
					t.Errorf("%s imports %s: only %s may (%s)", from, imported, strings.Join(c.only, ", "), c.why)
				}
			}
			if slices.Contains(pure, from) && slices.Contains(world, imported) {
				t.Errorf("%s imports %s: it decides and must not touch the world", from, imported)
			}
			if fits(from, "plugins/sdk/...") && strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") &&
				!slices.ContainsFunc(sdkModules, func(m string) bool { return below(imported, m) }) && !takesBesides(from, imported) {
				t.Errorf("%s imports %s: a plugin author takes in std, go-plugin, grpc, protobuf and hclog only", from, imported)
			}
		}
	}
}

func takesBesides(from, imported string) bool {
	for m, only := range besides {
		if below(imported, m) && fits(from, only) {
			return true
		}
	}
	return false
}

func checkDirection(t *testing.T, from, to string) {
	t.Helper()
	for _, d := range directions {
		if fits(from, d.from) {
			if !anyFits(to, from, d.to) {
				t.Errorf("%s imports %s: %s may import %s (%s)", from, to, d.from, strings.Join(d.to, ", "), d.why)
			}
			return
		}
	}
	t.Errorf("%s: a directory without a rule; add one to this table, or move the package", from)
}

// The rules themselves, on imports that must be refused.
func TestRulesRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"builtins/metrics", "builtins/alerts"},
		{"builtins/kit", "runtime/engine"},
		{"runtime/engine", "builtins"},
		{"runtime/engine", "builtins/metrics"},
		{"runtime/engine", "plugins/exec"},
		{"plugins/exec", "runtime/action"},
		{"plugins/exec", "plugins/systemd"},
		{"plugins/sdk", "builtins/kit"},
		{"runtime/store", "cmd/runbook/cli"},
	} {
		refused := false
		for _, d := range directions {
			if fits(c[0], d.from) {
				refused = !anyFits(c[1], c[0], d.to)
				break
			}
		}
		if !refused {
			t.Errorf("%s may import %s", c[0], c[1])
		}
	}
}

func packages(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	list.Dir = "../.."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func inModule(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func short(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// fits says whether a package is the one of a pattern, or below it.
func fits(p, pattern string) bool {
	root, deep := strings.CutSuffix(pattern, "/...")
	return p == root || deep && below(p, root)
}

func anyFits(p, from string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		switch pattern {
		case everything:
			return true
		case self:
			parts := strings.SplitN(from, "/", 3)
			return len(parts) > 1 && below(p, parts[0]+"/"+parts[1])
		}
		return fits(p, pattern)
	})
}
