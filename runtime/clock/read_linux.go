package clock

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Read reads the machine's clocks.
func Read() (Sample, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Sample{}, unreadable("boot time", err)
	}
	s := Sample{Wall: time.Now().Round(0).UTC(), Uptime: time.Duration(ts.Nano())}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Sample{}, unreadable("boot id", err)
	}
	if s.Boot = strings.TrimSpace(string(boot)); s.Boot == "" {
		return Sample{}, unreadable("boot id", fmt.Errorf("it is empty"))
	}
	// Reading needs no privilege, but a sandbox may forbid the call. Not knowing means not synchronised.
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	s.Synced = err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
	return s, nil
}

func unreadable(what string, err error) error {
	return problem.Wrap(problem.Internal, err, "read clock: %s", what).
		WithHint("runbook needs CLOCK_BOOTTIME and /proc/sys/kernel/random/boot_id: is /proc mounted?")
}
