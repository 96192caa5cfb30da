package problem

import "testing"

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"metrics", "max_age", "sampling", "state", "cooldown", "by", "all"}
	for _, c := range []struct{ name, want string }{
		{"metrcs", "metrics"},
		{"Metrics", "metrics"},
		{"colodown", "cooldown"},
		{"maxage", "max_age"},
		{"stat", "state"},
		{"bye", "by"},
		{"x", ""},
		{"heartbeat", ""},
		{"", ""},
	} {
		if got := Nearest(c.name, names); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}
