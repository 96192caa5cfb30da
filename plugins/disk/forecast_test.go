package disk

import (
	"testing"
	"time"
)

func TestExtrapolate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		used, free int64
		want       trend
	}{
		{2000, 5000, trend{1000, 2000, 100, true, 50 * time.Second}},
		{1000, 5000, trend{1000, 1000, 0, false, 0}},
		{500, 5000, trend{1000, 500, -50, false, 0}},
		{1001, 1 << 60, trend{1000, 1001, 0.1, true, 100 * 365 * 24 * time.Hour}}, // not longer than a person thinks
		{2000, 0, trend{1000, 2000, 100, true, 0}},
	} {
		if got := extrapolate(space{Used: 1000}, space{Used: c.used, Free: c.free}, 10*time.Second); got != c.want {
			t.Errorf("%d used, %d free: %+v, want %+v", c.used, c.free, got, c.want)
		}
	}
}
