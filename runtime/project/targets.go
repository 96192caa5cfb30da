package project

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
)

// Targets are what a runbook is for: a fleet or a single target.
type Targets struct {
	ID     string           // digest of the resolved all and by: runbooks with the same share a fleet
	Sick   promexpr.Symptom // without Left if there is none: then the runbook's alert is the symptom, or a person
	Held   time.Duration
	MaxBad int // 0 if not said

	// A fleet:
	All *promexpr.Expr
	By  []string // sorted

	// A single target:
	Single bool
	Target action.Target
}

// maxHeld bounds the range query for a symptom's past.
const maxHeld = 7 * day

func (rb *Runbook) decodeTargets(d *decoder, r *value.Record) Targets {
	f := d.record(r)
	if d.err != nil {
		return Targets{}
	}
	t := Targets{Held: f.duration("held", 0, maxHeld), Single: r.Type == "single"}
	if !f.has("sick") {
		if rb.Every > 0 {
			f.fail("sick", "is missing").hint("say who is sick: sick = 'queue_depth > 1000'")
		}
	} else if sick := f.query("sick", rb.params); sick != nil {
		var err error
		if t.Sick, err = sick.Symptom(); err != nil {
			f.keepQuery("sick", err)
		} else if len(sick.Selectors()) == 0 {
			f.fail("sick", "reads no series: %s", sick)
		}
	}
	if t.Single {
		name := f.words("name")
		t.Target = action.Target{Key: targetKey([]string{"single"}, map[string]string{"single": name}), Name: name, Labels: f.labels("labels")}
		t.ID = fleetID("single", t.Target.Key)
		return t
	}
	t.MaxBad = f.integer("max_bad", 1, 1_000_000)
	t.By = f.strings("by")
	slices.Sort(t.By)
	if len(t.By) == 0 || t.By[0] == "" || slices.Contains(t.By, "__name__") {
		f.fail("by", "must name at least one label, and none may be empty").hint(`name the label that tells one target from another: by = "instance"`)
	}
	if len(slices.Compact(slices.Clone(t.By))) != len(t.By) {
		f.fail("by", "names a label twice: %s", strings.Join(t.By, ", "))
	}
	if t.All = f.query("all", rb.params); t.All != nil {
		switch {
		case !t.All.IsVector():
			f.fail("all", "must give one series for each member: %s does not", t.All).hint(`write a query such as up{job="worker"}`)
		case len(t.All.Selectors()) == 0:
			f.fail("all", "reads no series: %s", t.All)
		default:
			t.ID = fleetID(append([]string{t.All.String()}, t.By...)...)
		}
	}
	return t
}

func fleetID(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Quote(p)))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Target makes the target that a series of the fleet belongs to. All labels of the series are labels of the target.
func (rb *Runbook) Target(labels map[string]string) (action.Target, error) {
	if rb.Targets.Single {
		return rb.Targets.Target, nil
	}
	key, err := rb.Key(labels)
	if err != nil {
		return action.Target{}, err
	}
	names := make([]string, len(rb.Targets.By))
	for i, l := range rb.Targets.By {
		names[i] = labels[l]
	}
	own := cloneLabels(labels)
	delete(own, "__name__")
	return action.Target{Key: key, Name: strings.Join(names, "/"), Labels: own}, nil
}

// Key is the key of the target that a series with these labels belongs to.
func (rb *Runbook) Key(labels map[string]string) (string, error) {
	if rb.Targets.Single {
		return rb.Targets.Target.Key, nil
	}
	for _, l := range rb.Targets.By {
		if labels[l] == "" {
			return "", problem.New(problem.Query, "by: a series of the fleet has no label %q: %s%s", l, labelText(labels), problem.DidYouMean(l, sortedKeys(labels))).
				At(rb.Pos).WithHint("name labels that every series has, or keep the label in the query: sum by (%s) (...)", strings.Join(rb.Targets.By, ", "))
		}
	}
	return targetKey(rb.Targets.By, labels), nil
}

// targetKey is "label=value" of the labels of by, which are sorted, joined by a comma. A value that could be read as more than itself is quoted, so that two
// targets never have one key; all is printable ASCII.
func targetKey(by []string, labels map[string]string) string {
	if len(by) == 1 {
		return quoted(by[0]) + "=" + quoted(labels[by[0]])
	}
	parts := make([]string, 0, len(by))
	for _, l := range slices.Compact(slices.Clone(by)) {
		parts = append(parts, quoted(l)+"="+quoted(labels[l]))
	}
	return strings.Join(parts, ",")
}

func quoted(s string) string {
	if s == "" {
		return strconv.QuoteToASCII(s)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ', c > '~', c == ',', c == '=', c == '"', c == '\\':
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}

// KeyOf is the same for two sets of labels exactly if both belong to one target.
func (rb *Runbook) KeyOf(labels map[string]string) string {
	if len(rb.Targets.By) == 1 {
		return labels[rb.Targets.By[0]]
	}
	var b strings.Builder
	for _, l := range rb.Targets.By {
		b.WriteString(strconv.Quote(labels[l]))
	}
	return b.String()
}

// Matches says whether a series belongs to a target: it has the target's values of all labels of by. Everything that a single target's
// runbook asks for belongs to that.
func (rb *Runbook) Matches(t action.Target, labels map[string]string) bool {
	for _, l := range rb.Targets.By {
		if labels[l] != t.Labels[l] {
			return false
		}
	}
	return true
}

// Verification is what is needed to judge later whether a target is no longer sick.
func (rb *Runbook) Verification(t action.Target, sampling time.Duration) action.Verification {
	match := map[string]string{}
	for _, l := range rb.Targets.By {
		match[l] = t.Labels[l]
	}
	s := rb.Targets.Sick
	if s.Left == nil { // then there is what the action expects
		return action.Verification{Match: match, Held: rb.Targets.Held, Sampling: sampling}
	}
	return action.Verification{
		Expr: s.Left.String(), Op: s.Op, Threshold: s.Threshold, Match: match, Held: rb.Targets.Held, Sampling: sampling,
	}
}
