package allow_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list       []string
		name, want string // "" is allowed
	}{
		{[]string{"nginx", "worker-*"}, "nginx", ""},
		{[]string{"nginx", "worker-*"}, "worker-7", ""},
		{[]string{"nginx", "worker-*"}, "worker", "does not allow to act on unit worker"},
		{[]string{"nginx", "worker-*"}, "ngnix", `does not allow to act on unit ngnix (did you mean "nginx"?)|the connection's units in project.star, which are: nginx, worker-*`},
		{nil, "nginx", `does not allow to act on unit nginx|config = {"units": ["nginx"]}`},
		{[]string{"*"}, "a/b", "does not allow to act on unit a/b"}, // each * is within one name
	} {
		err := allow.Check("units", c.list, "unit ", c.name)
		if (err == nil) != (c.want == "") {
			t.Errorf("%q of %q: %v, want %q", c.name, c.list, err, c.want)
		}
		p, _ := errors.AsType[*problem.Problem](err)
		for want := range strings.SplitSeq(c.want, "|") {
			if p != nil && !strings.Contains(p.Message+"\n"+p.Hint, want) {
				t.Errorf("%q of %q: %s\n%s\nwant %q", c.name, c.list, p.Message, p.Hint, want)
			}
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	if err := allow.Patterns("units", []string{"nginx", "worker-*", "a?"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "["} {
		if err := allow.Patterns("units", []string{"nginx", bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
