package process

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
)

func TestAlive(t *testing.T) {
	t.Parallel()
	self := Self()
	if self.Boot == "" || self.Start == 0 || self.PID != os.Getpid() || self.Host == "" {
		t.Fatalf("Self() = %+v", self)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	with := func(f func(*action.Owner)) action.Owner { o := self; f(&o); return o }
	for _, c := range []struct {
		name string
		o    action.Owner
		want Liveness
	}{
		{"itself", self, Live},
		{"no owner", action.Owner{}, Dead},
		{"pid 0, which is nobody", with(func(o *action.Owner) { o.PID = 0 }), Dead},
		{"pid -1, which is everybody", with(func(o *action.Owner) { o.PID = -1 }), Dead},
		{"ended", with(func(o *action.Owner) { o.PID = ended.Process.Pid }), Dead},
		{"pid reused", with(func(o *action.Owner) { o.Start-- }), Dead},
		{"another boot", with(func(o *action.Owner) { o.Boot = "other" }), Dead},
		{"another boot of another host", with(func(o *action.Owner) { o.Boot, o.Host = "other", "other" }), Dead},
		{"the host was renamed", with(func(o *action.Owner) { o.Host = joinHost("other", space(o.Host)) }), Live},
		{"another container", with(func(o *action.Owner) { o.Host = "other/pid:[1]" }), Unseen},
	} {
		if got := Look(c.o); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := Alive(c.o); got != (c.want != Dead) {
			t.Errorf("%s: Alive %v with %s", c.name, got, c.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const after = " 1 77 77 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n"
	for name, text := range map[string]string{"plain": "9 (sh) S", "hostile": "9 (a) R 1 (b\n) S", "empty": "9 () D"} {
		got, err := parseStat([]byte(text + after))
		if err != nil || got != (stat{77, 4242}) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := parseStat([]byte("9 (sh) Z" + after)); !errors.Is(err, ErrGone) {
		t.Errorf("zombie: %v", err)
	}
	for _, text := range []string{"", "9 (sh", "9 (sh) S 1 2", "9 (sh) S 1 x 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// group starts a shell in its own group; the script prints a line when it is ready.
func group(t *testing.T, script string) (*exec.Cmd, action.Child, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, action.Child{PID: cmd.Process.Pid, Start: start, Group: cmd.Process.Pid}, strings.TrimSpace(line)
}

func mustBeGone(t *testing.T, c action.Child, want bool) {
	t.Helper()
	got, err := Gone(c)
	if err != nil || got != want {
		t.Fatalf("gone: %v, %v, want %v", got, err, want)
	}
}

func TestKillGroup(t *testing.T) {
	t.Parallel()
	cmd, child, _ := group(t, "sleep 600 & trap '' TERM; echo ready; wait")
	mustBeGone(t, child, false)
	if err := KillGroup(child); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, child, true) // the shell is a zombie now
	_ = cmd.Wait()
	mustBeGone(t, child, true)
	if err := KillGroup(child); err != nil {
		t.Errorf("second kill: %v", err)
	}
}

func TestKillGroupWhoseLeaderHasEnded(t *testing.T) {
	t.Parallel()
	cmd, child, line := group(t, "sleep 600 >/dev/null & echo $!; wait")
	_ = cmd.Process.Kill() // the shell alone; had it ended by itself, group might have come too late to look at it
	_ = cmd.Wait()
	orphan, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, child, false)
	if err := KillGroup(child); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, child, true)
	if _, err := StartTime(orphan); !errors.Is(err, ErrGone) {
		t.Errorf("the orphan %d lives: %v", orphan, err)
	}
}

func TestKillGroupSparesOthers(t *testing.T) {
	t.Parallel()
	cmd, child, _ := group(t, "echo ready; sleep 600")
	reused := child
	reused.Start -= 5
	mustBeGone(t, reused, true)
	if err := KillGroup(reused); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, child, false)

	for _, c := range []action.Child{
		{},
		{PID: 1, Group: 1},
		{PID: 77, Group: 0},
		{PID: 77, Group: -5},
		{PID: os.Getpid(), Start: Self().Start, Group: syscall.Getpgrp()},
		{PID: child.PID, Start: child.Start, Group: child.Group + 1},
	} {
		var p *problem.Problem
		if err := KillGroup(c); !errors.As(err, &p) || p.Code != problem.Internal {
			t.Errorf("%+v: got %v, want a refusal", c, err)
		}
	}
}
