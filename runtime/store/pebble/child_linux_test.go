package pebble

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asNobody runs the role as a user who owns nothing, so that permissions count also where the tests run as root.
func asNobody(t *testing.T, role, dir string) (stderr string, ok bool) {
	t.Helper()
	cmd := child(t, role, dir)
	if os.Geteuid() == 0 {
		b, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		base, err := os.MkdirTemp("", "store-test") //nolint:usetesting // t.TempDir is below a directory that only its owner enters
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(base) })
		if err := os.Chmod(base, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(base, "exe")
		if err := os.WriteFile(cmd.Path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Dir = base
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var sb strings.Builder
	cmd.Stderr = &sb
	err := cmd.Run()
	return sb.String(), err == nil
}

func TestWithoutPermission(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	state := filepath.Dir(dir)
	for p := state; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(mode os.FileMode) {
		t.Helper()
		for _, path := range []string{dir, state} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		err := filepath.WalkDir(state, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return os.Chmod(path, mode&^0o111)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		role string
		mode os.FileMode
		dir  string
	}{
		{"once", 0o555, dir},
		{"once", 0o500, dir},
		{"create", 0o555, filepath.Join(state, "other")},
	} {
		chmod(c.mode)
		stderr, ok := asNobody(t, c.role, c.dir)
		chmod(0o755)
		if ok || !strings.Contains(stderr, "state-unusable") || !strings.Contains(stderr, "permission denied") ||
			!strings.Contains(stderr, "hint: run as the user or in the group that owns "+state) {
			t.Errorf("%s with mode %o: %v %q", c.role, c.mode, ok, stderr)
		}
	}
	if n := counter(t, open(t, Config{Dir: dir, Wait: testWait})); n != 0 {
		t.Errorf("%d commits in a directory that is not writable", n)
	}
}

func TestNetworkFileSystems(t *testing.T) {
	t.Parallel()
	if remote[0x6969] != "NFS" || remote[0xfe534d42] != "SMB" || remote[0xef53] != "" {
		t.Errorf("%v", remote)
	}
	s, err := diskSpace(t.TempDir())
	if err != nil || s.Network != "" || s.ReadOnly || s.Bytes == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
