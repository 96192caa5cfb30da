package cli

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// page is a page of the docs that a reader follows with a terminal and an editor. Where the editor goes is said in comments before a block:
//
//	<!-- FILE -->                            the block is the file
//	<!-- FILE after: LINE [becomes OTHER] --> the block goes below the line that contains LINE
//	<!-- FILE at its end -->
//	<!-- FILE: OLD becomes NEW -->           without a block
type page struct {
	t               *testing.T
	path            string // below docs
	dir             string // where the reader is
	outputs, inputs *strings.Replacer
	enter           func(p *page, dir string) // after cd
}

var (
	step = regexp.MustCompile("(?ms)^<!-- ([\\w./-]+)(: | after: | at its end)?(.*?) -->\n(?:```python\n(.*?)^```$)?|^```console\n\\$ (.*?)\n(.*?)^```$|^    cd (\\S+)$")
	// differing are parts of an output that differ each time, besides those of the page of questions.
	differing = []struct{ pattern, shown string }{
		{`\b(\d{8})-(\d{6})\.\d{3}-[A-Z0-9]{6}\b`, "20260301-102000.000-K3VQ7A"},
		{`\bmeasured [0-9.]+m?s ago\b`, "measured 0s ago"},
	}
)

// TestTutorial follows docs/tutorial.md on a machine that has nothing yet.
func TestTutorial(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	server := relays(t)
	t.Cleanup(func() { removeGates(filepath.Join(root, "shop")) })
	p := &page{
		t: t, path: "tutorial.md", dir: root, outputs: strings.NewReplacer(root, "/home/ann", server, "http://localhost:9090"), inputs: strings.NewReplacer(),
		enter: func(p *page, dir string) {
			p.dir = filepath.Join(root, dir)
			p.edit("project.star", func(s string) string { return strings.Replace(s, "http://localhost:9090", server, 1) })
		},
	}
	p.follow(8)
}

// TestShadowToAuto follows docs/guides/from-shadow-to-auto.md where a runbook has run for a while.
func TestShadowToAuto(t *testing.T) {
	t.Parallel()
	in := newIncident(t)
	p := &page{t: t, path: "guides/from-shadow-to-auto.md", dir: in.dir, outputs: in.names, inputs: in.shown}
	p.follow(2)
}

// follow does what the page says, and compares what each command prints with what the page has.
func (p *page) follow(least int) {
	p.t.Helper()
	path := filepath.Join("..", "..", "..", "docs", filepath.FromSlash(p.path))
	text, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	commands := 0
	got := step.ReplaceAllStringFunc(string(text), func(s string) string {
		m := step.FindStringSubmatch(s)
		switch {
		case m[7] != "":
			p.enter(p, m[7])
		case m[5] != "":
			commands++
			return "```console\n$ " + m[5] + "\n" + p.run(m[5]) + "```"
		default:
			p.write(m[1], m[2], m[3], m[4])
		}
		return s
	})
	if commands < least {
		p.t.Fatalf("%d commands", commands)
	}
	if *rewrite {
		write(p.t, path, got)
		return
	}
	if d := cmp.Diff(string(text), got); d != "" {
		p.t.Errorf("docs/%s shows something else (go test ./cmd/runbook/cli -run %s -rewrite writes it):\n%s", p.path, p.t.Name(), d)
	}
}

// edit changes a file.
func (p *page) edit(name string, change func(string) string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	old, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	changed := change(string(old))
	if changed == string(old) {
		p.t.Fatalf("%s: the page changes nothing in it:\n%s", name, old)
	}
	write(p.t, path, changed)
}

// write does what a comment says.
func (p *page) write(name, how, what, block string) {
	p.t.Helper()
	old, becomes, changes := strings.Cut(what, " becomes ")
	switch how {
	case "":
		write(p.t, filepath.Join(p.dir, name), block)
	case ": ":
		p.edit(name, func(s string) string { return strings.Replace(s, old, becomes, 1) })
	case " at its end":
		p.edit(name, func(s string) string { return s + block })
	default:
		p.edit(name, func(s string) string {
			before, rest, ok := strings.Cut(s, old)
			if !ok {
				p.t.Fatalf("%s: no line has %q", name, old)
			}
			line, rest, _ := strings.Cut(rest, "\n")
			if changes {
				old = becomes
			}
			return before + old + line + "\n" + docString(block, rest)
		})
	}
}

// docString puts a block below a function's first line, or below its documentation.
func docString(block, rest string) string {
	if first, after, _ := strings.Cut(rest, "\n"); strings.HasPrefix(strings.TrimSpace(first), `"""`) {
		return first + "\n" + block + after
	}
	return block + rest
}

// run runs a command, and returns what a person sees of it.
func (p *page) run(command string) string {
	p.t.Helper()
	exe, err := exec.LookPath("runbook") // put there by testscript.Main
	if err != nil {
		p.t.Fatal(err)
	}
	args := strings.Fields(p.inputs.Replace(command))
	if args[0] != "runbook" {
		p.t.Fatalf("the page has another command: %s", command)
	}
	cmd := exec.CommandContext(p.t.Context(), exe, args[1:]...)
	cmd.Dir, cmd.Env = p.dir, append(cmd.Environ(), "TZ=UTC")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 4 || cmd.ProcessState.ExitCode() == 2 {
		p.t.Fatalf("%s: %v\n%s%s", command, err, &out, &errs)
	}
	said := p.outputs.Replace(out.String() + errs.String())
	for _, v := range append(slices.Clone(differing), same...) {
		said = regexp.MustCompile(v.pattern).ReplaceAllString(said, v.shown)
	}
	return said
}

// relays serves the metrics of three mail relays, of which mail2 has a long queue and sends nothing, and of their mail server.
func relays(t *testing.T) string {
	t.Helper()
	db := recorded.New(recorded.Options{})
	now := time.Now()
	sample := func(name, job, instance string, at time.Time, v float64) {
		if err := db.Append(map[string]string{"__name__": name, "job": job, "instance": instance}, at, v); err != nil {
			t.Fatal(err)
		}
	}
	for at := now.Add(-20 * time.Minute); at.Before(now.Add(time.Minute)); at = at.Add(15 * time.Second) {
		sample("up", "mailserver", "smtp1", at, 1)
		for i, waiting := range []float64{3, 1260, 11} {
			instance := fmt.Sprintf("mail%d", i+1)
			sample("up", "relay", instance, at, 1)
			sample("mail_queue_length", "relay", instance, at, waiting)
			sent := at.Sub(now.Add(-time.Hour)).Seconds()
			if waiting > 1000 {
				sent = 70
			}
			sample("mails_sent_total", "relay", instance, at, sent)
		}
	}
	s := httptest.NewServer(db.Handler())
	t.Cleanup(s.Close)
	return s.URL
}
