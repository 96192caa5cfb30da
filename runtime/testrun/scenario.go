package testrun

import (
	"context"
	"errors"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// scenario runs a test that is declared.
func (s *script) scenario(ctx context.Context, r *value.Record) error {
	fn := scenarioFn()
	given := kit.Args{}
	for _, f := range r.Fields {
		given[f.Name] = f.Value
	}
	a, err := kit.Check(fn, given)
	if err != nil {
		return err
	}
	at := func(field string) value.Pos {
		f, _ := r.Get(field)
		if f.Pos == (value.Pos{}) {
			return r.Pos
		}
		return f.Pos
	}
	ask := func(field, family, function string, args kit.Args) (value.Value, error) {
		return s.Call(ctx, kit.Request{Family: family, Function: function, Args: args, Pos: at(field)})
	}
	for _, path := range list(a["metrics"]) {
		if _, err := ask("metrics", "", "metrics", kit.Args{"path": path}); err != nil {
			return err
		}
	}
	for _, e := range dict(a["series"]) {
		if _, err := ask("series", "", "series", kit.Args{"series": e.Key, "values": e.Value, "step": a["step"]}); err != nil {
			return err
		}
	}
	for _, e := range dict(a["fake"]) {
		if _, err := ask("fake", "", "fake", kit.Args{"function": e.Key, "outcome": e.Value}); err != nil {
			return err
		}
	}
	ran, err := ask("runbook", "", "run", kit.Args{"runbook": a["runbook"], "at": a["at"], "mode": a["mode"]})
	if err != nil {
		return err
	}
	found, err := ask("target", typeRun, "target", kit.Args{"run": ran, "name": a["target"]})
	if err != nil {
		return err
	}
	expects := false
	for _, x := range []struct{ field, how string }{{"condition", "equal"}, {"outcome", "equal"}, {"reason", "contain"}, {"refused", "equal"}, {"actions", "equal"}} {
		want, given := a[x.field]
		if !given {
			continue
		}
		expects = true
		got, _ := found.(*value.Record).Get(x.field)
		if err := s.w.host.compare(x.how, got.Value, want); err != nil {
			if f, ok := errors.AsType[*failure](err); ok {
				return &failure{at(x.field), x.field + ": " + f.text}
			}
			return err
		}
	}
	if !expects {
		return &failure{r.Pos, "the scenario expects nothing, so it could not fail"}
	}
	return nil
}
