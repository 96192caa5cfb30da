package engine

import (
	"bytes"
	"runtime"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// Begin starts the plugin of the metric source a moment before the run, all of which waits for what that answers. What is wrong with it is told when it is asked.
func Begin(h pluginhost.Prestarter, s *project.Settings) {
	if c, err := resolve(s, s.Metrics); err == nil {
		h.Prestart(c)
		runtime.Gosched() // that has its turn now
	}
}

// prestart starts what is going to be used, so that nobody waits for it later.
func (e *engine) prestart(c pluginhost.Connection) {
	if p, ok := e.Host.(pluginhost.Prestarter); ok {
		p.Prestart(c)
	}
}

// prestartFor starts the plugins that an evaluation for this target is likely to use, beside the worker: those that the
// text of the runbook names. A wrong guess costs a process that is told nothing but its configuration.
func (e *engine) prestartFor(rb *project.Runbook, target action.Target) {
	if e.dry || rb.Mode != guard.Auto || len(e.run.Halt) > 0 {
		return
	}
	asked := map[string]bool{}
	for _, c := range e.Settings.Connections {
		if asked[c.Plugin] || !e.names(rb, c.Plugin) {
			continue
		}
		asked[c.Plugin] = true
		// What is wrong with a connection is told by the call that needs it.
		if conn, err := e.Settings.ConnectionFor(c.Plugin, target.Labels); err == nil {
			if r, err := e.connection(conn); err == nil {
				e.prestart(r)
			}
		}
	}
}

// names says whether the files of a runbook mention a family.
func (e *engine) names(rb *project.Runbook, family string) bool {
	for _, f := range rb.Closure {
		if text, err := e.files.Read(f.Path); err == nil && bytes.Contains(text, []byte("."+family+".")) {
			return true
		}
	}
	return false
}
