package pluginhost_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

// The bundled plugins as they are used: this binary, started by the host.

func bundled(t testing.TB) *pluginhost.Plugins {
	t.Helper()
	ms, err := plugins.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	h, err := pluginhost.New(pluginhost.Config{Exe: os.Args[0], Bundled: ms, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func argv(words ...string) value.List {
	var l value.List
	for _, w := range words {
		l = append(l, value.String(w))
	}
	return l
}

func execConn(dir string) pluginhost.Connection {
	return conn("exec", args(
		"dir", value.String(dir),
		"env", value.Strings(map[string]string{"LANG": "C", "EXTRA": "a b"}),
		"commands", value.Map(map[string]value.List{
			"env":     argv("/usr/bin/env"),
			"args":    argv("/usr/bin/printf", "%s|", "{target}", "unit={label:unit}.service", "{print $1}", "$HOME;`id`"),
			"fail":    argv("/bin/sh", "-c", "echo out; echo no space left >&2; exit 3"),
			"lots":    argv("/bin/sh", "-c", "yes | head -c 1000000; echo end"),
			"killed":  argv("/bin/sh", "-c", "echo half; kill -9 $$"),
			"ignores": argv("/bin/sh", "-c", `trap "" TERM; echo began; while :; do /bin/sleep 1; done`),
			"daemon":  argv("/bin/sh", "-c", "/bin/sleep 600 & echo $!"),
			"absent":  argv("/no/such/program"),
			"timers":  argv("/bin/cat", "/proc/self/timerslack_ns"),
			"touch":   argv("/usr/bin/touch", "touched"),
		}),
		"reads", value.Map(map[string]value.List{
			"ok": argv("/bin/sh", "-c", "echo out; echo err >&2; exit 4"), "slow": argv("/bin/sh", "-c", "/bin/sleep 600 & wait"),
		}),
	))
}

func runCommand(t *testing.T, h *pluginhost.Plugins, c pluginhost.Connection, name string, within time.Duration, target action.Target) (pluginhost.Finished, action.Child, error) {
	t.Helper()
	x, err := h.Execute(t.Context(), c, pluginhost.Execute{
		Function: "run", Args: args("command", value.String(name)), Target: target, Key: "key-1", Deadline: time.Now().Add(within),
	})
	if err != nil {
		return pluginhost.Finished{}, action.Child{}, err
	}
	_, child, err := x.Started()
	if err != nil {
		return pluginhost.Finished{}, child, err
	}
	if err := x.Proceed(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := x.Wait(t.Context())
	return f, child, err
}

func stdout(f pluginhost.Finished) string {
	d, _ := f.Value.(value.Dict)
	s, _ := d.Get("stdout")
	text, _ := s.(value.String)
	return string(text)
}

var web3 = action.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"unit": "a b"}}

func TestExecRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, c := bundled(t), execConn(dir)
	f, _, err := runCommand(t, h, c, "env", 20*time.Second, web3)
	if err != nil || f.State != action.Succeeded {
		t.Fatal(f, err)
	}
	want := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nEXTRA=a b\nLANG=C\nRUNBOOK_KEY=key-1\nRUNBOOK_TARGET=w3\n"
	if d := cmp.Diff(want, stdout(f)); d != "" {
		t.Error(d)
	}
	f, _, err = runCommand(t, h, c, "args", 20*time.Second, web3)
	if err != nil || stdout(f) != "w3|unit=a b.service|{print $1}|$HOME;`id`|" {
		t.Errorf("%q %v", stdout(f), err)
	}
	f, _, err = runCommand(t, h, c, "fail", 20*time.Second, web3)
	if err != nil || f.State != action.Failed || !strings.Contains(f.Message, "status 3: no space left") {
		t.Errorf("%+v %v", f, err)
	}
	f, _, err = runCommand(t, h, c, "lots", 20*time.Second, web3)
	if err != nil || len(stdout(f)) != 64<<10 || !strings.HasSuffix(stdout(f), "\ny\nend\n") {
		t.Errorf("%d bytes, %v", len(stdout(f)), err)
	}
	// The plugin's own timers may be late; those of what it runs for others are as usual.
	f, _, err = runCommand(t, h, c, "timers", 20*time.Second, web3)
	if err != nil || stdout(f) != "50000\n" {
		t.Errorf("%q %v", stdout(f), err)
	}
	if _, _, err = runCommand(t, h, c, "touch", 20*time.Second, web3); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "touched")); err != nil {
		t.Error(err)
	}
}

// below are the processes that a process has started, and which still are.
func below(t *testing.T, pid int) (out []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		n, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if s, err := proc.ReadStat(n); err == nil && s.Parent == pid {
			out = append(out, n)
		}
	}
	return out
}

