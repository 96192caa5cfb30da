package pluginhost

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
)

// Confine is what the processes of a connection may touch besides the system's own files. What they need not touch follows from the capabilities that the plugin's
// functions declare: without "net" they have no network, and without "exec" they can start nothing but themselves.
type Confine struct {
	Read, Write []string // absolute paths of files, and of directories with all below
	Network     bool     // they have a network, whatever the functions declare
	User        string   // as whom they run, by name or number; "": as the engine
}

// user is as whom they run; nil is as the engine.
func (c *Confine) user() (*proc.User, error) {
	if c == nil || c.User == "" {
		return nil, nil //nolint:nilnil // as the engine
	}
	u, err := sdk.FindUser(c.User)
	if err != nil || u == nil {
		return nil, err
	}
	return &proc.User{UID: u.UID, GID: u.GID, Groups: u.Groups}, nil
}

// The files of a system that a program needs to run, to find names and to check certificates; and those besides that programs need that it starts.
var (
	systemFiles = []string{
		"/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf",
		"/etc/services", "/etc/protocols", "/etc/localtime", "/etc/ld.so.cache", "/run/systemd/resolve", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
	}
	programs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64"}
	besides  = []string{"/etc/passwd", "/etc/group"}
)

// Needs says which capabilities the functions of a plugin declare.
func Needs(m sdk.Manifest) (network, execute bool) {
	for _, f := range m.Functions {
		network = network || slices.Contains(f.Capabilities, "net")
		execute = execute || slices.Contains(f.Capabilities, "exec")
	}
	return network, execute
}

// Describe says what is in force for a plugin's processes, for a person.
func (c *Confine) Describe(m sdk.Manifest) string {
	if c == nil {
		return "not confined: it can touch what the engine's user can"
	}
	network, execute := Needs(m)
	parts := []string{"no network", "starts no programs", "reads the system's own files"}
	if network || c.Network {
		parts[0] = "has the network"
	}
	if execute {
		parts[1] = "starts programs of the system, and of what it reads"
	}
	if len(c.Read) > 0 {
		parts[2] += ", " + strings.Join(c.Read, ", ")
	}
	writes := "writes nothing"
	if len(c.Write) > 0 {
		writes = "reads and writes " + strings.Join(c.Write, ", ")
	}
	parts = append(parts, writes)
	if c.User != "" {
		parts = append(parts, "runs as "+c.User)
	}
	return strings.Join(parts, "; ")
}

// Confinement says how this system confines, or why it cannot.
func Confinement() (how string, err error) {
	abi := proc.Confinement()
	if abi == 0 {
		return "", errors.New("this system cannot confine plugins: it takes Linux 5.13 with Landlock")
	}
	how = fmt.Sprintf("Landlock, version %d", abi)
	if abi < 3 {
		how += ", which lets files be cut short that may only be read"
	}
	if abi < 6 {
		how += ", which lets signals through"
	}
	return how, nil
}

// of is the confinement of one process. nil stays nil.
func (c *Confine) of(pr program, m *sdk.Manifest) (*proc.Confine, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // not confined
	}
	if m == nil {
		return nil, errors.New("nobody knows what it needs")
	}
	for _, path := range slices.Concat(c.Read, c.Write) {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	network, execute := Needs(*m)
	out := &proc.Confine{Read: slices.Concat(systemFiles, c.Read, c.Write), Write: slices.Concat([]string{os.DevNull}, c.Write), NoNetwork: !network && !c.Network}
	itself, err := toStart(pr)
	if err != nil {
		return nil, err
	}
	if out.Execute = itself; execute {
		out.Execute = slices.Concat(itself, programs, c.Read)
		out.Read = append(out.Read, besides...)
	}
	out.User, err = c.user()
	return out, err
}

// toStart is what has to be executed for a program to run: its file, the loader that it names, and of a script every program, for it names one and that finds another.
func toStart(pr program) ([]string, error) {
	path := pr.path
	if pr.file != nil {
		path = pr.file.Name()
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.Open(path)
	if err != nil {
		return append([]string{path}, programs...), nil //nolint:nilerr // a script
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, min(p.Filesz, 4096))
		if _, err := p.ReadAt(name, 0); err != nil {
			return nil, err
		}
		return []string{path, strings.TrimRight(string(name), "\x00")}, nil
	}
	return []string{path}, nil
}

// withSocket adds the directory of its socket, which go-plugin has made and names in its environment.
func withSocket(c *proc.Confine, env []string) (*proc.Confine, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // not confined
	}
	for _, e := range env {
		dir, ok := strings.CutPrefix(e, "PLUGIN_UNIX_SOCKET_DIR=")
		if !ok {
			continue
		}
		c.Read, c.Write = append(c.Read, dir), append(c.Write, dir)
		if c.User != nil {
			return c, os.Chown(dir, int(c.User.UID), int(c.User.GID))
		}
	}
	return c, nil
}
