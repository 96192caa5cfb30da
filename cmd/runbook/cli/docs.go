package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

func docsCommand() spec {
	return spec{
		name: "docs", group: "Look", summary: "print the reference of what runbooks, tests and project.star can say",
		about: `Prints Markdown, from the tables by which arguments are checked; docs/builtins.md is
the whole of it. NAME is a function such as fleet, metrics.value or exec.run, or a
family such as metrics.`,
		args: "[NAME]", max: 1,
		example: "runbook docs metrics.value",
		run:     runDocs,
	}
}

// chapter is a part of the reference: what one kind of file can say.
type chapter struct {
	Title    string       `json:"title"`
	Doc      string       `json:"doc"`
	Families []kit.Family `json:"families"`
}

type docsResult struct {
	Chapters []chapter `json:"chapters"`
}

func runDocs(_ context.Context, c *call) (result, error) {
	chapters, err := reference()
	if err != nil {
		return nil, err
	}
	if len(c.args) == 0 {
		return docsResult{chapters}, nil
	}
	wanted := strings.TrimPrefix(strings.TrimPrefix(c.args[0], "ctx."), "t.")
	var known []string
	out := docsResult{Chapters: []chapter{}}
	for _, ch := range chapters {
		one := chapter{Title: ch.Title, Doc: ch.Doc}
		for _, fam := range ch.Families {
			known = append(known, fam.Name)
			if fam.Name == wanted && wanted != "" {
				one.Families = append(one.Families, fam)
				continue
			}
			for _, fn := range fam.Functions {
				full := strings.TrimPrefix(fam.Name+"."+fn.Name, ".")
				known = append(known, full)
				if full == wanted || fn.Name == wanted && fam.Name == "t" {
					f := fam
					f.Functions = []kit.Function{fn}
					one.Families = append(one.Families, f)
				}
			}
		}
		if len(one.Families) > 0 {
			out.Chapters = append(out.Chapters, one)
		}
	}
	if len(out.Chapters) == 0 {
		return nil, problem.New(problem.NotFound, "there is nothing called %q%s", c.args[0], problem.DidYouMean(wanted, known)).WithHint("runbook docs prints all of it")
	}
	return out, nil
}

// reference is everything that can be said, in the order in which it is read.
func reference() ([]chapter, error) {
	manifests, err := plugins.Manifests()
	if err != nil {
		return nil, err
	}
	generated, err := pluginhost.Families(manifests)
	if err != nil {
		return nil, err
	}
	chapters := []chapter{
		{Title: "A runbook file", Doc: "What stands at the top level of a runbook, and what run(ctx) can return."},
		{Title: "Under ctx", Doc: "What run(ctx) and cleanup(ctx) can ask. ctx also has now, target (name, key, labels), params, attempt and, for cleanup, steps."},
		{Title: "Plugins", Doc: "What plugins can do and answer, under ctx as well. Every action also takes reason, cooldown, timeout, expect, within and must; every analysis takes cooldown."},
		{Title: "A file of tests", Doc: "What stands at the top level of a file that ends in _test.star, and what t has."},
		{Title: "topology.star", Doc: "Which component needs which.", Families: project.TopologyFamilies()},
		{Title: "project.star", Doc: "The settings of a project.", Families: project.Families()},
	}
	for _, fam := range builtins.All() {
		i := 1
		if fam.Name == "" || !slices.ContainsFunc(fam.Functions, func(f kit.Function) bool { return f.Kind != kit.Declare }) {
			i = 0
		}
		chapters[i].Families = append(chapters[i].Families, fam)
	}
	chapters[0].Families = append(chapters[0].Families, project.RunbookPolicy())
	for _, fam := range generated {
		for i := range fam.Functions { // what all have is said once
			fam.Functions[i].Params = slices.DeleteFunc(slices.Clone(fam.Functions[i].Params), reserved(fam.Functions[i]))
		}
		chapters[2].Families = append(chapters[2].Families, fam)
	}
	chapters[2].Families = append(chapters[2].Families, kit.Family{Name: "every action", Functions: []kit.Function{{
		Name: "", Kind: kit.Declare, Doc: "The arguments that every action takes besides its own.", Params: kit.ReservedActionParams(),
	}}})
	chapters[3].Families = testrun.Families()
	return chapters, nil
}

func reserved(fn kit.Function) func(kit.Param) bool {
	list := kit.ReservedActionParams()
	if fn.Kind == kit.Analysis {
		list = kit.ReservedAnalysisParams()
	}
	return func(p kit.Param) bool {
		return fn.Kind != kit.Query && slices.ContainsFunc(list, func(r kit.Param) bool { return r.Name == p.Name })
	}
}

func (r docsResult) text(u *ui) {
	u.Printf("%s", strings.TrimPrefix(markdown(r.Chapters), "\n"))
}

func markdown(chapters []chapter) string {
	var b strings.Builder
	for _, ch := range chapters {
		fmt.Fprintf(&b, "\n# %s\n\n%s\n", ch.Title, ch.Doc)
		for _, fam := range ch.Families {
			if fam.Name != "" {
				fmt.Fprintf(&b, "\n## %s\n", fam.Name)
			}
			if fam.Doc != "" {
				fmt.Fprintf(&b, "\n%s\n", fam.Doc)
			}
			for _, fn := range fam.Functions {
				describe(&b, fam.Name, fn)
			}
		}
	}
	return b.String()
}

func describe(b *strings.Builder, family string, fn kit.Function) {
	name := strings.TrimPrefix(family+"."+fn.Name, ".")
	if fn.Name != "" {
		kind := ""
		if fn.Kind != kit.Declare && fn.Kind != kit.Query {
			kind = " (" + string(fn.Kind) + ")"
		}
		fmt.Fprintf(b, "\n### %s%s\n\n", name, kind)
		fmt.Fprintf(b, "`%s`\n\n", kit.Usage(name, kit.Function{Name: fn.Name, Kind: kit.Query, Positional: fn.Positional, Params: fn.Params}))
	} else {
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "%s\n", fn.Doc)
	if len(fn.Params) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| | type | |\n|---|---|---|\n")
	for _, p := range fn.Params {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", p.Name, typeOf(p), strings.ReplaceAll(meaning(p), "|", "\\|"))
	}
}

func typeOf(p kit.Param) string {
	if len(p.Record) > 0 {
		return strings.Join(p.Record, ", ")
	}
	return string(p.Type)
}

// meaning is what a parameter is for, and what holds without it.
func meaning(p kit.Param) string {
	switch {
	case p.Required:
		return p.Doc + "; required"
	case p.Default != nil:
		return p.Doc + "; default " + defaultText(p.Default)
	}
	return p.Doc
}

func defaultText(v value.Value) string {
	switch v := v.(type) {
	case value.Duration:
		return "`\"" + value.FormatDuration(time.Duration(v)) + "\"`"
	case value.String:
		return fmt.Sprintf("`%q`", string(v))
	case value.Bool:
		if v {
			return "`True`"
		}
		return "`False`"
	}
	return fmt.Sprintf("`%v`", v)
}
