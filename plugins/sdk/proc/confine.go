package proc

// Confine is what a process, and all that it starts, may touch at most. Nothing that it does undoes it.
type Confine struct {
	Read, Write, Execute []string // files, and directories with all below; what is not there is left out
	NoNetwork            bool     // no network but sockets in the file system
	User                 *User    // as whom it runs; nil: as this process
}

// User is a user of this machine.
type User struct {
	UID, GID uint32
	Groups   []uint32
}
