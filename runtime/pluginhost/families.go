package pluginhost

import (
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
)

// Families are the tables by which runbooks reach plugins: one family a plugin, in the order of the manifests. Actions take
// the engine's own arguments besides theirs. Call is nil throughout: the engine sends queries to the plugin of the
// connection that it chooses for the target, and carries actions out itself.
func Families(manifests []sdk.Manifest) ([]kit.Family, error) {
	var out []kit.Family
	for _, m := range manifests {
		if err := CheckManifest(m.Name, m); err != nil {
			return nil, err
		}
		fam := kit.Family{Name: m.Name, Doc: m.Doc}
		for _, f := range m.Functions {
			fn := kit.Function{Name: f.Name, Kind: kind(f.Kind), Doc: f.Doc, Positional: f.Positional, Returns: kit.Type(f.Returns)}
			for _, pa := range f.Params {
				fn.Params = append(fn.Params, kit.Param{
					Name: pa.Name, Type: kit.Type(pa.Type), Required: pa.Required, Default: pa.Default, Doc: pa.Doc, Secret: pa.Sensitive,
				})
			}
			if fn.Kind == kit.Analysis {
				fn.Params = append(fn.Params, kit.ReservedAnalysisParams()...)
			}
			if fn.Kind == kit.Action {
				fn.Params = append(fn.Params, kit.ReservedActionParams()...)
			}
			fam.Functions = append(fam.Functions, fn)
		}
		out = append(out, fam)
	}
	return out, nil
}

func kind(k sdk.Kind) kit.Kind {
	switch k {
	case sdk.Query:
		return kit.Query
	case sdk.Analysis:
		return kit.Analysis
	}
	return kit.Action
}
