package pluginhost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// LockFile is the name of the lock, beside project.star.
const LockFile = "runbook.lock"

// MaxLock is the largest lock that is read, in bytes.
const MaxLock = 16 << 20

// Lock is which file each external plugin is, and what it says about itself, by the plugin's name. It is part of the project, so that a plugin's
// change is looked at like any other change of the project, and so that nothing has to start a plugin to know its functions.
type Lock map[string]Locked

// Locked is one plugin of a lock.
type Locked struct {
	SHA256   string // of the file that is executed, in hex
	Manifest sdk.Manifest
}

type lockDocument struct {
	Version int          `json:"version"`
	Plugins []lockPlugin `json:"plugins"`
}

type lockPlugin struct {
	SHA256   string          `json:"sha256"`
	Manifest json.RawMessage `json:"manifest"` // the message of the plugin protocol, in protobuf's JSON
}

var isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// DecodeLock reads what Encode wrote, and refuses anything else.
func DecodeLock(data []byte) (Lock, error) {
	bad := func(format string, args ...any) error {
		return problem.New(problem.Project, "%s: %s", LockFile, fmt.Sprintf(format, args...)).
			WithHint("make it anew, look at what it changes, and commit it: runbook plugin lock")
	}
	if len(data) > MaxLock {
		return nil, bad("larger than %d MiB", MaxLock>>20)
	}
	var doc lockDocument
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, bad("%v", err)
	}
	if d.More() {
		return nil, bad("there is more behind its end")
	}
	if doc.Version != 1 {
		return nil, bad("its version is %d; this program knows 1", doc.Version)
	}
	l := Lock{}
	for i, p := range doc.Plugins {
		var pm pluginpb.Manifest
		if err := protojson.Unmarshal(p.Manifest, &pm); err != nil {
			return nil, bad("plugin %d: its manifest cannot be read", i+1) // protobuf words its errors differently each time
		}
		m, err := sdk.DecodeManifest(&pm)
		if err == nil {
			err = CheckManifest(m.Name, m)
		}
		_, twice := l[m.Name]
		switch {
		case err != nil:
			return nil, bad("%v", err)
		case twice:
			return nil, bad("plugin %s is there twice", m.Name)
		case !isSHA256.MatchString(p.SHA256):
			return nil, bad("plugin %s: %.80q is not a SHA-256 in hex", m.Name, p.SHA256)
		}
		l[m.Name] = Locked{SHA256: p.SHA256, Manifest: m}
	}
	return l, nil
}

// Encode writes the lock, always in the same way.
func (l Lock) Encode() ([]byte, error) {
	doc := lockDocument{Version: 1, Plugins: []lockPlugin{}}
	for _, name := range slices.Sorted(maps.Keys(l)) {
		pm, err := sdk.EncodeManifest(l[name].Manifest)
		if err != nil {
			return nil, problem.Wrap(problem.PluginFailed, err, "plugin %s: its manifest", name)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(pm)
		if err != nil {
			return nil, problem.Wrap(problem.PluginFailed, err, "plugin %s: its manifest", name)
		}
		doc.Plugins = append(doc.Plugins, lockPlugin{l[name].SHA256, text})
	}
	// Indenting also takes out the spaces that protobuf puts in at random.
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, problem.Wrap(problem.Internal, err, "write %s", LockFile)
	}
	return append(text, '\n'), nil
}
