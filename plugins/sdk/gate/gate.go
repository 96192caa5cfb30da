// Package gate is the waiting of a process that is going to be a command: see sdk.Call.Prepare.
//
// A plugin starts its own program again for that. Nothing of that program may run then but this, so it happens while the
// packages are initialised, and this package imports next to nothing so that it comes before almost all others. A program
// with a large plugin SDK in it takes eight milliseconds to get to main; this takes one.
package gate

import (
	"bytes"
	"strconv"
)

// Env makes a process wait, if its value is the number of the parent process. A command never sees it.
const Env = "RUNBOOK_PLUGIN_GATE"

// The descriptors of a process that waits.
const (
	Leave  = 3 // what to become arrives here; its end without that is the order to exit
	Report = 4 // closed by becoming the command; otherwise says why not
)

// Identity is a user as whom a command runs.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // besides GID
}

// Order is what to become, and as whom; nil is as the plugin's own user. No argument and no variable can hold a zero byte; the end marks a whole
// order.
func Order(argv, env []string, who *Identity) []byte {
	var b []byte
	for _, a := range argv {
		b = append(append(append(b, 'a'), a...), 0)
	}
	for _, e := range env {
		b = append(append(append(b, 'e'), e...), 0)
	}
	if who != nil {
		for _, id := range append([]uint32{who.UID, who.GID}, who.Groups...) {
			b = append(strconv.AppendUint(append(b, 'i'), uint64(id), 10), 0)
		}
	}
	return append(b, '.')
}

type order struct {
	argv, env []string
	ids       []uint32 // uid, gid and groups; none: stay who we are
}

// parse takes an order apart. One that is cut is refused: whoever sent it is gone.
func parse(text []byte) (o order, ok bool) {
	text, ok = bytes.CutSuffix(text, []byte{'.'})
	for ok && len(text) > 0 {
		var part []byte
		if part, text, ok = bytes.Cut(text, []byte{0}); !ok || len(part) == 0 {
			return order{}, false
		}
		switch part[0] {
		case 'a':
			o.argv = append(o.argv, string(part[1:]))
		case 'e':
			o.env = append(o.env, string(part[1:]))
		case 'i':
			id, err := strconv.ParseUint(string(part[1:]), 10, 32)
			if err != nil {
				return order{}, false
			}
			o.ids = append(o.ids, uint32(id))
		default:
			return order{}, false
		}
	}
	return o, ok && len(o.argv) > 0 && len(o.ids) != 1
}
