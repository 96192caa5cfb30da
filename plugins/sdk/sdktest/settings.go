package sdktest

import (
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Setting is the settings of a connection, and a part of what is said to be wrong with them: "" if they are accepted.
type Setting struct {
	Config value.Dict
	Want   string
}

// Settings configures a plugin with each.
func Settings(t *testing.T, plugin func() *sdk.Plugin, cases map[string]Setting) {
	t.Helper()
	for name, c := range cases {
		err := New(t, plugin()).Configure(c.Config)
		if (err == nil) != (c.Want == "") || err != nil && !strings.Contains(err.Error(), c.Want) {
			t.Errorf("%s: got %v, want %q", name, err, c.Want)
		}
	}
}
