package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/audit"
)

func auditCommand() spec {
	return spec{
		name: "audit", group: "Maintain", summary: "the log of what was recorded, in which a later change shows",
		about: `Whoever records an attempt, an action, a control, an approval, a run or another
project.star leaves an entry with the SHA-256 of the record and of the entry before.
docs/audit.md says what that proves, and what it cannot.`,
		example: "runbook audit list --kind halt",
		sub: []spec{
			{
				name: "list", summary: "list what was recorded, the newest first", takes: takesProject | takesState,
				about: `What was set and lifted, begun and ended, asked and answered. A KIND is approval,
attempt, breaker, change, control, halt, policy, run or step; all but run if none is
given. A halt is on record from the next run on.`,
				flags: []cli.Flag{
					&cli.StringFlag{Name: "kind", Usage: "only records of this `KIND`"},
					durationFlag("since", "only of the last `DURATION`, such as 2h or 7d"),
					&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"},
				},
				example: "runbook audit list --kind control --since 2d",
				run:     runAuditList,
			},
			{
				name: "verify", summary: "say what was changed, removed or put elsewhere", takes: takesProject | takesState,
				about: `Reads all records and the whole log. Exits 3 if anything does not fit, and names
it. Keep the head that it prints on another machine, and give it the next time:
who can write the store can write the whole log anew, but not that head.`,
				flags:   []cli.Flag{&cli.StringFlag{Name: "head", Usage: "`HEAD` that was kept elsewhere, such as 17:9f86d0..."}},
				example: "runbook audit verify --head 17:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
				run:     runAuditVerify,
			},
			{
				name: "export", summary: "write the log as JSON lines, with its head at the end", takes: takesProject | takesState,
				about: `One entry in a line, as it is stored: sha256sum of a line, without its newline,
is what the next one names as prev. FILE is made anew, or is - for standard output.`,
				args: "FILE", min: 1, max: 1,
				example: "runbook audit export audit.ndjson",
				run:     runAuditExport,
			},
		},
	}
}

// auditKinds are the kinds of records that the log is about.
var auditKinds = []string{"approval", "attempt", "breaker", "change", "control", "halt", "policy", "run", "step"}

type auditList struct {
	Items    []audit.Item `json:"items"`
	now      time.Time
	filtered bool
}

func runAuditList(ctx context.Context, c *call) (result, error) {
	kind, r := c.String("kind"), auditList{now: c.stdio.Now()}
	if kind != "" && !slices.Contains(auditKinds, kind) {
		return nil, problem.New(problem.Usage, "--kind: there is no kind %q%s", kind, problem.DidYouMean(kind, auditKinds)).WithHint("one of: %s", strings.Join(auditKinds, ", "))
	}
	if c.Int("limit") < 1 {
		return nil, problem.New(problem.Usage, "runbook audit list: --limit must be at least 1").WithHint("runbook audit list --help")
	}
	var since time.Time
	if d := c.Duration("since"); d > 0 {
		since = r.now.Add(-d)
	}
	r.filtered = kind != "" || !since.IsZero()
	err := c.withStore(ctx, "audit", func(st auditedStore) (err error) {
		r.Items, err = st.log.List(ctx, st, c.Int("limit"), since, func(w audit.Write) bool {
			is := auditKind(w.Key)
			return is == kind || kind == "" && is != "run" && slices.Contains(auditKinds, is)
		})
		return err
	})
	return r, err
}

func auditKind(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

func (r auditList) text(u *ui) {
	if len(r.Items) == 0 {
		u.Printf("%s\n", map[bool]string{false: "nothing is on record yet", true: "nothing of that is on record"}[r.filtered])
		return
	}
	var rows [][]string
	for _, i := range r.Items {
		rows = append(rows, []string{fmt.Sprint(i.N), stamp(i.At, r.now), auditKind(i.Key), i.What})
	}
	u.Table([]string{"ENTRY", "WHEN", "KIND", "WHAT"}, rows)
}

type auditResult struct{ *audit.Report }

func runAuditVerify(ctx context.Context, c *call) (result, error) {
	var n int
	var hash audit.Digest
	if head := c.String("head"); head != "" {
		var err error
		if n, hash, err = audit.ParseHead(head); err != nil {
			return nil, err
		}
	}
	var r *audit.Report
	err := c.withStore(ctx, "audit", func(st auditedStore) (err error) {
		r, err = st.log.Verify(ctx, st, n, hash)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(r.Findings) > 0 {
		return auditResult{r}, exitWith(problem.ExitFindings)
	}
	return auditResult{r}, nil
}

func (r auditResult) text(u *ui) {
	for _, f := range r.Findings {
		u.Printf("%s\n", f)
	}
	if r.More > 0 {
		u.Printf("... and %d more\n", r.More)
	}
	entries := fmt.Sprintf("%d entries", r.Entries)
	if r.Entries == 1 {
		entries = "1 entry"
	}
	if n := len(r.Findings) + r.More; n > 0 {
		u.Printf("%s in %s and %s\n", plural(n, "finding"), plural(r.Records, "record"), entries)
		return
	}
	u.Printf("%s and %s, and all of them fit\n", plural(r.Records, "record"), entries)
	if r.Head.N > 0 {
		u.Printf("head, to keep elsewhere: %s\n", r.Head)
	}
}

type auditExport struct {
	File string     `json:"file"`
	Head audit.Head `json:"head"`
}

func runAuditExport(ctx context.Context, c *call) (result, error) {
	r := auditExport{File: c.args[0]}
	err := c.withStore(ctx, "audit", func(st auditedStore) (err error) {
		if r.File == "-" {
			r.Head, err = st.log.Export(ctx, st, c.stdio.Out)
			return err
		}
		r.Head, err = exportTo(ctx, st, r.File)
		return err
	})
	if err != nil || r.File == "-" {
		return nil, err
	}
	return r, nil
}

// exportTo leaves no file that is half of the log.
func exportTo(ctx context.Context, st auditedStore, file string) (h audit.Head, err error) {
	fail := func(err error) error {
		return problem.Wrap(problem.Usage, err, "write %s", filepath.Base(file)).WithHint("name a file in a directory that can be written to")
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".audit-*")
	if err != nil {
		return h, fail(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	h, err = st.log.Export(ctx, st, f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return h, fail(err)
	}
	return h, nil
}

func (r auditExport) text(u *ui) {
	if r.Head.N == 0 {
		u.Printf("nothing is on record yet: %s is empty\n", r.File)
		return
	}
	u.Printf("wrote %s, up to entry %d\nhead: %s\n", r.File, r.Head.N, r.Head)
}
