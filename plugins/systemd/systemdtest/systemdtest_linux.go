// Package systemdtest makes a real systemd process 1 of namespaces of its own, for tests. It takes root, and the packages systemd and util-linux.
package systemdtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// boot prepares a file system that nothing can write, but for the directories behind the second argument, and has nothing to run but the units of
// the test.
const boot = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
cp -r "$1"/* /run/systemd/system/
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
program=$2
shift 2
for dir; do mount --bind "$dir" "$dir"; done
mount -o remount,bind,ro / || mount --bind -o ro / /
exec env -i container=docker PATH=/usr/sbin:/usr/bin:/sbin:/bin "$program" --system --unit=lab.target --log-target=console --show-status=no
`

// Start starts one with these units, by the names of their files, and returns the number of its process outside of its namespaces. None of the units should have
// the usual dependencies, which would start half of a machine. It ends with the test.
func Start(t testing.TB, units map[string]string, writable ...string) (pid string) {
	t.Helper()
	const program = "/lib/systemd/systemd"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: install the package systemd", err)
	}
	dir := t.TempDir()
	for name, text := range units {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lab.target"), []byte("[Unit]\nDefaultDependencies=no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	args := []string{"--fork", "--pid", "--mount", "--cgroup", "--mount-proc", "--kill-child", "sh", "-c", boot, "boot", dir, program}
	cmd := exec.Command("unshare", append(args, writable...)...) //nolint:noctx // it is killed with its group
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: it takes root, and the package util-linux", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended //nolint:errcheck // it was killed
		if t.Failed() {
			t.Logf("systemd said:\n%s", &log)
		}
	})
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	patience := time.After(time.Minute)
	for look := time.Tick(10 * time.Millisecond); ; {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("systemd ended: %v", err)
		case <-patience:
			t.Fatal("systemd is not ready after a minute")
		case <-look:
		}
		text, _ := os.ReadFile(children)
		if pid := strings.TrimSpace(string(text)); pid != "" {
			if _, err := os.Stat("/proc/" + pid + "/root/run/systemd/private"); err == nil {
				return pid
			}
		}
	}
}
