package pluginhost_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

func host(t testing.TB) *pluginhost.Plugins {
	t.Helper()
	h, err := newHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func conn(plugin string, config value.Dict) pluginhost.Connection {
	return pluginhost.Connection{Name: "c", Plugin: plugin, Config: config}
}

func args(kv ...any) value.Dict {
	var d value.Dict
	for i := 0; i < len(kv); i += 2 {
		d = append(d, value.Entry{Key: value.String(kv[i].(string)), Value: kv[i+1].(value.Value)})
	}
	return d
}

func about(t testing.TB, h *pluginhost.Plugins, c pluginhost.Connection) value.Dict {
	t.Helper()
	v, err := h.Query(t.Context(), c, "about", nil)
	if err != nil {
		t.Fatal(err)
	}
	return v.(value.Dict)
}

func intOf(t testing.TB, d value.Dict, key string) int {
	t.Helper()
	v, _ := d.Get(key)
	n, ok := v.(value.Int)
	if !ok {
		t.Fatalf("%s = %v", key, v)
	}
	return int(n)
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // the interval of a poll
	}
	t.Fatalf("not in time: %s", what)
}

func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	// What nobody reaps here is dead all the same.
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

func asProblem(t testing.TB, err error, code problem.Code, parts ...string) *problem.Problem {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) {
		t.Fatalf("error %v is no problem", err)
	}
	if p.Code != code {
		t.Errorf("code %s, want %s: %v", p.Code, code, err)
	}
	all := p.Message + "\n" + strings.Join(p.Detail, "\n") + "\n" + p.Hint
	for _, part := range parts {
		if !strings.Contains(all, part) {
			t.Errorf("%q does not contain %q", all, part)
		}
	}
	return p
}

func TestValues(t *testing.T) {
	t.Parallel()
	h := host(t)
	deep := value.Value(value.Int(1))
	for range value.MaxDepth - 1 {
		deep = value.List{deep}
	}
	for _, v := range []value.Value{
		value.Null{},
		value.Bool(true), value.Bool(false), value.Int(0), value.Int(9007199254740993), value.Int(math.MinInt64),
		value.Big("-170141183460469231731687303715884105728"), value.Float(1), value.Float(0.1), value.Float(math.Inf(-1)),
		value.Float(math.Copysign(0, -1)), value.Float(math.NaN()), value.String(""), value.String("grün \x00"),
		value.Bytes{0xff, 0},
		value.Duration(90 * time.Minute), value.Time(time.Date(2026, 3, 1, 10, 20, 0, 5, time.UTC)), value.Time(time.Unix(-1, 999999999).UTC()),
		value.List{},
		value.List{value.Int(1), value.Float(1), value.Bool(true), value.Null{}},
		value.Dict{},
		deep,
		value.Dict{{Key: value.String("z"), Value: value.Int(1)}, {Key: value.Int(1), Value: value.List{}}, {Key: value.Float(1), Value: value.Dict{}}},
	} {
		got, err := h.Query(t.Context(), conn("good", nil), "echo", args("value", v))
		if err != nil {
			t.Errorf("%v: %v", v, err)
			continue
		}
		// The JSON form is lossless, and go-cmp takes time exponential in the depth.
		want, err1 := value.Marshal(v)
		have, err2 := value.Marshal(got)
		if err1 != nil || err2 != nil || !bytes.Equal(want, have) {
			t.Errorf("%s became %s (%v, %v)", want, have, err1, err2)
		}
	}
	for name, v := range map[string]value.Value{
		"UTF-8":          value.String("\xff"),
		"deeper than":    value.List{deep, value.List{deep}},
		"larger than 16": value.String(strings.Repeat("x", 17<<20)),
		"decimal":        value.Big("1e9"),
		"a fleet cannot": &value.Record{Type: "fleet"},
	} {
		_, err := h.Query(t.Context(), conn("good", nil), "echo", args("value", v))
		_ = asProblem(t, err, problem.Argument, name)
	}
}

// checkEnvironment checks that a plugin has what go-plugin and its host tell it, and besides exactly these.
func checkEnvironment(t *testing.T, about value.Dict, besides ...string) {
	t.Helper()
	env, _ := about.Get("env")
	allowed := []string{"RUNBOOK_PLUGIN=", "RUNBOOK_PLUGIN_LIFELINE=", "RUNBOOK_PLUGIN_HOST=", "PLUGIN_"}
	var rest []string
	for _, e := range env.(value.List) {
		if text := string(e.(value.String)); !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(text, a) }) {
			rest = append(rest, text)
		}
	}
	if !slices.Equal(rest, besides) {
		t.Errorf("the environment has %q, want %q", rest, besides)
	}
}

