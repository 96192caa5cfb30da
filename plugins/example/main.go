// Command example is a whole plugin: flags that are files in a directory.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/seed1de3961f/runbook/plugins/sdk"
)

var config struct {
	Dir string `rb:"dir,required" doc:"where the flags are"`
}

type flag struct {
	Name string `rb:"name,required,positional" doc:"name of the flag"`
}

func isSet(_ context.Context, f flag) (bool, error) {
	_, err := os.Stat(filepath.Join(config.Dir, filepath.Base(f.Name)))
	return err == nil, nil
}

func set(c *sdk.Call, f flag) (bool, error) {
	if was, _ := isSet(c, f); was {
		return true, sdk.NoChange("it was set")
	}
	if err := c.Begin(nil); err != nil { // nothing may happen before, nor after an error
		return false, err
	}
	return true, os.WriteFile(filepath.Join(config.Dir, filepath.Base(f.Name)), []byte(c.Key), 0o644)
}

func main() {
	p := sdk.New("example", "0.1.0", "Flags that are files.")
	sdk.ConfigVar(p, &config)
	sdk.QueryFunc(p, "is_set", "Whether a flag is set.", isSet)
	sdk.ActionFunc(p, "set", "Set a flag.", set)
	p.Main()
}
