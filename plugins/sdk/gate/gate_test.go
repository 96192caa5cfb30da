package gate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		argv, env []string
		who       *Identity
		ids       []uint32
	}{
		{argv: []string{"/bin/true"}},
		{argv: []string{"/bin/sh", "-c", "", "a\nb.", "é"}, env: []string{"PATH=/bin", "EMPTY="}},
		{argv: []string{"/bin/true"}, who: &Identity{UID: 4294967294, GID: 7}, ids: []uint32{4294967294, 7}},
		{argv: []string{"/bin/true"}, who: &Identity{UID: 0, GID: 0, Groups: []uint32{4, 27}}, ids: []uint32{0, 0, 4, 27}},
	} {
		o, ok := parse(Order(c.argv, c.env, c.who))
		if !ok || !cmp.Equal(o.argv, c.argv) || !cmp.Equal(o.env, c.env) || !cmp.Equal(o.ids, c.ids) {
			t.Errorf("parse(Order(%q, %q, %+v)) = %+v, %t", c.argv, c.env, c.who, o, ok)
		}
	}
}

// What arrives in part is not carried out: the plugin died while it gave leave.
func TestCutOrder(t *testing.T) {
	t.Parallel()
	whole := Order([]string{"/bin/rm", "-r", "/tmp/x/cache."}, []string{"A=1."}, &Identity{UID: 65534, GID: 65534})
	for n := range len(whole) {
		if o, ok := parse(whole[:n]); ok {
			t.Errorf("the first %d of %d bytes are the order to run %q", n, len(whole), o.argv)
		}
	}
	for _, ids := range []string{"i1\x00", "i-1\x00i1\x00", "i4294967296\x00i1\x00", "i\x00i1\x00"} {
		if _, ok := parse([]byte("a/bin/true\x00" + ids + ".")); ok {
			t.Errorf("the user %q is obeyed", ids)
		}
	}
}
