package control

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// noFollow keeps a link or a pipe that somebody put in our place from leading us astray or blocking us.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// networkFileSystem names the network file system that path is on, or is empty.
func networkFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", path, err)
	}
	return map[uint32]string{
		unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb2",
		unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs", unix.AFS_FS_MAGIC: "afs", unix.CODA_SUPER_MAGIC: "coda",
		unix.NCP_SUPER_MAGIC: "ncp",
	}[uint32(st.Type)], nil
}

func inMemory(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	return uint32(st.Type) == unix.TMPFS_MAGIC || uint32(st.Type) == unix.RAMFS_MAGIC
}

func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// ownedBy says whether the file belongs to the owner of the state directory, to root, or to us.
func ownedBy(info, state fs.FileInfo) bool {
	a, ok := info.Sys().(*syscall.Stat_t)
	b, ok2 := state.Sys().(*syscall.Stat_t)
	return ok && ok2 && (a.Uid == b.Uid || a.Uid == 0 || int(a.Uid) == os.Geteuid())
}

// adopt gives what root made to the owner of the state directory, whose runs must be able to use it.
func adopt(path string, state fs.FileInfo) error {
	if st, ok := state.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	}
	return nil
}

func syncDirectory(d *os.File) error { return d.Sync() }

// tryLock takes the lock without waiting; ok is false if somebody else has it.
func tryLock(f *os.File, exclusive bool) (ok bool, err error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, fmt.Errorf("flock %s: %w", f.Name(), err)
		}
	}
}

// unlock gives the lock back at once, also when a child that is just being started still has a copy of the descriptor.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	_ = f.Close()
}

// startOf is the start time of a process in clock ticks since boot; 0 if there is no such process.
func startOf(pid int) uint64 {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// The command in parentheses may hold anything, so count from behind it: state is field 3, start is field 22.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	start, _ := strconv.ParseUint(fields[19], 10, 64)
	return start
}

// terminal is the terminal of standard input, or empty.
func terminal() string {
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil || !strings.HasPrefix(name, "/dev/pts/") && !strings.HasPrefix(name, "/dev/tty") {
		return ""
	}
	return strings.TrimPrefix(name, "/dev/")
}

// loginUID is who logged in, whatever sudo has made of it since; -1 if nobody did.
func loginUID() int {
	text, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return -1
	}
	uid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || uid == 1<<32-1 {
		return -1
	}
	return int(uid)
}