// A plugin that runs commands has a process waiting for the first one, and starts another for the next, or if that one has ended or is elsewhere by now.
func TestExecAhead(t *testing.T) {
	t.Parallel()
	site := t.TempDir()
	for i, dir := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(site, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Symlink(dir, filepath.Join(site, "current")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		before func(t *testing.T, waiting int)
		is     bool // the process that waited becomes the command
	}{
		{"as it was", func(*testing.T, int) {}, true},
		{"it was killed", func(t *testing.T, waiting int) {
			if err := syscall.Kill(waiting, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is dead", func() bool { _, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", waiting)); return err != nil })
		}, false},
		{"the directory is another", func(t *testing.T, _ int) {
			current := filepath.Join(site, "current")
			if err := errors.Join(os.Remove(current), os.Symlink("two", current)); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		h := bundled(t)
		conn := execConn(filepath.Join(site, "current"))
		was := below(t, os.Getpid())
		h.Prestart(conn)
		var waiting int
		eventually(t, c.name+": a process waits", func() bool {
			for _, plugin := range below(t, os.Getpid()) {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", plugin))
				if slices.Contains(was, plugin) || !strings.Contains(string(cmdline), "serve\x00exec") {
					continue
				}
				for _, n := range below(t, plugin) {
					if dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", n)); strings.HasPrefix(dir, site) { // and not another test's
						waiting = n
					}
				}
			}
			return waiting != 0
		})
		c.before(t, waiting)
		for range 2 {
			f, child, err := runCommand(t, h, conn, "touch", 20*time.Second, web3)
			if err != nil || f.State != action.Succeeded || (child.PID == waiting) != c.is {
				t.Errorf("%s: %+v, %v, process %d, %d waited", c.name, f, err, child.PID, waiting)
			}
			c.is = false // it was the first's
			touched := filepath.Join(site, "current", "touched")
			if err := os.Remove(touched); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		h.Close()
		eventually(t, c.name+": nothing waits any more", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", waiting)); return err != nil })
	}
}

func TestExecInDoubt(t *testing.T) {
	t.Parallel()
	h, c := bundled(t), execConn("/")
	_, _, err := runCommand(t, h, c, "killed", 20*time.Second, web3)
	_ = asProblem(t, err, problem.InDoubt, "signal: killed: half")
	began := time.Now()
	_, child, err := runCommand(t, h, c, "ignores", 2*time.Second, web3)
	_ = asProblem(t, err, problem.InDoubt, "was stopped after", "began")
	if d := time.Since(began); d > 2500*time.Millisecond {
		t.Errorf("took %s", d)
	}
	eventually(t, "the command's group is gone", func() bool { return len(members(child.Group)) == 0 })
}

func TestExecDaemon(t *testing.T) {
	t.Parallel()
	h := bundled(t)
	began := time.Now()
	f, child, err := runCommand(t, h, execConn("/"), "daemon", 20*time.Second, web3)
	if err != nil || f.State != action.Succeeded || time.Since(began) > 3*time.Second {
		t.Fatal(f, err, time.Since(began))
	}
	h.Close()
	left := members(child.Group)
	if len(left) != 1 {
		t.Errorf("the daemon that the action started did not outlive the run: %v", left)
	}
	for _, pid := range left {
		p, err := os.FindProcess(pid)
		if err == nil {
			_ = p.Kill()
		}
	}
}

func TestExecRefusesBeforeItBegins(t *testing.T) {
	t.Parallel()
	h, c := bundled(t), execConn("/")
	for _, tt := range []struct {
		command string
		target  action.Target
		parts   []string
	}{
		{"fial", web3, []string{`no "fial"`, `did you mean "fail"`}},
		{"absent", web3, []string{"/no/such/program", "no such file"}},
		{"args", action.Target{Name: "w3"}, []string{"label unit is missing"}},
		{"args", action.Target{Name: "--all", Labels: web3.Labels}, []string{"for an option"}},
		{"args", action.Target{Labels: web3.Labels}, []string{"the target's name is missing"}},
	} {
		_, _, err := runCommand(t, h, c, tt.command, 20*time.Second, tt.target)
		if err == nil {
			t.Errorf("%s was not refused", tt.command)
			continue
		}
		for _, part := range tt.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not contain %q", err, part)
			}
		}
	}
}

