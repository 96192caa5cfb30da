package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/audit"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

const (
	keyPolicy  = "policy"
	keyHalts   = "idx/halts"
	prefixHalt = "halt/"
)

// NotedKeys are read by NotePolicy and NoteHalts.
func NotedKeys() []string { return []string{keyPolicy, keyHalts} }

// policyDoc is the project.star under which runs decide.
type policyDoc struct {
	V      int       `json:"v"` // 1
	Digest string    `json:"digest"`
	Since  time.Time `json:"since"`
	By     string    `json:"by"` // user@host that ran the first run under it
}

// haltsDoc says how much of the history of halts, which is kept outside the store, is on record.
type haltsDoc struct {
	V    int               `json:"v"` // 1
	N    int               `json:"n"`
	Last control.HaltEvent `json:"last"`
}

// NotePolicy records, for the audit log, under which project.star runs decide, if it is another one than before.
func NotePolicy(tx store.Tx, policy, by string, now time.Time) error {
	was, err := Read[policyDoc](tx, keyPolicy)
	if err != nil || was.Digest == policy {
		return err
	}
	return Write(tx, keyPolicy, policyDoc{V: 1, Digest: policy, Since: now, By: by})
}

// NoteHalts records halts and resumes, which are kept outside the store, for the audit log: each once. halts is the whole history.
func NoteHalts(tx store.Tx, halts []control.HaltEvent, now time.Time) error {
	seen, err := Read[haltsDoc](tx, keyHalts)
	if err != nil || len(halts) == seen.N && (seen.N == 0 || same(halts[seen.N-1], seen.Last)) {
		return err
	}
	from := seen.N
	if len(halts) < from || from > 0 && !same(halts[from-1], seen.Last) {
		// Somebody has changed the history: what it says now is recorded beside what it said.
		from = 0
		if err := Write(tx, prefixHalt+stamp(now)+"-changed", control.HaltEvent{What: "halts.log was changed", At: now, Reason: fmt.Sprintf("%d were on record, and it has %d", seen.N, len(halts))}); err != nil {
			return err
		}
	}
	for i := from; i < len(halts); i++ {
		if err := Write(tx, fmt.Sprintf("%s%s-%d", prefixHalt, stamp(halts[i].At), i), halts[i]); err != nil {
			return err
		}
	}
	doc := haltsDoc{V: 1, N: len(halts)}
	if doc.N > 0 {
		doc.Last = halts[doc.N-1]
	}
	return Write(tx, keyHalts, doc)
}

func stamp(t time.Time) string { return t.UTC().Format("20060102-150405.000000000") }

func same(a, b control.HaltEvent) bool {
	return a.What == b.What && a.At.Equal(b.At) && a.By == b.By && a.Reason == b.Reason && a.Until.Equal(b.Until)
}

// AuditLog is the audit log of this store: it covers all records, and the documents that stop actions.
func AuditLog(now func() time.Time) audit.Log {
	return audit.Log{Covers: audited, Describe: describe, Now: now}
}

func audited(key string) bool {
	switch kind, _, _ := strings.Cut(key, "/"); kind {
	case "attempt", "step", "approval", "change", "control", "halt", "run", KeyBreaker, keyPolicy:
		return true
	}
	return key == KeyControls
}

// describe says in a line what a record says, without anything that may be secret: arguments are left out.
func describe(key string, val []byte) string {
	if val == nil {
		return "removed"
	}
	kind, rest, _ := strings.Cut(key, "/")
	if kind == "run" {
		return "run " + rest // what it found is much to read, and said with its id: runbook explain
	}
	text, err := descriptions[kind](val)
	if err != nil {
		return "cannot be read"
	}
	return text
}

var descriptions = map[string]func(val []byte) (string, error){
	"attempt": func(val []byte) (string, error) {
		a, err := action.DecodeAttempt(val)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("attempt %s of %s on %s is %s%s", a.ID, a.Runbook, a.Target.Name, a.State, why(a.History)), nil
	},
	"step": func(val []byte) (string, error) {
		s, err := action.DecodeStep(val)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s on %s is %s%s", s.Action, s.ID, s.Identity.Target, s.State, why(s.History)), nil
	},
	"approval": of(func(a guard.Approval) string {
		if a.Answer == "" {
			return fmt.Sprintf("%s asks for an answer about %s", a.Runbook, a.Target.Name)
		}
		return fmt.Sprintf("%s by %s: %s on %s", a.Answer, a.By, a.Runbook, a.Target.Name)
	}),
	"change":   of(func(c Change) string { return fmt.Sprintf("deploy of %s told by %s", c.Component, c.By) }),
	"control":  of(func(c ControlEvent) string { return said(c.What+" "+c.Name, c.By, c.Reason) }),
	"halt":     of(func(h control.HaltEvent) string { return said(h.What, h.By, h.Reason) }),
	KeyBreaker: of(func(d breaker.Doc) string { return said("breaker is "+string(d.State), d.By, d.Reason) }),
	keyPolicy: of(func(p policyDoc) string {
		return fmt.Sprintf("runs decide by project.star %.12s, the first by %s", p.Digest, p.By)
	}),
	"idx": of(func(c Controls) string {
		return fmt.Sprintf("disables that are set: %d, maintenance windows: %d", len(c.Disables), len(c.Windows))
	}),
}

func of[T any](say func(T) string) func([]byte) (string, error) {
	return func(val []byte) (string, error) {
		var v T
		if err := json.Unmarshal(val, &v); err != nil {
			return "", err
		}
		return say(v), nil
	}
}

func said(what, by, reason string) string {
	if by != "" {
		what += " by " + by
	}
	if reason != "" {
		what += ": " + clip(reason)
	}
	return what
}

func why(history []action.Change) string {
	if len(history) == 0 || history[len(history)-1].Why == "" {
		return ""
	}
	return ": " + clip(history[len(history)-1].Why)
}

// clip keeps an entry of the log short.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
