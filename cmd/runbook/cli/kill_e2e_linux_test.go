//go:build e2e

package cli

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// perSite is how many runs are killed in one project: no policy allows a problem more than 100 attempts.
const perSite = 100

// TestE2EKills kills RUNBOOK_TEST_KILLS (200) runs at random moments, half of them of one step and half of three with a cleanup. make kill sets it.
func TestE2EKills(t *testing.T) {
	n := 200
	if s, ok := os.LookupEnv("RUNBOOK_TEST_KILLS"); ok {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for name, does := range map[string]string{"one step": oneStep, "three steps": threeSteps} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for left := n / 2; left > 0; left -= perSite {
				killAtAnyMoment(t, does, min(left, perSite), time.Hour)
			}
		})
	}
}