func TestExecRead(t *testing.T) {
	t.Parallel()
	h, c := bundled(t), execConn("/")
	v, err := h.Query(t.Context(), c, "read", args("command", value.String("ok")))
	want := value.Dict{
		{Key: value.String("exit"), Value: value.Int(4)},
		{Key: value.String("stdout"), Value: value.String("out\n")},
		{Key: value.String("stderr"), Value: value.String("err\n")},
	}
	if d := cmp.Diff(value.Value(want), v); err != nil || d != "" {
		t.Error(err, d)
	}
	if _, err := h.Query(t.Context(), c, "read", args("command", value.String("touch"))); err == nil {
		t.Error("a command was read")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = h.Query(ctx, c, "read", args("command", value.String("slow")))
	if err == nil {
		t.Error("no timeout")
	}
}

func TestExecSettings(t *testing.T) {
	t.Parallel()
	h := bundled(t)
	for part, config := range map[string]value.Dict{
		"absolute path of a program": args("commands", value.Map(map[string]value.List{"a": argv("sh")})),
		"it is empty":                args("commands", value.Map(map[string]value.List{"a": argv()})),
		"a read has no target":       args("reads", value.Map(map[string]value.List{"a": argv("/bin/ls", "{target}")})),
		"cannot be set":              args("env", value.Strings(map[string]string{"RUNBOOK_KEY": "x"})),
		"not an absolute path":       args("dir", value.String("here")),
		`did you mean "commands"`:    args("command", value.Map(map[string]value.List{})),
	} {
		_, err := h.Query(t.Context(), conn("exec", config), "read", args("command", value.String("x")))
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

func TestExecPlan(t *testing.T) {
	t.Parallel()
	got, err := bundled(t).Plan(t.Context(), execConn("/"), pluginhost.Plan{Function: "run", Args: args("command", value.String("args")), Target: web3})
	if err != nil || len(got.Changes) != 1 || !strings.Contains(got.Changes[0].What, `"w3"`) {
		t.Error(got, err)
	}
}

// A locked plugin is not started to be described, and is started only as it was locked.
func TestLockedPlugin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, script := filepath.Join(dir, "starts"), filepath.Join(dir, "plugin")
	write := func(more string) string {
		text := "#!/bin/sh\necho start >>" + log + "\n" + more + "exec " + os.Args[0] + " plugin serve good\n"
		if err := os.WriteFile(script+".new", []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(script+".new", script); err != nil {
			t.Fatal(err)
		}
		sum, err := pluginhost.Hash(script)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	starts := func() int {
		data, _ := os.ReadFile(log)
		return strings.Count(string(data), "\n")
	}
	sum := write("")
	m, err := good().Manifest()
	if err != nil {
		t.Fatal(err)
	}
	other := m
	other.Functions = slices.Clone(m.Functions)
	other.Functions[0].Kind = sdk.Action
	for _, c := range []struct {
		name  string
		lock  pluginhost.External
		write func()
		want  string // "" works
		began int
	}{
		{"as locked", pluginhost.External{Path: script, SHA256: sum, Manifest: &m}, nil, "", 1},
		{"it says something else of itself", pluginhost.External{Path: script, SHA256: sum, Manifest: &other}, nil, "does not describe itself as it did when it was locked", 2},
		{"another file", pluginhost.External{Path: script, SHA256: sum, Manifest: &m}, func() { write("# changed\n") }, "is not the file that runbook.lock was made for", 2},
		{"no file", pluginhost.External{Path: script, SHA256: sum, Manifest: &m}, func() { _ = os.Remove(script) }, "there is no such file", 2},
		{"no regular file", pluginhost.External{Path: dir, SHA256: sum, Manifest: &m}, nil, "not a regular file", 2},
	} {
		if c.write != nil {
			c.write()
		}
		h, err := pluginhost.New(pluginhost.Config{RunDir: t.TempDir(), External: map[string]pluginhost.External{"good": c.lock}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Manifest(t.Context(), "good"); err != nil || cmp.Diff(*c.lock.Manifest, got) != "" {
			t.Errorf("%s: manifest %v %v", c.name, got, err)
		}
		err = h.Ready(t.Context(), conn("good", args("token", value.String("hush-hush"))))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		h.Close()
		if n := starts(); n != c.began {
			t.Errorf("%s: %d starts, want %d", c.name, n, c.began)
		}
	}
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	ms, err := plugins.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	fams, err := pluginhost.Families(ms)
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range fams {
		for _, fn := range fam.Functions {
			if fn.Call != nil {
				t.Errorf("%s.%s has a Call", fam.Name, fn.Name)
			}
			if n := len(fn.Params) - len(kit.ReservedActionParams()); fn.Kind == kit.Action && fn.Params[n].Name != "reason" {
				t.Errorf("%s.%s lacks the engine's arguments", fam.Name, fn.Name)
			}
		}
	}
	action := func(params ...sdk.Param) sdk.Manifest {
		return sdk.Manifest{Name: "p", Functions: []sdk.Function{{Name: "f", Kind: sdk.Action, Params: params}}}
	}
	for part, m := range map[string]sdk.Manifest{
		`"reason" belongs to the engine`: action(sdk.Param{Name: "reason", Type: "string"}),
		`unknown type "text"`:            action(sdk.Param{Name: "a", Type: "text"}),
		"twice":                          action(sdk.Param{Name: "a", Type: "any"}, sdk.Param{Name: "a", Type: "any"}),
		"cannot be its name":             {Name: "target"},
		`unknown kind ""`:                {Name: "p", Functions: []sdk.Function{{Name: "f"}}},
	} {
		if _, err := pluginhost.Families([]sdk.Manifest{m}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

func BenchmarkBundledStartToFirstCall(b *testing.B) {
	ms, err := plugins.Manifests()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	best := time.Hour
	for b.Loop() {
		began := time.Now()
		h, err := pluginhost.New(pluginhost.Config{Exe: os.Args[0], Bundled: ms, RunDir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := h.Plan(b.Context(), execConn("/"), pluginhost.Plan{Function: "run", Args: args("command", value.String("args")), Target: web3}); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(began))
		b.StopTimer()
		h.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
}
