package declare

import (
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func params() []kit.Function {
	const bounds = "; no bound if not given"
	return []kit.Function{
		param("int", kit.Int, "A whole number.",
			kit.Param{Name: "min", Type: kit.Int, Doc: "the smallest value that makes sense" + bounds},
			kit.Param{Name: "max", Type: kit.Int, Doc: "the largest value that makes sense" + bounds}),
		param("float", kit.Float, "A number.",
			kit.Param{Name: "min", Type: kit.Float, Doc: "the smallest value that makes sense" + bounds},
			kit.Param{Name: "max", Type: kit.Float, Doc: "the largest value that makes sense" + bounds}),
		param("duration", kit.Duration, `A length of time, such as "5m".`,
			kit.Param{Name: "min", Type: kit.Duration, Doc: "the shortest that makes sense" + bounds},
			kit.Param{Name: "max", Type: kit.Duration, Doc: "the longest that makes sense" + bounds}),
		param("bool", kit.Bool, "True or False. It cannot stand in PromQL."),
		param("string", kit.StringT, "A text. It cannot stand in PromQL."),
	}
}

func param(name string, typ kit.Type, doc string, bounds ...kit.Param) kit.Function {
	ps := []kit.Param{{Name: "default", Type: typ, Required: true, Doc: "the value that the runbook uses"}}
	ps = append(ps, bounds...)
	ps = append(ps, kit.Param{Name: "doc", Type: kit.StringT, Doc: "what the parameter means, with its unit; empty if not given"})
	return kit.Function{Name: name, Kind: kit.Declare, Positional: 1, Doc: doc, Params: ps}
}

func str(s string) value.Value        { return value.String(s) }
func dur(d time.Duration) value.Value { return value.Duration(d) }
