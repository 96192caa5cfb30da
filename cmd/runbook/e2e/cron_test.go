//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
)

// cronAlone starts cron in a view of the file system in which the machine has no other jobs, and no other cron.
const cronAlone = `
set -e
mount --make-rprivate /
: >>/run/crond.pid
mount --bind "$1/pid" /run/crond.pid
mount --bind "$1/none" /etc/crontab
mount --bind "$1/jobs" /etc/cron.d
mount -t tmpfs tmpfs /var/spool/cron
exec cron -f
`

// cronLine is the line of docs/schedule.md, with this site in place of the paths there, root for its user, and a file for the system's log.
func (s *site) cronLine(log string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "schedule.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)\n## cron\n\n```\n([^\n]*)\n```\n").FindStringSubmatch(string(text))
	if m == nil {
		s.t.Fatal("docs/schedule.md has no line for cron")
	}
	line := strings.NewReplacer("/usr/local/bin/runbook", s.exe, "/etc/runbook", s.dir, "/var/lib/runbook", s.state,
		"  runbook  ", "  root  ", "logger -t runbook", "cat >>"+log).Replace(m[1])
	if !strings.HasPrefix(line, "* * * * *  root  "+s.exe) || !strings.HasSuffix(line, "cat >>"+log) {
		s.t.Fatalf("the line for cron is another than this test knows: %s", line)
	}
	return line + "\n"
}

// A real cron starts runs by the line of the docs, each minute, also while one is still at work: that one keeps its runbook.
func cronStarts(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": `ctx.exec.run("slow", reason = "queue stuck", timeout = "5m", within = "1h")`})
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.Mkdir(filepath.Join(dir, "jobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pid"), "")
	write(t, filepath.Join(dir, "none"), "")
	write(t, filepath.Join(dir, "jobs", "runbook"), s.cronLine(log))

	said := new(output)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", cronAlone, "cron", dir) //nolint:noctx // it is killed with its group
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: it takes root, and the packages cron and util-linux", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("cron said:\n%s\nthe runs said:\n%s", said, text)
		}
	})

	// Two minutes for what comes with the next one.
	waits := func(what string, done func() (string, bool)) {
		t.Helper()
		waitAtMost(t, 2*time.Minute, what, func() (bool, string, error) {
			seen, ok := done()
			return ok, seen, nil
		})
	}
	waits("a run to act", func() (string, bool) { began := s.lines("began"); return fmt.Sprint(began), len(began) == 1 })
	waits("another run to leave it to that one", func() (string, bool) {
		text, _ := os.ReadFile(log) // not there before a run says something
		return string(text), strings.Contains(string(text), "another run")
	})
	if began := s.lines("began"); len(began) != 1 {
		t.Errorf("began: %q", began)
	}
	s.letGo()
	waits("the action to be recorded", func() (string, bool) {
		acts := s.actions()
		return fmt.Sprintf("%+v", acts), len(acts) == 1 && acts[0].State == action.Succeeded
	})
	if ended := s.lines("ended"); len(ended) != 1 {
		t.Errorf("ended: %q", ended)
	}
}
