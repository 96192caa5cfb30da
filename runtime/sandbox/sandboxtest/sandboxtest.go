// Package sandboxtest lets the tests of other packages use real workers.
//
// A package that does so has this in one of its test files:
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m) }
package sandboxtest

import (
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Main runs the tests, or is the worker if the test binary was started as one.
func Main(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == sandbox.WorkerCommand {
		os.Exit(sandbox.ServeWorker())
	}
	os.Exit(m.Run())
}

// Files is a project in memory: path to text.
type Files map[string]string

var _ sandbox.Source = Files{}

// Read implements sandbox.Source.
func (f Files) Read(path string) ([]byte, error) {
	text, ok := f[path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return []byte(text), nil
}

// Worker starts a worker that ends with the test. It keeps every file that it has read, so a test that changes a file
// needs another one.
func Worker(t testing.TB, limits sandbox.Limits) sandbox.Worker {
	t.Helper()
	w, err := sandbox.Spawner{Limits: limits}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}
