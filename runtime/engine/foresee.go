package engine

import (
	"math"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// Ahead is what the queries of a look at a fleet answer at the times From, From+Step, and so on: what a simulation knows beforehand.
type Ahead struct {
	From    time.Time
	Step    time.Duration
	Times   int
	Members []kit.Series   // the runbook's all
	Symptom []kit.Series   // the left side of its symptom, also at the steps of the grid before and between
	Ages    [][]kit.Series // each of the symptom's timestamps
}

// Outlook is at which of those times all is quiet: a look finds targets, and every one of them healthy.
type Outlook struct {
	quiet   []bool
	members map[string]column // by the key of the target
}

// Quiet says whether all is at time number i; the zero Outlook knows of none.
func (o Outlook) Quiet(i int) bool { return i < len(o.quiet) && o.quiet[i] }

// There says whether there is a target with this key then.
func (o Outlook) There(key string, i int) bool { return o.members[key].at(i) }

// Foresee says what judge says, of all times at once. Where a single series for each target is not enough to know, no time is quiet.
func Foresee(rb *project.Runbook, maxAge time.Duration, a Ahead) Outlook {
	out := make([]bool, a.Times)
	if rb.Alert != nil || rb.Targets.Single || rb.Targets.Sick.Left == nil {
		return Outlook{quiet: out}
	}
	members, plain := a.columns(rb, a.Members)
	symptom, also := a.columns(rb, a.Symptom)
	if !plain || !also {
		return Outlook{quiet: out} // series to be joined, or an error
	}
	ages := make([]measuredAt, len(a.Ages))
	for i, series := range a.Ages {
		ages[i] = a.measured(rb, series)
	}
	troubled := make([]bool, a.Times)
	for key, member := range members {
		s, own := symptom[key], make([]column, len(ages))
		for n, x := range ages {
			own[n] = x.own[member.name]
		}
		for i, there := range member.there {
			if !there || troubled[i] {
				continue
			}
			out[i] = true
			troubled[i] = !s.at(i) || math.IsNaN(s.values[i]) || math.IsInf(s.values[i], 0) || rb.Targets.Sick.Holds(s.values[i])
			for n, x := range ages {
				newest := x.newest[i] // what is no time is not fresh
				if own[n].at(i) {
					newest = own[n].values[i]
				} else if x.carries[i] {
					newest = 0
				}
				troubled[i] = troubled[i] || newest == 0 || a.time(i).Sub(seconds(newest)) > maxAge
			}
			troubled[i] = troubled[i] || len(ages) == 0
		}
	}
	for i := range out {
		out[i] = out[i] && !troubled[i]
	}
	return Outlook{out, members}
}

func (a Ahead) time(i int) time.Time { return a.From.Add(time.Duration(i) * a.Step) }

// index is which of the times one is, -1 if none.
func (a Ahead) index(at time.Time) int {
	since := at.Sub(a.From)
	if i := int(since / a.Step); since >= 0 && since%a.Step == 0 && i < a.Times {
		return i
	}
	return -1
}

// column is what one series has at each of the times.
type column struct {
	name   string // KeyOf its labels
	there  []bool
	values []float64
}

func (c column) at(i int) bool { return c.there != nil && c.there[i] }

func (a Ahead) column(rb *project.Runbook, s kit.Series) column {
	c := column{rb.KeyOf(s.Labels), make([]bool, a.Times), make([]float64, a.Times)}
	for _, p := range s.Points {
		if i := a.index(p.At); i >= 0 {
			c.there[i], c.values[i] = true, p.Value
		}
	}
	return c
}

// columns are those of the series by the key of their target; false if two have the same, or one lacks a label.
func (a Ahead) columns(rb *project.Runbook, series []kit.Series) (map[string]column, bool) {
	out := make(map[string]column, len(series))
	for _, s := range series {
		key, err := rb.Key(s.Labels)
		if _, twice := out[key]; twice || err != nil {
			return nil, false
		}
		out[key] = a.column(rb, s)
	}
	return out, true
}

// measuredAt is stamped at each of the times, in seconds since 1970; 0 for never.
type measuredAt struct {
	own     map[string]column // by name
	newest  []float64
	carries []bool
}

func (a Ahead) measured(rb *project.Runbook, series []kit.Series) measuredAt {
	out := measuredAt{own: make(map[string]column, len(series)), newest: make([]float64, a.Times), carries: make([]bool, a.Times)}
	for _, s := range series {
		c, named := a.column(rb, s), carries(rb, s.Labels)
		for i, there := range c.there {
			if !there {
				continue
			}
			out.newest[i] = max(out.newest[i], c.values[i])
			out.carries[i] = out.carries[i] || named
			if other, ok := out.own[c.name]; ok && other.there[i] {
				c.values[i] = max(c.values[i], other.values[i])
			}
		}
		if other, ok := out.own[c.name]; ok {
			for i, there := range other.there {
				if there && !c.there[i] {
					c.there[i], c.values[i] = true, other.values[i]
				}
			}
		}
		out.own[c.name] = c
	}
	return out
}
