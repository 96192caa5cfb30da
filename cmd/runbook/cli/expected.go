package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// lastRun is what a run leaves for the next one. It may be lost at any time.
type lastRun struct {
	Project string          `json:"project"` // whose state directory it is
	Needed  engine.Expected `json:"needed"`
}

func lastRunFile(state string) string { return filepath.Join(state, "cache", "expected") }

// recall is what the last run left; nothing if that is not known.
func recall(state string) (l lastRun) {
	text, err := os.ReadFile(lastRunFile(state))
	if err != nil || json.NewDecoder(bytes.NewReader(text)).Decode(&l) != nil { // what follows is of one before
		return lastRun{}
	}
	return l
}

// remember leaves it.
func remember(state string, l lastRun) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	file := lastRunFile(state)
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// Over what is there, of which the rest stays: giving a block back to take another one waits for the disk. It is one write of a few bytes, and whoever
	// reads half of it makes a bad guess.
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// likelyState is the state directory that was given, or the one that the project is likely to have.
func (c *call) likelyState(tree *project.Tree) (string, error) {
	state, err := c.givenState()
	if err == nil && state == "" {
		state = project.LikelyState(tree)
	}
	return state, err
}

// openAhead begins to open the store of a project before the project is read, if its last run had it where it is likely to be now; else nil.
func (c *call) openAhead(tree *project.Tree, command string) *auditedStore {
	dir, err := c.likelyState(tree)
	if err != nil || recall(dir).Project != tree.Root() {
		return nil
	}
	state, err := control.Open(dir)
	if err != nil {
		return nil
	}
	config := storeConfig(state, command)
	config.Writer = true
	st, err := c.openStoreAs(config)
	if err != nil {
		return nil
	}
	st.Ahead()
	return &st
}
