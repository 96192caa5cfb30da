package project

import (
	"testing"

	"github.com/seed1de3961f/runbook/builtins/kit"
)

// A worker is told what it needs to check a call and to say what is missing, and the tables keep what they say to people.
func TestVocabularyIsForWorkers(t *testing.T) {
	t.Parallel()
	families := Families()
	v := Vocabulary(families)
	for _, f := range append(v.Modules, kit.Family{Functions: v.Declarations}) {
		if f.Doc != "" {
			t.Errorf("%s is described", f.Name)
		}
		for _, fn := range f.Functions {
			if fn.Doc != "" {
				t.Errorf("%s is described", fn.Name)
			}
			for _, p := range fn.Params {
				if (p.Doc != "") != p.Required {
					t.Errorf("%s of %s is described as %q", p.Name, fn.Name, p.Doc)
				}
			}
		}
	}
	for _, f := range families {
		for _, fn := range f.Functions {
			if fn.Doc == "" || len(fn.Params) > 0 && fn.Params[0].Doc == "" {
				t.Errorf("%s is not described any more", fn.Name)
			}
		}
	}
}
