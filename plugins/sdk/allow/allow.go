// Package allow is for plugins whose connections list what may be acted on, each by its name or by a pattern, and nothing if they list nothing.
package allow

import (
	"path"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Check says whether a name is one that the setting lists. object is how the error calls what has the name, such as "user "; it may be empty.
func Check(setting string, list []string, object, name string) error {
	for _, pattern := range list {
		if ok, _ := path.Match(pattern, name); ok {
			return nil
		}
	}
	p := problem.New(problem.Argument, "the connection does not allow to act on %s%s%s", object, name, problem.DidYouMean(name, list))
	if len(list) == 0 {
		return p.WithHint("list it in the connection in project.star: config = {%q: [%q]}", setting, name)
	}
	return p.WithHint("list it in the connection's %s in project.star, which are: %s", setting, strings.Join(list, ", "))
}

// Patterns says which of a setting's patterns is none.
func Patterns(setting string, list []string) error {
	for _, p := range list {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return problem.New(problem.Project, "%s: %.80q is not a name or a pattern", setting, p)
		}
	}
	return nil
}
