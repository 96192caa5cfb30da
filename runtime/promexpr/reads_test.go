package promexpr

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReads(t *testing.T) {
	t.Parallel()
	at := time.Unix(1609746000, 0).UTC()
	for text, want := range map[string][]Read{
		`up`:                               {{Selector: "up", Named: true}},
		`rate(x{a="b"}[5m] offset 1h) / y`: {{Selector: `x{a="b"}`, Named: true, Back: 65 * time.Minute}, {Selector: "y", Named: true}},
		`max_over_time(rate(x[5m])[1h:1m] offset 1d)`: {{Selector: "x", Named: true, Back: 25*time.Hour + 5*time.Minute}},
		`x offset -5m`:                                   {{Selector: "x", Named: true}},
		`rate(x[$window])`:                               {{Selector: "x", Named: true, Back: 90 * time.Second}},
		`sum_over_time(x[1h] @ 1609746000)`:              {{Selector: "x", Named: true, Back: time.Hour, At: at}},
		`max_over_time((x offset 1m)[1h:] @ 1609746000)`: {{Selector: "x", Named: true, Back: 61 * time.Minute, At: at}},
		`{job="worker"}`:                                 {{Selector: `{job="worker"}`}},
		`{__name__=~"a|b"}`:                              {{Selector: `{__name__=~"a|b"}`}},
		`{__name__="a"}`:                                 {{Selector: `{__name__="a"}`, Named: true}},
		`1 + 2`:                                          nil,
	} {
		e, err := Parse(text, params)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, e.Reads()); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
}
