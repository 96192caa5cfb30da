package cli

import (
	"context"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -ldflags "-X .../cmd/runbook/cli.version=v1.2.3".
var version = "devel"

func versionCommand() spec {
	return spec{
		name: "version", group: "Maintain",
		summary: "print the version, and what it was built from",
		example: "runbook version --json",
		run: func(context.Context, *call) (result, error) {
			return buildInfo(), nil
		},
	}
}

// versionResult says which program this is, down to the commit.
type versionResult struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with changes that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func buildInfo() versionResult {
	v := versionResult{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

func (v versionResult) text(u *ui) {
	u.Printf("runbook %s (%s, %s)\n", v.Version, v.Go, v.Platform)
	if v.Commit != "" {
		changed := ""
		if v.Modified {
			changed = ", with changes"
		}
		u.Printf("commit %.12s%s\n", v.Commit, changed)
	}
}
