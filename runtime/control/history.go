package control

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// HaltEvent is one halt or resume, for "what did we miss".
type HaltEvent struct {
	What   string    `json:"what"` // "halt" or "resume"
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"`
}

// note adds to the history. It decides nothing, and a halt does not fail because of it.
func (s State) note(e HaltEvent) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("halts.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE|noFollow, 0o640)
	if err != nil {
		return err
	}
	adoptFrom(s.Dir, f.Name())
	// One write, so that two processes do not mix their lines; it begins anew after a line that a crash cut short.
	_, err = f.Write(append(append([]byte("\n"), line...), '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// History is every halt and resume, oldest first. A halt by hand, or through the environment, leaves no line.
func (s State) History() ([]HaltEvent, error) {
	content, err := os.ReadFile(s.path("halts.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(err, "halts.log")
	}
	var all []HaltEvent
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		var e HaltEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			all = append(all, e)
		}
	}
	return all, nil
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
