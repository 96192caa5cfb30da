package pluginhost

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What is executed is the very file that was hashed, also when another has taken its place under the name meanwhile.
func TestReplacedBetweenHashAndExec(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plugin")
	put := func(word string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte("#!/bin/sh\necho "+word+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put("reviewed")
	sum, err := Hash(path)
	if err != nil {
		t.Fatal(err)
	}
	h := &Plugins{config: Config{External: map[string]External{"x": {Path: path, SHA256: sum}}}}
	pr, err := h.program("x")
	if err != nil {
		t.Fatal(err)
	}
	defer pr.file.Close()
	put("evil")
	g, err := newGroup(pr, nil, "good", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(g.Stdout())
	if err != nil || string(out) != "reviewed\n" {
		t.Errorf("it said %q (%v)", out, err)
	}
	<-g.done
	if _, err := h.program("x"); err == nil {
		t.Error("the other file is started the next time")
	}
}
