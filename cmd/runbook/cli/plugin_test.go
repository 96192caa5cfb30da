package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/seed1de3961f/runbook/plugins/sdk"
)

// flagsPlugin is a plugin that is not part of the program: flags are files in a directory.
func flagsPlugin() *sdk.Plugin {
	type flag struct {
		Name string   `rb:"name,required,positional" doc:"name of the flag"`
		Tags []string `rb:"tags" doc:"what it is about"`
	}
	var config struct {
		Dir string `rb:"dir,required" doc:"where the flags are"`
	}
	p := sdk.New("flags", "0.1.0", "Flags that are files.")
	sdk.ConfigVar(p, &config)
	sdk.QueryFunc(p, "is_set", "Whether a flag is set.", func(_ context.Context, f flag) (bool, error) {
		_, err := os.Stat(filepath.Join(config.Dir, f.Name))
		return err == nil, nil
	})
	sdk.ActionFunc(p, "set", "Set a flag.", func(c *sdk.Call, f flag) (bool, error) {
		if err := c.Begin(nil); err != nil {
			return false, err
		}
		return true, os.WriteFile(filepath.Join(config.Dir, f.Name), []byte(c.Key), 0o600)
	}, sdk.BlastRadius("process"))
	sdk.PlanFunc(p, "set", func(_ context.Context, t sdk.Target, f flag) (sdk.Plan, error) {
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: "flag " + f.Name + " for " + t.Name, After: "set"}}}, nil
	})
	sdk.ActionFunc(p, "clear", "Remove a flag.", func(c *sdk.Call, f flag) (bool, error) {
		if err := c.Begin(nil); err != nil {
			return false, err
		}
		return true, os.Remove(filepath.Join(config.Dir, f.Name))
	})
	return p
}
