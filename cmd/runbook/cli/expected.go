package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/seed1de3961f/runbook/runtime/engine"
)

// expectedFile is where a run leaves what it needed, for the next one. It may be lost at any time.
func expectedFile(state string) string { return filepath.Join(state, "cache", "expected") }

// recall is what the last run needed; nothing if that is not known.
func recall(state string) (x engine.Expected) {
	text, err := os.ReadFile(expectedFile(state))
	if err != nil || json.Unmarshal(text, &x) != nil {
		return engine.Expected{}
	}
	return x
}

// remember leaves it, if it has changed.
func remember(state string, was, is engine.Expected) error {
	if reflect.DeepEqual(was, is) {
		return nil
	}
	text, err := json.Marshal(is)
	if err != nil {
		return err
	}
	file := expectedFile(state)
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// One write of a few bytes: whoever reads half of it reads nothing.
	return os.WriteFile(file, text, 0o600)
}
