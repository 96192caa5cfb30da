package pluginhost_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

// childrenOf lists the processes that this one has started, with their command lines.
func childrenOf(t *testing.T) map[int]string {
	t.Helper()
	all := map[int]string{}
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for word := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			all[pid] = string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '}))
		}
	}
	return all
}

// ahead starts a spare process and returns its number.
func ahead(t *testing.T) (pid int) {
	t.Helper()
	spare.Ahead()
	eventually(t, "there is a spare process", func() bool {
		for p, line := range childrenOf(t) {
			if strings.HasSuffix(line, " "+spare.Command) {
				pid = p
			}
		}
		return pid != 0
	})
	return pid
}

// source is a connection of a plugin that does not act, and answers without anybody there.
func source(name string) pluginhost.Connection {
	c := conn("prometheus", args("url", value.String("http://127.0.0.1:1")))
	c.Name = name
	return c
}

func askServer(t *testing.T, h *pluginhost.Plugins, c pluginhost.Connection) {
	t.Helper()
	if v, err := h.Query(context.Background(), c, "server", nil); err != nil || !strings.Contains(fmt.Sprint(v), "127.0.0.1:1") {
		t.Fatal(v, err)
	}
}

// These share the one process that may be ahead, so they are not parallel, and nothing else of this package runs beside them.

// The process that was started before it was known for what becomes the first bundled plugin that is asked, and ends with the host.
func TestSpareBecomesAPlugin(t *testing.T) {
	t.Setenv("SECRET_OF_THE_HOST", "hunter2")
	pid := ahead(t)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environ) > 0 {
		t.Errorf("it has the environment %q, %v", environ, err)
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Error("it may gain privileges")
	}
	h := bundled(t)
	askServer(t, h, source("metrics"))
	if all := childrenOf(t); len(all) != 1 || all[pid] == "" {
		t.Errorf("the processes are %v, want the one that was ahead, %d", all, pid)
	}
	askServer(t, h, source("another")) // there is no other spare one
	if all := childrenOf(t); len(all) != 2 {
		t.Errorf("the processes are %v, want two", all)
	}
	h.Close()
	if all := childrenOf(t); len(all) != 0 {
		t.Errorf("left running: %v", all)
	}
}

// One that nobody needs ends with the host as well, and one that has ended is no loss.
func TestSpareIsNotNeeded(t *testing.T) {
	pid := ahead(t)
	bundled(t).Close()
	eventually(t, "it has ended", func() bool { return gone(pid) })

	pid = ahead(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h := bundled(t)
	askServer(t, h, source("metrics"))
	h.Close()
	eventually(t, "it has ended", func() bool { return gone(pid) })
}

// It has the rights of any plugin, so it becomes none that is confined; and what acts has its name on its command line.
func TestSpareIsNotForAll(t *testing.T) {
	pid := ahead(t)
	h := bundled(t)
	c := source("metrics")
	c.Confine = &pluginhost.Confine{Read: []string{t.TempDir()}}
	if _, err := h.Query(t.Context(), c, "server", nil); err != nil {
		t.Log(err) // how much can be taken from it depends on the kernel
	}
	c = conn("exec", args("reads", value.Map(map[string]value.List{"env": argv("/usr/bin/env")})))
	if _, err := h.Query(t.Context(), c, "read", args("command", value.String("env"))); err != nil {
		t.Error(err)
	}
	s := spare.Take()
	if s == nil || s.Process.Pid != pid {
		t.Fatalf("process %d was taken: %+v", pid, s)
	}
	s.End()
	if !gone(pid) {
		t.Error("it has not ended")
	}
}
