package cli

import (
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// howLong writes a duration for people, to two units: "4m", "1h30m", "2d3h", "350ms".
func howLong(d time.Duration) string {
	if d < 0 {
		return "-" + howLong(-d)
	}
	const day = 24 * time.Hour
	two := func(big, small time.Duration, b, s string) string {
		d := d.Truncate(small)
		if rest := d % big / small; rest > 0 {
			return fmt.Sprintf("%d%s%d%s", d/big, b, rest, s)
		}
		return fmt.Sprintf("%d%s", d/big, b)
	}
	switch {
	case d >= day:
		return two(day, time.Hour, "d", "h")
	case d >= time.Hour:
		return two(time.Hour, time.Minute, "h", "m")
	case d >= time.Minute:
		return two(time.Minute, time.Second, "m", "s")
	case d >= 10*time.Second || d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	}
	return "under 1ms"
}

// when writes a time relative to now: "4m ago", "in 26m", "now", and the zero time as "never".
func when(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d >= time.Second:
		return howLong(d.Truncate(time.Second)) + " ago"
	case d <= -time.Second:
		return "in " + howLong(-d.Truncate(time.Second))
	}
	return "now"
}

// moment reads the time that a flag gives, or how long ago it was; the zero time if there is none.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), nil
	}
	if ago, err := value.ParseDuration(text); err == nil {
		return now.Add(-ago).UTC(), nil
	}
	return time.Time{}, problem.New(problem.Usage, "--%s: %q is no time", flag, text).WithHint("write it as 2026-03-01T10:00:00Z, or how long ago that is: 6h")
}

// stamp writes an instant for a list: in the zone of whoever reads it, with its offset, and how long ago it was.
func stamp(t, now time.Time) string {
	return t.In(now.Location()).Format("2006-01-02 15:04:05 -07:00") + " (" + when(t, now) + ")"
}

// clockTime writes an instant in full, in UTC, as logs and dashboards have it.
func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
