package sdk

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Manifest is what a plugin says about itself (Describe).
type Manifest struct {
	Name      string     `json:"name"`
	Version   string     `json:"version"`
	Doc       string     `json:"doc,omitempty"`
	Config    []Param    `json:"config,omitempty"` // settings of a connection in project.star
	Functions []Function `json:"functions"`
}

// Kind is what a function does. The zero Kind reads as the strictest: an action.
type Kind string

// The kinds.
const (
	Query    Kind = "query"
	Analysis Kind = "analysis"
	Action   Kind = "action"
)

// Function describes one function of a plugin. Zero values read as the strictest.
type Function struct {
	Name            string        `json:"name"`
	Kind            Kind          `json:"kind"`
	Doc             string        `json:"doc,omitempty"`
	Params          []Param       `json:"params,omitempty"`
	Positional      int           `json:"positional,omitempty"` // 0 or 1
	Returns         string        `json:"returns,omitempty"`
	DefaultTimeout  time.Duration `json:"default_timeout,omitempty"`  // 0: 30s
	MaxTimeout      time.Duration `json:"max_timeout,omitempty"`      // 0: 10m
	DefaultCooldown time.Duration `json:"default_cooldown,omitempty"` // 0: the policy's
	Settle          time.Duration `json:"settle,omitempty"`           // how long after its end a measurement means anything
	CanPlan         bool          `json:"can_plan,omitempty"`
	CanProbe        bool          `json:"can_probe,omitempty"`
	EndsTarget      bool          `json:"ends_target,omitempty"` // the target no longer exists afterwards: needs expect
	BlastRadius     string        `json:"blast_radius,omitempty"`
	Capabilities    []string      `json:"capabilities,omitempty"`
}

// Param is one parameter. Type is one of string, int, float, number, bool, duration, list, dict, labels, strings, any.
type Param struct {
	Name      string      `json:"name"`
	Type      string      `json:"type"`
	Doc       string      `json:"doc,omitempty"`
	Required  bool        `json:"required,omitempty"`
	Default   value.Value `json:"-"`
	Sensitive bool        `json:"sensitive,omitempty"`
}

// Digest sums up a manifest: two with the same say the same, but two that say the same may differ in it. It is empty if a default cannot be written.
// It spares the host a question, and the plugin an answer, which take a tenth of a plugin's start.
func (m Manifest) Digest() string {
	text := fmt.Appendf(nil, "%#v", m) // in which 12 may be an int or a float
	for _, params := range append(m.params(), m.Config) {
		for _, p := range params {
			def, err := value.Marshal(p.Default)
			if err != nil {
				return ""
			}
			text = append(append(text, '\n'), def...)
		}
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// params are those of each function.
func (m Manifest) params() [][]Param {
	all := make([][]Param, 0, len(m.Functions)+1)
	for _, f := range m.Functions {
		all = append(all, f.Params)
	}
	return all
}
