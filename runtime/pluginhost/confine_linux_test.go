package pluginhost_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

// prisoner is a plugin that tries to get out. Its name says which capabilities it declares: prisoner, prisoner_net, prisoner_exec, prisoner_net_exec.
func prisoner(name string) *sdk.Plugin {
	p := sdk.New(name, "1", "A plugin that tries to get out.")
	_, declared, _ := strings.Cut(name, "_")
	sdk.QueryFunc(p, "escape", "Tries it, and says what stopped it.", escape, sdk.Capabilities(strings.FieldsFunc(declared, func(r rune) bool { return r == '_' })...))
	return p
}

type attempt struct {
	How  string `rb:"how,required,positional"`
	What string `rb:"what,required"`
}

// escape returns "out" when it got out.
func escape(_ context.Context, a attempt) (string, error) {
	err := func() error {
		switch a.How {
		case "read":
			_, err := os.ReadFile(a.What)
			return err
		case "list":
			_, err := os.ReadDir(a.What)
			return err
		case "write":
			return os.WriteFile(a.What, []byte("x"), 0o600)
		case "remove":
			return os.Remove(a.What)
		case "rename":
			from, to, _ := strings.Cut(a.What, ":")
			return os.Rename(from, to)
		case "link":
			from, to, _ := strings.Cut(a.What, ":")
			return os.Link(from, to)
		case "truncate":
			return os.Truncate(a.What, 0)
		case "run":
			out, err := exec.Command(a.What).CombinedOutput() //nolint:noctx // ends at once
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		case "shell": // a program that it may start has no more rights
			out, err := exec.Command("/bin/sh", "-c", a.What).CombinedOutput() //nolint:noctx // ends at once
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		case "tcp", "unix":
			c, err := net.DialTimeout(a.How, a.What, 5*time.Second)
			if err != nil {
				return err
			}
			return c.Close()
		case "udp":
			c, err := net.Dial("udp", a.What)
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("x"))
			return err
		case "listen":
			l, err := net.Listen("tcp", a.What)
			if err != nil {
				return err
			}
			return l.Close()
		case "kill":
			pid, err := strconv.Atoi(a.What)
			if err != nil {
				return err
			}
			return syscall.Kill(pid, 0)
		case "setuid":
			return syscall.Setuid(0)
		case "who":
			return fmt.Errorf("%d", os.Getuid())
		}
		return fmt.Errorf("no such way: %s", a.How)
	}()
	if err != nil {
		return err.Error(), nil
	}
	return "out", nil
}

