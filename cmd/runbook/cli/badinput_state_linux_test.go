package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// mounted runs a script that may mount file systems, which nobody else sees and which are gone when it ends. RUNBOOK runs the command; the
// state directory is in $STATE, and $MNT is an empty directory.
func (s *site) mounted(t *testing.T, script string) {
	t.Helper()
	mnt := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-euc", `run() { set +e; runbook "$@" --json --state "$MNT" >"$OUT/$1.out" 2>"$OUT/$1.err"; echo $? >"$OUT/$1.exit"; set -e; }
`+script)
	cmd.Dir = s.dir
	cmd.Env = []string{noRaceSleep, "PATH=" + os.Getenv("PATH"), "STATE=" + s.state, "MNT=" + mnt, "OUT=" + s.marks, "RUNBOOK_PROJECT=" + s.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.UidMappings = syscall.CLONE_NEWUSER, own
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// result reads what a command of mounted has left.
func (s *site) result(t *testing.T, command string) answer {
	t.Helper()
	read := func(ext string) string {
		b, err := os.ReadFile(filepath.Join(s.marks, command+ext))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	exit, err := strconv.Atoi(strings.TrimSpace(read(".exit")))
	if err != nil {
		t.Fatal(err)
	}
	r := answer{exit: problem.Exit(exit), out: read(".out"), err: read(".err")}
	if err := json.Unmarshal([]byte(r.out), &r.doc); err != nil {
		t.Fatalf("%s: %v in %q%s", command, err, r.out, r.err)
	}
	return r
}

// stopped checks that a run failed as want says, once, and has done nothing.
func (s *site) stopped(t *testing.T, r answer, want said) {
	t.Helper()
	if r.exit != want.exit || r.doc.Error == nil {
		t.Fatalf("exit %d, want %d: %s%s", r.exit, want.exit, r.out, r.err)
	}
	want.check(t, r.doc.Error.Problem)
	if len(r.doc.Error.More) > 0 || strings.Count(r.err, "runbook: error:") != 1 {
		t.Errorf("not one error: %s", r.err)
	}
	for _, name := range []string{"w1", "w5", "w9"} {
		if s.marked(t, name) {
			t.Errorf("something was done to %s", name)
		}
	}
}

// On a disk that takes nothing nothing is done, but it can still be stopped; as soon as there is room all is as ever.
func TestDiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mount, spoil, mend string
		want               said
		halt               problem.Exit
	}{
		"full": {
			`mount -t tmpfs -o size=16m none "$MNT"`, `dd if=/dev/zero of="$MNT/fill" bs=4k 2>/dev/null || true`, `rm "$MNT/fill"`,
			said{5, problem.StateUnusable, "", "the disk is full", "df -h"},
			0,
		},
		"no inodes": {
			`mount -t tmpfs -o size=64m,nr_inodes=200 none "$MNT"`, `i=0; while touch "$MNT/fill$i" 2>/dev/null; do i=$((i+1)); done`, `rm "$MNT"/fill*`,
			said{5, problem.StateUnusable, "", "no room for more files", "df -i"},
			0,
		},
		"read-only": {
			`mount -t tmpfs -o size=16m none "$MNT"`, `mount -o remount,bind,ro "$MNT"`, `mount -o remount,bind,rw "$MNT"`,
			said{5, problem.StateUnusable, "", "read-only", "findmnt"},
			1, // the copy in memory halts, but a restart would lift it
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.mounted(t, c.mount+`
cp -a "$STATE/." "$MNT/"
`+c.spoil+`
run run
run status
run halt --reason "the disk is full"
`)
			s.stopped(t, s.result(t, "run"), c.want)
			if r := s.result(t, "status"); r.exit != 0 || r.doc.Error != nil {
				t.Errorf("status: exit %d: %s", r.exit, r.err)
			}
			if r := s.result(t, "halt"); r.exit != c.halt || !strings.Contains(r.out, `"set": true`) {
				t.Errorf("halt: exit %d: %s%s", r.exit, r.out, r.err)
			}

			s = newSite(t)
			s.mounted(t, c.mount+`
cp -a "$STATE/." "$MNT/"
`+c.spoil+`
run run
`+c.mend+`
run run
`)
			if r := s.result(t, "run"); r.exit != 0 || !s.marked(t, "w9") {
				t.Errorf("with room again: exit %d: %s%s", r.exit, r.out, r.err)
			} else {
				s.otherwiseWell(t, r.doc)
			}
		})
	}
}

// Missing, damaged or newer state means that nobody knows what was done: halted.
func TestBadState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  said
	}{
		"missing": {func(t *testing.T, dir string) { rename(t, dir, dir+".gone") }, said{4, problem.StateMissing, "", "does not exist: halted", "runbook init --state"}},
		"empty": {func(t *testing.T, dir string) {
			rename(t, dir, dir+".gone")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, said{4, problem.StateMissing, "", "was not made by init", "mount it"}},
		"a file": {func(t *testing.T, dir string) {
			rename(t, dir, dir+".gone")
			put(t, dir, "")
		}, said{5, problem.StateUnusable, "", "not a directory", ""}},
		"newer directory": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "ID"), func(b []byte) []byte { return bytes.Replace(b, []byte(`"schema":1`), []byte(`"schema":7`), 1) })
		}, said{5, problem.StateUnusable, "", "newer runbook", "newer runbook"}},
		"newer store": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "store", "FORMAT"), "runbook store 7\n")
		}, said{5, problem.StateUnusable, "", "newer version", "newer runbook"}},
		"no store":   {func(t *testing.T, dir string) { rename(t, filepath.Join(dir, "store"), dir+".gone") }, said{5, problem.StoreDamaged, "", "", "backup"}},
		"no mark":    {func(t *testing.T, dir string) { rename(t, filepath.Join(dir, "store.mark"), dir+".gone") }, said{5, problem.StoreDamaged, "", "", "backup"}},
		"torn log":   {func(t *testing.T, dir string) { spoilLogs(t, dir, func(b []byte) []byte { return b[:len(b)/2] }) }, said{5, problem.StoreDamaged, "", "", "backup"}},
		"bit flips":  {func(t *testing.T, dir string) { spoilLogs(t, dir, flip) }, said{5, problem.StoreDamaged, "", "", "backup"}},
		"empty log":  {func(t *testing.T, dir string) { spoilLogs(t, dir, func([]byte) []byte { return nil }) }, said{5, problem.StoreDamaged, "", "", "backup"}},
		"spoilt ID":  {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "ID"), "{") }, said{5, problem.StateUnusable, "", "ID", ""}},
		"odd format": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "store", "FORMAT"), "something") }, said{5, problem.StoreDamaged, "", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			// Something to forget: the first run finds its target unknown, so that it leaves no mark.
			s.whenAsked("omega_depth", says(503, "application/json", `{"status":"error","errorType":"unavailable","error":"not yet"}`))
			if r := s.do(t, "run"); r.exit != 1 {
				t.Fatalf("exit %d: %s", r.exit, r.err)
			}
			s.fault.set(nil)
			c.spoil(t, s.state)
			s.stopped(t, s.do(t, "run", "--json"), c.want)
			for _, args := range [][]string{{"run", "--dry-run"}, {"runs"}, {"actions"}, {"status"}, {"explain", "last"}, {"resolve", "abc", "--as", "done", "--reason", "x"}} {
				r := s.do(t, append(args, "--json")...)
				if r.exit != c.want.exit || r.doc.Error == nil || r.doc.Error.Code != c.want.code || strings.Count(r.err, "runbook: error:") != 1 {
					t.Errorf("%s: exit %d: %s%s", args[0], r.exit, r.out, r.err)
				}
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func change(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, string(f(b)))
}

// flip turns a bit in each hundred bytes.
func flip(b []byte) []byte {
	for i := 50; i < len(b); i += 100 {
		b[i] ^= 1
	}
	return b
}

// spoilLogs changes what is written in every write-ahead log; the zeros after it are nothing that could be lost.
func spoilLogs(t *testing.T, dir string, f func([]byte) []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "store", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, l := range logs {
		change(t, l, func(b []byte) []byte { return f(bytes.TrimRight(b, "\x00")) })
	}
}

// Who may not write the state directory is told so, and changes nothing.
func TestForeignStateDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		// Nobody else's processes can be started: take the rights away from oneself.
		s := newSite(t)
		if err := os.Chmod(filepath.Join(s.state, "store.lock"), 0); err != nil {
			t.Fatal(err)
		}
		s.stopped(t, s.do(t, "run", "--json"), said{5, problem.StateUnusable, "", "permission denied", ""})
		return
	}
	s := newSite(t)
	for dir := s.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin, err := exec.LookPath("runbook")
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(bin); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	r := s.as(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, "run", "--json")
	s.stopped(t, r, said{5, problem.StateUnusable, "", "permission denied", ""})
}
