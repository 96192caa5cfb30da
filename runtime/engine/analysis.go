package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// maxAnalysis is the largest result that is kept: more is no result but the data.
const maxAnalysis = 1 << 20

// analyse asks an expensive question, or hands out what it was answered within its cooldown: the longer of the plugin's and the call's. The same
// question is the same function, over the same connection, with the same arguments, whichever runbook asks it and about whatever target.
func (v *evaluation) analyse(ctx context.Context, fam kit.Family, fn kit.Function, args kit.Args, q *trace.Query) (value.Value, error) {
	asked := maps.Clone(args)
	delete(asked, "cooldown")
	var conn project.Connection
	var cooldown time.Duration
	var err error
	source := "metrics " + v.e.Settings.Metrics.Name
	if fn.Call == nil {
		if conn, err = v.e.Settings.ConnectionFor(fam.Name, v.target.Labels); err != nil {
			return nil, err
		}
		if cooldown, err = v.e.analysisCooldown(ctx, fam.Name, fn.Name); err != nil {
			return nil, err
		}
		source = conn.Name
	} else if text, err := value.Marshal(v.rb.Params); err == nil { // its queries mean something else with other parameters
		source += " " + string(text)
	}
	cooldown = max(cooldown, orDuration(args["cooldown"], 0))
	key, err := analysisKey(source, fam.Name+"."+fn.Name, asked)
	if err != nil {
		return nil, err
	}
	var known *ledger.Analysis
	var now action.Clock
	err = v.e.Store.View(ctx, []string{ledger.KeyClock, key}, func(tx store.ReadTx) error {
		if now, err = ledger.Moment(tx, v.e.Sample); err != nil {
			return err
		}
		known, err = ledger.Read[*ledger.Analysis](tx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if known != nil {
		if age := max(0, now.Trusted-known.At.Trusted); age < cooldown {
			v.sawSample(known.At.Wall)
			q.Answer = fmt.Sprintf("answered %s ago, asked again after %s: %s", age.Round(time.Second), value.FormatDuration(cooldown), renderValue(known.Value.Value))
			return analysed(known.Value.Value, age), nil
		}
	}
	var val value.Value
	if fn.Call != nil {
		val, err = fn.Call(ctx, asker{v, q}, asked)
	} else {
		var c pluginhost.Connection
		if c, err = v.e.connection(conn); err == nil {
			val, err = v.query(ctx, c, fn.Name, asked, q)
		}
	}
	if err != nil {
		return nil, err
	}
	q.Answer = renderValue(val)
	if cooldown == 0 || v.e.dry {
		return analysed(val, 0), nil
	}
	return analysed(val, 0), v.keepAnalysis(ctx, key, val)
}

func (v *evaluation) query(ctx context.Context, c pluginhost.Connection, function string, args kit.Args, q *trace.Query) (value.Value, error) {
	from := v.e.wall()
	val, err := v.e.Host.Query(ctx, c, function, value.Map(args))
	q.Took = v.e.wall().Sub(from)
	return val, err
}

// analysisCooldown is the plugin's own.
func (e *engine) analysisCooldown(ctx context.Context, plugin, function string) (time.Duration, error) {
	m, err := e.Host.Manifest(ctx, plugin)
	if err != nil {
		return 0, err
	}
	for _, f := range m.Functions {
		if f.Name == function {
			return f.DefaultCooldown, nil
		}
	}
	return 0, nil
}

// keepAnalysis records a result. What was found out is of no use to anybody if it cannot be kept, since it would be asked for again at once.
func (v *evaluation) keepAnalysis(ctx context.Context, key string, val value.Value) error {
	return v.e.Store.Update(ctx, []string{ledger.KeyClock}, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		text, err := value.Marshal(val)
		if err != nil {
			return err
		}
		if len(text) > maxAnalysis {
			return problem.New(problem.PluginFailed, "the result of the analysis has %d bytes; at most %d can be kept for its cooldown", len(text), maxAnalysis)
		}
		return ledger.Write(tx, key, ledger.Analysis{At: now, Value: value.JSON{Value: val}})
	})
}

func analysisKey(connection, function string, args kit.Args) (string, error) {
	text, err := value.Marshal(value.Map(args))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", connection, function, text))
	return ledger.KeyAnalysis(hex.EncodeToString(sum[:16])), nil
}

// analysed is what a runbook gets: the result, and how old it is.
func analysed(val value.Value, age time.Duration) value.Value {
	return &value.Record{Type: "analysis", Fields: []value.Field{{Name: "value", Value: val}, {Name: "age", Value: value.Duration(age)}}}
}
