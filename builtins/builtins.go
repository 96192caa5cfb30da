// Package builtins is the list of what runbooks can name without a plugin. The list is the manual: the
// reference in docs/builtins.md is printed from it.
package builtins

import (
	"github.com/seed1de3961f/runbook/builtins/alerts"
	"github.com/seed1de3961f/runbook/builtins/analysis"
	"github.com/seed1de3961f/runbook/builtins/changes"
	"github.com/seed1de3961f/runbook/builtins/declare"
	"github.com/seed1de3961f/runbook/builtins/history"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/builtins/notify"
	"github.com/seed1de3961f/runbook/builtins/state"
	"github.com/seed1de3961f/runbook/builtins/topology"
)

// All returns every family: first what a file declares (functions of kind Declare: the family without a
// name, and modules such as param), then what stands under ctx.
func All() []kit.Family {
	return append(declare.Families(), metrics.Family(), alerts.Family(), analysis.Family(), changes.Family(), history.Family(), notify.Family(), state.Family(), topology.Family())
}
