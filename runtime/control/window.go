package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Disable is a person's word that something is not to be acted on, or not to act.
type Disable struct {
	Name string `json:"name"` // by which it is lifted; several stack
	Selector
	Reason string    `json:"reason"`
	By     string    `json:"by"` // Who()
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // zero: until a person lifts it
}

// Live says whether it still holds. Its end is a moment of the calendar, so wall time decides.
func (d Disable) Live(now time.Time) bool { return d.Until.IsZero() || now.Before(d.Until) }

// Window is a time in which nothing acts on what it covers: once, or each week. One that covers everything is a change freeze.
type Window struct {
	Name string `json:"name"`
	Selector
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"` // Who(), or where project.star says it
	Made   time.Time `json:"made,omitzero"`

	// Once: [Start, End).
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`

	// Weekly: on each of Days, from At (of the clock on the wall of Zone) for Length.
	Days   []time.Weekday `json:"days,omitempty"`
	At     time.Duration  `json:"at,omitempty"` // since midnight
	Length time.Duration  `json:"length,omitempty"`
	Zone   string         `json:"zone,omitempty"` // of the IANA database; "" is UTC
}

// MaxWindow is the longest that a weekly window may be: longer than a week would be always.
const MaxWindow = 7*24*time.Hour - time.Minute

// Covering says whether the window is open at a moment, and until when. A zone that this machine does not know makes it
// open: it cannot be told that it is not.
func (w Window) Covering(now time.Time) (until time.Time, open bool) {
	if len(w.Days) == 0 {
		return w.End, !now.Before(w.Start) && (w.End.IsZero() || now.Before(w.End))
	}
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return time.Time{}, true
	}
	local := now.In(zone)
	for back := 0; back <= int(w.Length/(24*time.Hour))+1; back++ {
		day := time.Date(local.Year(), local.Month(), local.Day()-back, 0, 0, 0, 0, zone)
		if !slices.Contains(w.Days, day.Weekday()) {
			continue
		}
		// By the wall clock: 02:00 is 02:00 also on the day on which the clocks change.
		start := time.Date(day.Year(), day.Month(), day.Day(), 0, int(w.At/time.Minute), 0, 0, zone)
		if end := start.Add(w.Length); !now.Before(start) && now.Before(end) && end.After(until) {
			until, open = end.UTC(), true
		}
	}
	return until, open
}

// Over says whether it will never be open again.
func (w Window) Over(now time.Time) bool {
	return len(w.Days) == 0 && !w.End.IsZero() && !now.Before(w.End)
}

// Check refuses a window that can never open, or never closes.
func (w Window) Check() error {
	if len(w.Days) == 0 {
		if w.Start.IsZero() || w.End.IsZero() || !w.End.After(w.Start) {
			return problem.New(problem.Usage, "it must end after it begins")
		}
		return nil
	}
	if w.Length < time.Minute || w.Length > MaxWindow {
		return problem.New(problem.Usage, "it must be from 1m to less than 7d long")
	}
	if w.At < 0 || w.At >= 24*time.Hour {
		return problem.New(problem.Usage, "it must begin between 00:00 and 23:59")
	}
	if _, err := time.LoadLocation(w.Zone); err != nil || w.Zone == "Local" {
		return problem.New(problem.Usage, "there is no time zone %q", w.Zone).WithHint("write one of the IANA database, such as Europe/Berlin, or UTC")
	}
	return nil
}

// When says in words when it is open.
func (w Window) When() string {
	if len(w.Days) == 0 {
		return fmt.Sprintf("%s to %s", w.Start.UTC().Format("2006-01-02 15:04Z"), w.End.UTC().Format("2006-01-02 15:04Z"))
	}
	days := make([]string, len(w.Days))
	for i, d := range w.Days {
		days[i] = strings.ToLower(d.String()[:3])
	}
	zone := w.Zone
	if zone == "" {
		zone = "UTC"
	}
	return fmt.Sprintf("%s %02d:%02d for %s, %s", strings.Join(days, ","), w.At/time.Hour, w.At%time.Hour/time.Minute, span(w.Length), zone)
}

// ParseDays reads days of the week: "sat", "sunday".
func ParseDays(names []string) ([]time.Weekday, error) {
	var days []time.Weekday
	for _, name := range names {
		found := false
		for d := time.Sunday; d <= time.Saturday; d++ {
			full := strings.ToLower(d.String())
			if text := strings.ToLower(strings.TrimSpace(name)); text == full || text == full[:3] {
				found = true
				if !slices.Contains(days, d) {
					days = append(days, d)
				}
			}
		}
		if !found {
			return nil, problem.New(problem.Usage, "%q is not a day of the week", name).WithHint("write mon, tue, wed, thu, fri, sat or sun")
		}
	}
	if len(days) == 0 {
		return nil, problem.New(problem.Usage, "no day of the week is named").WithHint("write mon, tue, wed, thu, fri, sat or sun")
	}
	return days, nil
}

// ParseTimeOfDay reads "02:00".
func ParseTimeOfDay(text string) (time.Duration, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, problem.New(problem.Usage, "%q is not a time of day", text).WithHint(`write it like "02:00"`)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// ParseMoment reads a moment: RFC 3339, or a date with or without a time of day on the wall clock of a zone.
func ParseMoment(text, zone string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return time.Time{}, problem.New(problem.Usage, "there is no time zone %q", zone).WithHint("write one of the IANA database, such as Europe/Berlin, or UTC")
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, loc); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, problem.New(problem.Usage, "%q is not a moment", text).WithHint(`write it like "2026-12-20 22:00", or 2026-12-20T22:00:00Z`)
}
