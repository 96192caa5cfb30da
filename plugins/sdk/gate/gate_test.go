package gate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ argv, env []string }{
		{[]string{"/bin/true"}, nil},
		{[]string{"/bin/sh", "-c", "", "a\nb.", "é"}, []string{"PATH=/bin", "EMPTY="}},
	} {
		argv, env, ok := parse(Order(c.argv, c.env))
		if !ok || !cmp.Equal(argv, c.argv) || !cmp.Equal(env, c.env) {
			t.Errorf("parse(Order(%q, %q)) = %q, %q, %t", c.argv, c.env, argv, env, ok)
		}
	}
}

// What arrives in part is not carried out: the plugin died while it gave leave.
func TestCutOrder(t *testing.T) {
	t.Parallel()
	whole := Order([]string{"/bin/rm", "-r", "/tmp/x/cache."}, []string{"A=1."})
	for n := range len(whole) {
		if argv, _, ok := parse(whole[:n]); ok {
			t.Errorf("the first %d of %d bytes are the order to run %q", n, len(whole), argv)
		}
	}
}