func TestNothingReachesAPlugin(t *testing.T) {
	t.Parallel()
	h := host(t)
	d := about(t, h, conn("good", args("token", value.String("hush-hush"))))
	checkEnvironment(t, d, "GOMAXPROCS=1") // which is no part of that of a command: see TestExecRun
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other, err := pluginhost.New(pluginhost.Config{RunDir: t.TempDir(), External: map[string]pluginhost.External{"good": {Path: exe, Args: []string{"plugin", "serve", "good"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	checkEnvironment(t, about(t, other, conn("good", nil)))
	if stdin, _ := d.Get("stdin"); !strings.HasPrefix(string(stdin.(value.String)), "pipe:") {
		t.Errorf("stdin is %v", stdin)
	}
	if nnp, _ := d.Get("nnp"); nnp != value.Bool(true) {
		t.Error("no_new_privs is not set")
	}
	pid := intOf(t, d, "pid")
	if intOf(t, d, "group") != pid || pid == os.Getpid() {
		t.Error("it does not lead a process group of its own")
	}
	for _, f := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), f))
		if err != nil || strings.Contains(string(data), "hush-hush") {
			t.Errorf("%s: %q %v", f, data, err)
		}
	}
	if intOf(t, about(t, h, conn("good", args("token", value.String("hush-hush")))), "pid") != pid {
		t.Error("the process is not used again")
	}
	if intOf(t, about(t, h, conn("good", nil)), "pid") == pid {
		t.Error("another configuration shares the process")
	}
}

func TestStartFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o700); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked")
	if err := os.WriteFile(locked, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := host(t)
	ext, err := pluginhost.New(pluginhost.Config{RunDir: t.TempDir(), External: map[string]pluginhost.External{
		"text": {Path: text}, "locked": {Path: locked}, "absent": {Path: filepath.Join(dir, "absent")}, "true": {Path: "/bin/true"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ext.Close)
	for _, tt := range []struct {
		h      *pluginhost.Plugins
		plugin string
		code   problem.Code
		parts  []string
	}{
		{h, "chatty", problem.PluginFailed, []string{`printed "WARNING: config file not found"`, "standard error"}},
		{h, "quits", problem.PluginFailed, []string{"exit status 3", "cannot read /etc/quits.conf"}},
		{h, "panics", problem.PluginFailed, []string{"exit status 2", "panic: no licence"}},
		{h, "version", problem.PluginFailed, []string{"it speaks version 9 of the plugin protocol, this program 1", "belong together"}},
		{h, "cookie", problem.PluginFailed, []string{"ended before it was ready: exit status 1", "This binary is a plugin"}},
		{h, "renamed", problem.PluginFailed, []string{"does not describe itself as it did"}},
		{h, "godo", problem.PluginMissing, []string{`did you mean "good"`}},
		{ext, "text", problem.PluginFailed, []string{"not a program for this machine"}},
		{ext, "locked", problem.PluginFailed, []string{"may not be executed", "chmod"}},
		{ext, "absent", problem.PluginMissing, []string{"no such file"}},
		{ext, "true", problem.PluginFailed, []string{"ended before it was ready: exit status 0"}},
	} {
		_, err := tt.h.Query(t.Context(), conn(tt.plugin, nil), "q", nil)
		_ = asProblem(t, err, tt.code, append(tt.parts, tt.plugin)...)
	}
	_, err = h.Query(t.Context(), conn("good", args("fail", value.Bool(true), "token", value.String("hush-hush"))), "echo", nil)
	if p := asProblem(t, err, problem.Project, "[hidden] is not accepted"); strings.Contains(p.Error(), "hush-hush") {
		t.Error("the token is in the message")
	}
	_, err = h.Query(t.Context(), conn("good", args("tokn", value.String("x"))), "echo", nil)
	_ = asProblem(t, err, problem.Argument, `did you mean "token"`)
}

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, err := pluginhost.New(pluginhost.Config{RunDir: t.TempDir(), StartTimeout: 200 * time.Millisecond, External: map[string]pluginhost.External{
		"hangs": {Path: exe, Args: []string{"plugin", "serve", "hangs"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	_, err = h.Manifest(t.Context(), "hangs")
	_ = asProblem(t, err, problem.PluginTimeout, "not ready within 200ms")
}

func TestQueryFailures(t *testing.T) {
	t.Parallel()
	h := host(t)
	c := conn("good", args("token", value.String("hush-hush")))
	for _, tt := range []struct {
		mode  string
		code  problem.Code
		parts []string
	}{
		{"fail", problem.PluginFailed, []string{"no such thing (token [hidden])"}},
		{"panic", problem.PluginFailed, []string{"the plugin ended: exit status 2", "panic: query panicked near [hidden]"}},
		{"huge", problem.PluginFailed, []string{"larger than 16 MiB"}},
	} {
		_, err := h.Query(t.Context(), c, "misbehave", args("mode", value.String(tt.mode)))
		_ = asProblem(t, err, tt.code, tt.parts...)
	}
	for plugin, part := range map[string]string{
		"deep": "nested deeper than 64", "bottomless": "recursion depth", "silent": "the plugin does not offer this",
	} {
		_, err := h.Query(t.Context(), conn(plugin, nil), "ask", nil)
		_ = asProblem(t, err, problem.PluginFailed, plugin, part)
	}
	stopped := conn("good", args("token", value.String("stopped")))
	at := intOf(t, about(t, h, stopped), "pid")
	in, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := h.Query(in, stopped, "misbehave", args("mode", value.String("stop")))
	_ = asProblem(t, err, problem.PluginTimeout, "good.misbehave")
	eventually(t, "a plugin that was stopped ends", func() bool { return gone(at) })
	pid := intOf(t, about(t, h, c), "pid")
	_, err = h.Query(t.Context(), c, "stubborn", args("mode", value.String("x"), "wait", value.Duration(time.Minute)))
	_ = asProblem(t, err, problem.PluginTimeout, "good.stubborn")
	eventually(t, "a plugin that did not answer ends", func() bool { return gone(pid) })
	if intOf(t, about(t, h, c), "pid") == pid {
		t.Error("it was used again")
	}
}

func TestConcurrentQueriesShareAProcess(t *testing.T) {
	t.Parallel()
	h := host(t)
	h.Prestart(conn("good", nil))
	var mu sync.Mutex
	pids := map[int]bool{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			n := intOf(t, about(t, h, conn("good", nil)), "pid")
			mu.Lock()
			defer mu.Unlock()
			pids[n] = true
		})
	}
	wg.Wait()
	if len(pids) != 1 {
		t.Errorf("%d processes", len(pids))
	}
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, h *pluginhost.Plugins, pid int)
	}{
		{"idle", func(*testing.T, *pluginhost.Plugins, int) {}},
		{"stopped", func(_ *testing.T, _ *pluginhost.Plugins, pid int) { _ = syscall.Kill(pid, syscall.SIGSTOP) }},
		{"grandchild holds stderr", func(t *testing.T, h *pluginhost.Plugins, _ int) {
			if _, err := h.Query(t.Context(), conn("good", nil), "misbehave", args("mode", value.String("grandchild"))); err != nil {
				t.Error(err)
			}
		}},
		{"busy", func(t *testing.T, h *pluginhost.Plugins, _ int) {
			go func() {
				_, _ = h.Query(context.Background(), conn("good", nil), "stubborn", args("mode", value.String("x"), "wait", value.Duration(time.Minute)))
			}()
		}},
		{"action before it started", func(t *testing.T, h *pluginhost.Plugins, _ int) {
			go func() {
				_, _ = h.Execute(context.Background(), conn("good", nil), request("stuck before", time.Minute))
			}()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := host(t)
			pid := intOf(t, about(t, h, conn("good", nil)), "pid")
			tt.spoil(t, h, pid)
			began := time.Now()
			h.Close()
			if d := time.Since(began); d > 2500*time.Millisecond {
				t.Errorf("Close took %s", d)
			}
			eventually(t, "the plugin is gone", func() bool { return gone(pid) })
			if _, err := h.Query(t.Context(), conn("good", nil), "about", nil); err == nil {
				t.Error("a closed host answers")
			}
		})
	}
}

func TestHostKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "host", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid, command int
	if _, err := fmt.Sscan(line, &pid, &command); err != nil {
		t.Fatal(line, err)
	}
	// Once its child is there, the command is no longer the process that waited to become it.
	eventually(t, "the command runs", func() bool { return len(members(command)) == 2 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the plugin of a killed host is gone", func() bool { return gone(pid) })
	eventually(t, "its command is gone", func() bool { return gone(command) })
	// What a command left behind is for recovery, which knows the group.
	_ = syscall.Kill(-command, syscall.SIGKILL)
	left, _ := filepath.Glob(filepath.Join(dir, "r*"))
	if len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	h, err := newHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	about(t, h, conn("good", nil))
	if _, err := os.Stat(left[0]); !os.IsNotExist(err) {
		t.Errorf("%s was not swept: %v", left[0], err)
	}
	h.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "r*")); len(left) != 0 {
		t.Errorf("left behind by Close: %v", left)
	}
}

func TestSigtermLetsAnActionFinish(t *testing.T) {
	t.Parallel()
	h := host(t)
	x := execute(t, h, conn("good", args("dir", value.String(t.TempDir()))), "ok")
	_, child, err := x.Started()
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(child.PID, syscall.SIGTERM)
	if err := x.Proceed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f, err := x.Wait(t.Context()); err != nil || f.State != action.Succeeded {
		t.Fatal(f, err)
	}
	eventually(t, "it ends after the action", func() bool { return gone(child.PID) })
}

func TestStrangerMayNotConnect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, err := newHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	about(t, h, conn("good", nil))
	sockets, _ := filepath.Glob(filepath.Join(dir, "r*", "plugin-dir*", "plugin*"))
	if len(sockets) == 0 {
		t.Fatal("no socket")
	}
	// Another process of the same user: the kernel says who it is.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(exe, "stranger", sockets[0]).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "0" {
		t.Errorf("a stranger got an answer: %s %v", out, err)
	}
}

func BenchmarkStartToFirstCall(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		h, err := newHost(dir)
		if err != nil {
			b.Fatal(err)
		}
		about(b, h, conn("good", nil))
		b.StopTimer()
		h.Close()
		b.StartTimer()
	}
}

func BenchmarkQuery(b *testing.B) {
	h := host(b)
	for b.Loop() {
		about(b, h, conn("good", nil))
	}
}
