package testrun

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Backtest is what runbooks would have decided over a window of recorded metrics. It is open-loop: the recording does not react to an action, so a
// symptom goes on although it was acted on, and a verdict says what the metrics did without it.
type Backtest struct {
	From  time.Time     `json:"from"`
	To    time.Time     `json:"to"`
	Step  time.Duration `json:"step"`
	Ticks int           `json:"ticks"`
	// Spans are what was seen and decided of each target that was not healthy throughout, each for as long as it stayed the same.
	Spans []Span `json:"spans"`
	// Notices are how often somebody would have been told something.
	Notices  int      `json:"notices"`
	Problems []string `json:"problems,omitempty"` // of runs, each once
	Warnings []string `json:"warnings,omitempty"` // about the recordings
}

// Span is one decision about one target, from the first tick on which it was taken to the last.
type Span struct {
	Runbook   string          `json:"runbook"`
	Target    string          `json:"target"`
	From      time.Time       `json:"from"`
	To        time.Time       `json:"to"`
	Ticks     int             `json:"ticks"`
	Condition trace.Condition `json:"condition"`
	Outcome   trace.Outcome   `json:"outcome,omitempty"` // of the evaluation, "" if there was none
	Refused   []string        `json:"refused,omitempty"` // by which guards
	Actions   []string        `json:"actions,omitempty"` // that would have been done
	Reason    string          `json:"reason"`
	Episode   string          `json:"episode,omitempty"`
}

// same says whether the decision of the next tick is the same one.
func (s Span) same(o Span) bool {
	return s.Condition == o.Condition && s.Outcome == o.Outcome && slices.Equal(s.Refused, o.Refused) && len(s.Actions) == 0 && len(o.Actions) == 0 && s.Episode == o.Episode
}

// BacktestOptions say what is replayed.
type BacktestOptions struct {
	Runbooks []string // relative to the project
	Data     []recorded.Recording
	Rules    []string // rule files of Prometheus, relative to the project
	From, To time.Time
	Step     time.Duration
	Mode     guard.Mode // whatever the runbooks say
	// EachQuery asks every query at every tick, to see that the decisions are the same.
	EachQuery bool
	// Progress is told of each tick.
	Progress func(done, all int)
}

