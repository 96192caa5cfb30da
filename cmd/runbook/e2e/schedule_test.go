//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/systemd/systemdtest"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// scheduledUnits are the units of docs/schedule.md, with this site in place of the paths there, its own user, each second, and without what they would start of
// a machine.
func (s *site) scheduledUnits() map[string]string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "schedule.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	here := strings.NewReplacer("/usr/local/bin/runbook", s.exe, "/etc/runbook", s.dir, "/var/lib/runbook", s.state,
		"User=runbook\n", "", "StateDirectory=runbook\n", "", "OnCalendar=minutely", "OnCalendar=*-*-* *:*:*")
	units := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)`/etc/systemd/system/(runbook[.][a-z]+)`\n```ini\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		units[m[1]] = here.Replace(m[2])
		units[m[1]+".d/test.conf"] = "[Unit]\nDefaultDependencies=no\n"
	}
	if len(units) != 4 || !strings.Contains(units["runbook.service"], s.state) || !strings.Contains(units["runbook.timer"], "*:*:*") {
		s.t.Fatalf("docs/schedule.md has other units than this test knows: %v", units)
	}
	return units
}

// The units of the docs start runs, and a stop of theirs lets the action in progress end, and records it.
func scheduled(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	pid := systemdtest.Start(t, s.scheduledUnits(), os.TempDir())
	systemctl := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "nsenter", append([]string{"--target", pid, "--mount", "--pid", "systemctl"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	is := func(property, want string) {
		t.Helper()
		s.wait(property+" to be "+want, func() (bool, string, error) {
			got := strings.TrimSpace(systemctl("show", "--value", "--property", property, "runbook.service"))
			return got == want, got, nil
		})
	}
	systemctl("start", "runbook.timer")
	s.begins(1)
	systemctl("stop", "runbook.timer")
	systemctl("stop", "--no-block", "runbook.service")
	is("SubState", "stop-sigterm")
	s.letGo()
	is("ActiveState", "inactive") // and not failed
	if out, _ := s.does(problem.ExitOK, "runs"); !strings.Contains(out, "  130   worker") {
		t.Errorf("the run that was stopped:\n%s", out)
	}
	if acts := s.actions(); len(acts) != 1 || acts[0].State != action.Succeeded {
		t.Errorf("actions: %+v", acts)
	}
	if ended := s.lines("ended"); len(ended) != 1 {
		t.Errorf("ended: %q", ended)
	}
}
