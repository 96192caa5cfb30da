// Package gate is the waiting of a process that is going to be a command: see sdk.Call.Prepare.
//
// A plugin starts its own program again for that. Nothing of that program may run then but this, so it happens while the
// packages are initialised, and this package imports next to nothing so that it comes before almost all others. A program
// with a large plugin SDK in it takes eight milliseconds to get to main; this takes one.
package gate

import "bytes"

// Env makes a process wait, if its value is the number of the parent process. A command never sees it.
const Env = "RUNBOOK_PLUGIN_GATE"

// The descriptors of a process that waits.
const (
	Leave  = 3 // what to become arrives here; its end without that is the order to exit
	Report = 4 // closed by becoming the command; otherwise says why not
)

// Order is what to become. No argument and no variable can hold a zero byte; the end marks a whole order.
func Order(argv, env []string) []byte {
	var b []byte
	for _, a := range argv {
		b = append(append(append(b, 'a'), a...), 0)
	}
	for _, e := range env {
		b = append(append(append(b, 'e'), e...), 0)
	}
	return append(b, '.')
}

// parse takes an order apart. One that is cut is refused: whoever sent it is gone.
func parse(order []byte) (argv, env []string, ok bool) {
	order, ok = bytes.CutSuffix(order, []byte{'.'})
	for ok && len(order) > 0 {
		var part []byte
		if part, order, ok = bytes.Cut(order, []byte{0}); !ok || len(part) == 0 {
			return nil, nil, false
		}
		switch part[0] {
		case 'a':
			argv = append(argv, string(part[1:]))
		case 'e':
			env = append(env, string(part[1:]))
		default:
			return nil, nil, false
		}
	}
	return argv, env, ok && len(argv) > 0
}