func prison(t *testing.T) *pluginhost.Plugins {
	t.Helper()
	c := pluginhost.Config{Exe: os.Args[0], RunDir: t.TempDir()}
	for _, name := range []string{"prisoner", "prisoner_net", "prisoner_exec", "prisoner_net_exec"} {
		m, err := prisoner(name).Manifest()
		if err != nil {
			t.Fatal(err)
		}
		c.Bundled = append(c.Bundled, m)
	}
	h, err := pluginhost.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// tries says how an attempt of a plugin ended.
func tries(t *testing.T, h *pluginhost.Plugins, c pluginhost.Connection, how, what string) string {
	t.Helper()
	v, err := h.Query(t.Context(), c, "escape", args("how", value.String(how), "what", value.String(what)))
	if err != nil {
		t.Fatalf("%s: %v", c.Plugin, err)
	}
	return string(v.(value.String))
}

// What a plugin does not declare, and is not given, it cannot have; and what it declares and is given, it has.
func TestConfined(t *testing.T) {
	t.Parallel()
	h := prison(t)
	dir := t.TempDir()
	for _, d := range []string{"secret", "given", "mine"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "file"), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	abstract, err := net.Listen("unix", fmt.Sprintf("@runbook-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = abstract.Close() })
	address := tcp.Addr().String()
	confined := func(plugin string) pluginhost.Connection {
		return pluginhost.Connection{Name: plugin, Plugin: plugin, Confine: &pluginhost.Confine{Read: []string{in("given")}, Write: []string{in("mine")}}}
	}
	plugins := []string{"prisoner", "prisoner_net", "prisoner_exec", "prisoner_net_exec"}
	if _, err := h.Query(t.Context(), confined("prisoner"), "escape", args("how", value.String("list"), "what", value.String("/"))); err != nil {
		// Who is not root cannot always take the network from a process. Then nothing is started that should have none, and it is said why.
		_ = asProblem(t, err, problem.PluginFailed, "user namespaces are forbidden or used up")
		if os.Getuid() == 0 {
			t.Fatal(err)
		}
		plugins = []string{"prisoner_net", "prisoner_net_exec"}
	}
	for _, c := range []struct {
		how, what string
		allowed   string // to plugins with these capabilities, "all", or "" for none
	}{
		{"read", in("given/file"), "all"},
		{"list", in("given"), "all"},
		{"read", in("mine/file"), "all"},
		{"write", in("mine/PLUGIN"), "all"},
		{"truncate", in("mine/file"), "all"},
		{"remove", in("mine/PLUGIN"), "all"},
		{"read", "/usr/lib/os-release", "all"},
		{"write", os.DevNull, "all"},
		{"read", in("secret/file"), ""},
		{"list", in("secret"), ""},
		{"list", dir, ""},
		{"write", in("given/file"), ""},
		{"truncate", in("given/file"), ""},
		{"remove", in("given/file"), ""},
		{"write", in("secret/new"), ""},
		{"rename", in("secret/file") + ":" + in("mine/stolen"), ""},
		{"link", in("secret/file") + ":" + in("mine/stolen"), ""},
		{"read", "/etc/shadow", ""},
		{"list", "/root", ""},
		{"read", fmt.Sprintf("/proc/%d/environ", os.Getpid()), ""},
		{"run", "/bin/true", "exec"},
		{"shell", "cat " + in("given/file"), "exec"},
		{"shell", "cat " + in("secret/file"), ""},
		{"shell", "cat /etc/shadow", ""},
		{"tcp", address, "net"},
		{"udp", address, "net"},
		{"unix", abstract.Addr().String(), ""},
		{"kill", strconv.Itoa(os.Getpid()), ""},
		{"kill", "1", ""},
	} {
		for _, plugin := range plugins {
			want := c.allowed == "all" || c.allowed != "" && strings.Contains(plugin, c.allowed)
			if c.how == "shell" && !strings.Contains(plugin, "exec") {
				want = false
			}
			what := strings.ReplaceAll(c.what, "PLUGIN", plugin)
			if got := tries(t, h, confined(plugin), c.how, what); (got == "out") != want {
				t.Errorf("%s: %s %s: %s, want it allowed: %v", plugin, c.how, what, got, want)
			}
		}
	}
	if b, err := os.ReadFile(in("secret/file")); err != nil || string(b) != "text" {
		t.Errorf("the secret is %q, %v", b, err)
	}
	// A person can say that there is a network all the same.
	open := confined("prisoner")
	open.Confine.Network = true
	if got := tries(t, h, open, "tcp", address); got != "out" {
		t.Errorf("with a network: %s", got)
	}
	// One that is not confined does all of it: these are no tests of a machine on which nothing works.
	free := pluginhost.Connection{Name: "free", Plugin: "prisoner"}
	for how, what := range map[string]string{"read": in("secret/file"), "tcp": address, "run": "/bin/true", "kill": strconv.Itoa(os.Getpid()), "unix": abstract.Addr().String()} {
		if got := tries(t, h, free, how, what); got != "out" {
			t.Errorf("not confined: %s %s: %s", how, what, got)
		}
	}
}

// A command of exec is confined as its plugin is, and is one that can be found and ended all the same.
func TestConfinedCommand(t *testing.T) {
	t.Parallel()
	h := bundled(t)
	dir := t.TempDir()
	c := execConn(dir)
	c.Confine = &pluginhost.Confine{Read: []string{dir}, Network: true}
	fin, child, err := runCommand(t, h, c, "touch", time.Minute, action.Target{Name: "w3", Labels: map[string]string{"unit": "x"}})
	if err != nil || fin.State != action.Failed || !strings.Contains(fin.Message, "Permission denied") {
		t.Errorf("it may only read: %+v, %v", fin, err)
	}
	if child.Group == 0 {
		t.Errorf("no group: %+v", child)
	}
	c.Confine = &pluginhost.Confine{Write: []string{dir}, Network: true}
	if fin, _, err = runCommand(t, h, c, "touch", time.Minute, action.Target{Name: "w3"}); err != nil || fin.State != action.Succeeded {
		t.Errorf("it may write: %+v, %v", fin, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "touched")); err != nil {
		t.Error(err)
	}
}

// As another user a plugin has that one's rights, and its engine still finds it.
func TestConfinedUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		if _, err := sdk.FindUser("root"); err == nil {
			t.Error("who is not root may be somebody else")
		}
		return
	}
	nobody, err := sdk.FindUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	// The test's own program is in a directory of root's alone.
	dir, err := os.MkdirTemp("", "runbook-test-") //nolint:usetesting // others have to pass through it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe := filepath.Join(dir, "program")
	if out, err := exec.CommandContext(t.Context(), "cp", os.Args[0], exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range []string{dir, exe} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := prisoner("prisoner_exec").Manifest()
	if err != nil {
		t.Fatal(err)
	}
	h, err := pluginhost.New(pluginhost.Config{Exe: exe, RunDir: t.TempDir(), Bundled: []sdk.Manifest{m}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	c := pluginhost.Connection{Name: "c", Plugin: "prisoner_exec", Confine: &pluginhost.Confine{Read: []string{dir}, User: "nobody"}}
	if got, want := tries(t, h, c, "who", ""), strconv.Itoa(int(nobody.UID)); got != want {
		t.Errorf("it runs as %s, want %s", got, want)
	}
	for how, what := range map[string]string{"read": secret, "setuid": "0", "shell": "cat " + secret, "write": filepath.Join(dir, "new")} {
		if got := tries(t, h, c, how, what); got == "out" {
			t.Errorf("%s %s: it got out", how, what)
		}
	}
	if got := tries(t, h, c, "run", "/bin/true"); got != "out" {
		t.Errorf("run /bin/true: %s", got)
	}
}

// What cannot be confined as it is said is not started.
func TestNotConfined(t *testing.T) {
	t.Parallel()
	h := prison(t)
	c := pluginhost.Connection{Name: "c", Plugin: "prisoner", Confine: &pluginhost.Confine{Read: []string{"/nonexistent/dir"}}}
	_, err := h.Query(t.Context(), c, "escape", args("how", value.String("list"), "what", value.String("/")))
	_ = asProblem(t, err, problem.PluginFailed, "plugin prisoner: confine", "/nonexistent/dir") // its hint is not looked at
}
