package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Ports says where the service can be reached. The supervisor replaces the file ports.json as a whole at each change.
type Ports struct {
	API        string             `json:"api"` // base URL of the Prometheus API
	Supervisor int                `json:"supervisor"`
	Workers    map[string]Process `json:"workers"`
}

// Process is the worker process that runs now. PID is 0 while there is none.
type Process struct {
	PID int    `json:"pid"`
	URL string `json:"url,omitempty"`
}

func portsFile(dir string) string        { return filepath.Join(dir, "ports.json") }
func pidFile(dir, name string) string    { return filepath.Join(dir, name+".pid") }
func startsFile(dir, name string) string { return filepath.Join(dir, name+".starts") }

// ReadPorts reads ports.json.
func ReadPorts(dir string) (Ports, error) {
	b, err := os.ReadFile(portsFile(dir))
	if err != nil {
		return Ports{}, err
	}
	var p Ports
	if err := json.Unmarshal(b, &p); err != nil {
		return Ports{}, fmt.Errorf("read %s: %w", portsFile(dir), err)
	}
	return p, nil
}

// worker returns the process of a worker that the supervisor knows. It is the only way from a name that somebody passed
// in to a process or a file.
func worker(dir, name string) (Process, error) {
	p, err := ReadPorts(dir)
	if err != nil {
		return Process{}, err
	}
	w, ok := p.Workers[name]
	if !ok {
		return Process{}, usagef("there is no worker %q", name)
	}
	return w, nil
}

// replaceFile writes a file so that a reader sees the old text or the new, never a part.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// countStart adds one to the number of times that a worker has been started in this directory, and returns it.
func countStart(dir, name string) (int, error) {
	b, err := os.ReadFile(startsFile(dir, name))
	n := 0
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, err
	default:
		if n, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return 0, fmt.Errorf("read %s: %w", startsFile(dir, name), err)
		}
	}
	n++
	return n, replaceFile(startsFile(dir, name), []byte(strconv.Itoa(n)+"\n"))
}
