package pluginhost

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"
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
	SHA256   string         `json:"sha256"`
	Manifest jsontext.Value `json:"manifest"` // the message of the plugin protocol, in protobuf's JSON
}

var isSHA256 = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{64}$`) })

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
	if err := json.Unmarshal(data, &doc, json.RejectUnknownMembers(true)); err != nil {
		return nil, bad("%s", where(err))
	}
	if doc.Version != 1 {
		return nil, bad("its version is %d; this program knows 1", doc.Version)
	}
	manifests, wrong := make([]sdk.Manifest, len(doc.Plugins)), make([]error, len(doc.Plugins))
	var g errgroup.Group // there may be many, and large ones
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range doc.Plugins {
		g.Go(func() error {
			manifests[i], wrong[i] = p.manifest()
			return nil
		})
	}
	_ = g.Wait()
	l := Lock{}
	for i, p := range doc.Plugins {
		m, err := manifests[i], wrong[i]
		_, twice := l[m.Name]
		switch {
		case errors.Is(err, errUnreadable):
			return nil, bad("plugin %d: its manifest cannot be read", i+1)
		case err != nil:
			return nil, bad("%v", err)
		case twice:
			return nil, bad("plugin %s is there twice", m.Name)
		case !isSHA256().MatchString(p.SHA256):
			return nil, bad("plugin %s: %.80q is not a SHA-256 in hex", m.Name, p.SHA256)
		}
		l[m.Name] = Locked{SHA256: p.SHA256, Manifest: m}
	}
	return l, nil
}

// where words an error of the document for people, who need not know what it was to be read into.
func where(err error) string {
	semantic, syntactic := (*json.SemanticError)(nil), (*jsontext.SyntacticError)(nil)
	switch {
	case errors.As(err, &semantic) && semantic.Err != nil:
		return fmt.Sprintf("in %q: %v", semantic.JSONPointer, semantic.Err)
	case errors.As(err, &semantic):
		return fmt.Sprintf("%q does not belong where it is", semantic.JSONPointer)
	case errors.As(err, &syntactic) && syntactic.JSONPointer == "":
		return fmt.Sprintf("byte %d: %v", syntactic.ByteOffset, syntactic.Err)
	case errors.As(err, &syntactic):
		return fmt.Sprintf("byte %d, in %q: %v", syntactic.ByteOffset, syntactic.JSONPointer, syntactic.Err)
	}
	return err.Error()
}

// errUnreadable stands for an error of protobuf, which words them differently each time.
var errUnreadable = errors.New("it cannot be read")

func (p lockPlugin) manifest() (sdk.Manifest, error) {
	var pm pluginpb.Manifest
	if err := protojson.Unmarshal(p.Manifest, &pm); err != nil {
		return sdk.Manifest{}, errUnreadable
	}
	m, err := sdk.DecodeManifest(&pm)
	if err != nil {
		return m, err
	}
	return m, CheckManifest(m.Name, m)
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
	text, err := json.Marshal(doc, jsontext.WithIndent("  "), jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true))
	if err != nil {
		return nil, problem.Wrap(problem.Internal, err, "write %s", LockFile)
	}
	return append(text, '\n'), nil
}