// RunBacktest replays the window: at every step one run of the engine with its guards and records, as a scheduler would have started it. From and To are those of the data
// if they are zero.
func RunBacktest(ctx context.Context, p *Project, o BacktestOptions) (*Backtest, error) {
	if o.Step < time.Second {
		return nil, problem.New(problem.Usage, "--step must be at least 1s, got %s", value.FormatDuration(o.Step))
	}
	w, err := newWorld(p, ".")
	if err != nil {
		return nil, err
	}
	defer w.close()
	var from, to time.Time
	for _, rec := range o.Data {
		loaded, err := w.load(rec)
		if err != nil {
			return nil, err
		}
		if from.IsZero() || loaded.Begin.Before(from) {
			from = loaded.Begin
		}
		if loaded.End.After(to) {
			to = loaded.End
		}
	}
	for _, name := range o.Rules {
		if err := w.addRules("//" + name); err != nil {
			return nil, err
		}
	}
	if o.From.IsZero() {
		o.From = from
	}
	if o.To.IsZero() {
		o.To = to
	}
	if !o.From.Before(o.To) {
		return nil, problem.New(problem.Usage, "the window from %s to %s is empty", o.From.Format(time.RFC3339), o.To.Format(time.RFC3339)).
			WithHint("the data is from %s to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	if len(o.Rules) == 0 && !o.EachQuery { // rules write into the database as time goes on
		w.memo = newMemo(w.db, o.Step, o.To)
		defer w.memo.end()
		w.foresight = &foresight{memo: w.memo, settings: w.settings, known: map[string]outlook{}}
	}
	b := &Backtest{From: o.From, To: o.To, Step: o.Step, Spans: []Span{}, Warnings: w.warnings}
	open := map[string]map[string]int{} // the last span of each target, by runbook
	all := int(o.To.Sub(o.From)/o.Step) + 1
	for at := o.From; !at.After(o.To); at = at.Add(o.Step) {
		if err := ctx.Err(); err != nil {
			return b, err
		}
		w.now = at
		if w.memo != nil {
			w.memo.tick()
		}
		r, err := w.tick(ctx, o.Runbooks, o.Mode)
		if err != nil {
			return b, err
		}
		b.Ticks++
		b.take(r, open)
		if o.Progress != nil {
			o.Progress(b.Ticks, all)
		}
		w.runs = w.runs[:0] // what one run saw is in the spans; a month of traces would be gigabytes
	}
	b.Notices = len(w.told)
	return b, nil
}

// take adds what one run has decided.
func (b *Backtest) take(r *trace.Run, open map[string]map[string]int) {
	say := func(p *problem.Problem) {
		if p != nil && !slices.Contains(b.Problems, p.Error()) && len(b.Problems) < 20 {
			b.Problems = append(b.Problems, p.Error())
		}
	}
	for _, p := range r.Problems {
		say(p)
	}
	for _, rb := range r.Runbooks {
		say(rb.Problem)
		last := open[rb.Name]
		if last == nil {
			last = map[string]int{}
			open[rb.Name] = last
		}
		if rb.Due && rb.Problem == nil && rb.Fleet == nil {
			clear(last) // it was known that all are healthy
		}
		for _, t := range rb.Targets {
			i, known := last[t.Key]
			if t.Condition == trace.Healthy && t.Evaluation == nil {
				delete(last, t.Key)
				continue
			}
			s := spanOf(rb.Name, t, r.Started)
			if known && b.Spans[i].same(s) && r.Started.Sub(b.Spans[i].To) <= 2*b.Step {
				b.Spans[i].To, b.Spans[i].Ticks = r.Started, b.Spans[i].Ticks+1
				continue
			}
			last[t.Key] = len(b.Spans)
			b.Spans = append(b.Spans, s)
		}
	}
}

func spanOf(runbook string, t *trace.Target, at time.Time) Span {
	s := Span{Runbook: runbook, Target: t.Key, From: at, To: at, Ticks: 1, Condition: t.Condition, Reason: t.Why}
	ev := t.Evaluation
	if ev == nil {
		return s
	}
	s.Outcome, s.Reason, s.Episode = ev.Outcome, ev.Reason, ev.Episode
	for _, e := range ev.Events {
		if e.Action == nil {
			continue
		}
		if e.Action.State.Began() {
			s.Actions = append(s.Actions, show(record(typeAction, "name", text(e.Action.Action), "args", e.Action.Args)))
		}
		for _, x := range guard.Refused(e.Action.Verdicts) {
			if !slices.Contains(s.Refused, x.Guard) {
				s.Refused = append(s.Refused, x.Guard)
			}
		}
	}
	if s.Outcome == trace.Acted {
		s.Reason = strings.Join(s.Actions, ", ")
	}
	return s
}

// Count is how often each outcome was decided, in spans.
func (b *Backtest) Count() map[trace.Outcome]int {
	out := map[trace.Outcome]int{}
	for _, s := range b.Spans {
		if s.Outcome != "" {
			out[s.Outcome]++
		}
	}
	return out
}

// colours of the timeline, by what was decided or else seen.
var colours = []struct{ what, colour string }{
	{"acted", "#2a9d3a"},
	{"refused", "#e08a1e"},
	{"escalated", "#c0392b"},
	{"failed", "#7b2d8b"},
	{"in_doubt", "#7b2d8b"},
	{"nothing", "#4a7fb5"},
	{"skipped", "#b9c4cf"},
	{"sick", "#e8b4b0"},
	{"pending", "#f4e0b5"},
	{"unknown", "#d9d9d9"},
	{"missing", "#d9d9d9"},
}

// SVG draws the spans: one row for each target of each runbook, in the order in which they first show.
func (b *Backtest) SVG() string {
	const left, width, row, top = 260, 900, 18, 40
	var rows []string
	for _, s := range b.Spans {
		if key := s.Runbook + "  " + s.Target; !slices.Contains(rows, key) {
			rows = append(rows, key)
		}
	}
	height := top + row*len(rows) + 60
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="white"/>`+"\n", left+width+90, height)
	total := b.To.Sub(b.From).Seconds()
	x := func(t time.Time) float64 { return left + width*t.Sub(b.From).Seconds()/total }
	for i := range 7 {
		at := b.From.Add(b.To.Sub(b.From) * time.Duration(i) / 6)
		fmt.Fprintf(&out, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle" fill="#666">%s</text>`+"\n", x(at), top-8, x(at), top+row*len(rows), x(at), top-14, at.UTC().Format("01-02 15:04"))
	}
	for i, r := range rows {
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, top+row*i+12, escape(r))
	}
	for _, s := range b.Spans {
		y := top + row*slices.Index(rows, s.Runbook+"  "+s.Target)
		what := string(s.Outcome)
		if what == "" {
			what = string(s.Condition)
		}
		colour := "#999"
		for _, c := range colours {
			if c.what == what {
				colour = c.colour
			}
		}
		tip := fmt.Sprintf("%s %s, %s to %s: %s", s.Target, what, s.From.UTC().Format(time.DateTime), s.To.UTC().Format(time.DateTime), s.Reason)
		if len(s.Refused) > 0 {
			tip += " (" + strings.Join(s.Refused, ", ") + ")"
		}
		fmt.Fprintf(&out, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s</title></rect>`+"\n", x(s.From), y+2, max(2, x(s.To.Add(b.Step))-x(s.From)), row-4, colour, escape(tip))
	}
	for i, c := range colours {
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", left+i*95, height-34, c.colour, left+i*95+14, height-25, c.what)
	}
	fmt.Fprintf(&out, `<text x="%d" y="%d" fill="#666">open-loop: the recorded metrics do not react to an action</text></svg>`+"\n", left, height-8)
	return out.String()
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
