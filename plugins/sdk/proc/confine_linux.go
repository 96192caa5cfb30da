package proc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Landlock calls what a file and a directory are used for; see landlock(7).
const (
	toRead    = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	toExecute = unix.LANDLOCK_ACCESS_FS_EXECUTE | toRead
	// ofFiles are the uses that a file, which is no directory, can have.
	ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Confinement is the version of Landlock's interface that this kernel has, 0 if it has none.
func Confinement() (abi int) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// uses are all uses of files that a version knows.
func uses(abi int) uint64 {
	all := uint64(1<<13 - 1)
	if abi >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// attributes prepares what the kernel does while it starts the process. Without privileges a network of its own takes a user namespace, in which it is who
// it was.
func (c *Confine) attributes(a *syscall.SysProcAttr) {
	if c.User != nil {
		a.Credential = &syscall.Credential{Uid: c.User.UID, Gid: c.User.GID, Groups: c.User.Groups}
	}
	if !c.NoNetwork {
		return
	}
	a.Cloneflags |= unix.CLONE_NEWNET
	if os.Geteuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
}

// errNamespaces says that a process cannot be given a network of its own here.
var errNamespaces = errors.New("only root can take the network from a process here: user namespaces are forbidden or used up, as sysctl user.max_user_namespaces and AppArmor say; confine(network = True) leaves it to it")

// explain words why a process that is confined did not start.
func (c *Confine) explain(err error) error {
	namespaces := errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS)
	if c != nil && c.NoNetwork && os.Geteuid() != 0 && namespaces {
		return fmt.Errorf("confine: %w (%s)", errNamespaces, err.Error()) // and not of the kind of that error, which is said of files, too
	}
	return err
}

// restrict restricts the calling thread for good, and with it what it starts.
func (c *Confine) restrict() error {
	abi := Confinement()
	if abi == 0 {
		return errors.New("this kernel has no Landlock, which came with Linux 5.13; or it is not in lsm= of its command line")
	}
	all := uses(abi)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: all}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	read, write := c.Read, c.Write
	if c.NoNetwork && os.Geteuid() != 0 {
		write = append(slices.Clip(write), "/proc") // this thread writes there who the process is in its namespace
	}
	for _, r := range []struct {
		paths []string
		use   uint64
	}{{read, toRead}, {c.Execute, toExecute}, {write, all &^ unix.LANDLOCK_ACCESS_FS_EXECUTE}} {
		for _, path := range r.paths {
			if err := allow(int(fd), path, r.use&all); err != nil {
				return err
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}

// allow adds a rule for a path and all below.
func allow(ruleset int, path string, use uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(f) }()
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		use &= ofFiles
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: use, Parent_fd: int32(f)} //nolint:gosec // a descriptor
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}
