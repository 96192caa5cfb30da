package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxSocketDir is the longest directory in which a socket of go-plugin still has a name that a kernel accepts (108 bytes on
// Linux, 104 elsewhere).
const maxSocketDir = 104 - 1 - len("/plugin-dir1234567890/plugin1234567890")

// runDir is the directory of this host's sockets. It is locked as long as this process lives, so that others can tell
// whether it is still in use.
type runDir struct {
	path string
	lock *os.File
}

// runDirPath makes the directory at the first use. A plugin that runs as another user has one of that user's: below one that he may pass through.
func (h *Plugins) runDirPath(c *Confine) (string, error) {
	as, err := c.user()
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return "", problem.New(problem.Internal, "the plugin host is closed")
	}
	user, parent, mode := "", shortEnough(h.config.RunDir), os.FileMode(0o700)
	if as != nil {
		user, parent, mode = fmt.Sprint(as.UID), filepath.Join(os.TempDir(), "runbook-as"), 0o711
	}
	if h.dirs[user] == nil {
		d, err := newRunDir(parent, mode)
		if err != nil {
			return "", err
		}
		if as != nil {
			if err := os.Chown(d.path, int(as.UID), int(as.GID)); err != nil {
				d.remove()
				return "", err
			}
		}
		h.dirs[user] = d
	}
	return h.dirs[user].path, nil
}

// newRunDir makes a directory below parent and removes those of hosts that are dead.
func newRunDir(parent string, mode os.FileMode) (*runDir, error) {
	if err := os.MkdirAll(parent, mode); err != nil {
		return nil, err
	}
	if err := private(parent); err != nil {
		return nil, err
	}
	if mode != 0o700 { // which the umask may have taken away
		if err := os.Chmod(parent, mode); err != nil {
			return nil, err
		}
	}
	// The lock of the parent keeps a directory that was just made, and is not locked yet, from being swept.
	parentLock, err := lockFile(filepath.Join(parent, "lock"))
	if err != nil {
		return nil, err
	}
	defer parentLock.Close()
	sweep(parent)
	path, err := os.MkdirTemp(parent, "r")
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	return &runDir{path: path, lock: lock}, nil
}

// shortEnough is parent, or a private directory in its place below which a socket has a name that the kernel takes. The place
// for temporary files may itself be deep down.
func shortEnough(parent string) string {
	own := "runbook-" + strconv.Itoa(os.Getuid())
	for _, dir := range []string{parent, filepath.Join(os.TempDir(), own)} {
		if dir != "" && len(dir)+len("/r1234567890") <= maxSocketDir {
			return dir
		}
	}
	return filepath.Join("/tmp", own)
}

// ownName is how newRunDir names a directory.
var ownName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^r[0-9]+$`) })

// sweep removes what hosts left that ended without tidying up. What cannot be removed does no harm.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !ownName().MatchString(e.Name()) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

func (d *runDir) remove() {
	_ = os.RemoveAll(d.path)
	_ = d.lock.Close()
}
