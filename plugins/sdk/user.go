package sdk

import (
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"

	"github.com/seed1de3961f/runbook/plugins/sdk/gate"
)

// User is a user of this machine as whom a command can run.
type User = gate.Identity

// FindUser finds a user by name or number, with all groups, and checks that a command can be run as that one: only root can run it as somebody else. nil is
// the user as whom the plugin runs itself.
func FindUser(name string) (*User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("there is no user %q on this machine", name)
		}
	}
	id := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err
	}
	uid, err := id(u.Uid)
	if err != nil {
		return nil, fmt.Errorf("user %q: a command cannot run as another user on this system", name)
	}
	if own := os.Geteuid(); own != 0 || uid == 0 || runtime.GOOS != "linux" {
		if int64(own) == int64(uid) {
			return nil, nil //nolint:nilnil // nil is the plugin's own user
		}
		if runtime.GOOS != "linux" {
			return nil, fmt.Errorf("user %q: a command runs as another user on Linux only", name)
		}
		return nil, fmt.Errorf("user %q: only root can run a command as another user, and the engine runs as number %d", name, own)
	}
	found := &User{UID: uid}
	if found.GID, err = id(u.Gid); err != nil {
		return nil, fmt.Errorf("user %q: its group is %q", name, u.Gid)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %q: its groups: %w", name, err)
	}
	for _, g := range groups {
		gid, err := id(g)
		if err != nil {
			return nil, fmt.Errorf("user %q: its group %q: %w", name, g, err)
		}
		found.Groups = append(found.Groups, gid)
	}
	return found, nil
}
