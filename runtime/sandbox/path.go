package sandbox

import (
	"path"
	"strings"
	"unicode"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// modulePath is the project path that load("//...") names. There is exactly one way to write each path, and none leads
// out of the project.
func modulePath(module string) (string, *problem.Problem) {
	p, rooted := strings.CutPrefix(module, "//")
	if !rooted {
		e := problem.New(problem.Load, "load %q: the path must begin with // and is taken from the project's root", clip(module, 100))
		if !strings.ContainsAny(module, ":@\\") && strings.HasSuffix(module, ".star") {
			e = e.WithHint(`write load("//%s", ...)`, strings.TrimLeft(path.Clean("/"+clip(module, 100)), "/"))
		}
		return "", e
	}
	if why := badPath(p); why != "" {
		return "", problem.New(problem.Load, "load %q: %s", clip(module, 100), why)
	}
	return p, nil
}

// badPath says what is wrong with a project path, or "".
func badPath(p string) string {
	switch {
	case p == "" || len(p) > 255:
		return "a path has 1 to 255 characters"
	case strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`\:*?"<>|`, r) }):
		return "the path holds a character that is not allowed"
	case strings.HasPrefix(p, "/"):
		return "the path must be relative to the project"
	case p == ".." || strings.HasPrefix(p, "../") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/.."):
		return "the path must not hold .."
	case path.Clean(p) != p:
		return "write the path as " + path.Clean(p)
	case !strings.HasSuffix(p, ".star") || path.Base(p) == ".star":
		return "only .star files can be loaded"
	}
	return ""
}
