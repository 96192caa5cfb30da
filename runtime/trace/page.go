package trace

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{"anchor": anchor, "lines": lines}).Parse(pageText))
})

// Page writes a run as one page of HTML that needs nothing else: the tree of ExplainFull, with the text of the files by path that it refers to.
func Page(w io.Writer, r *Run, files map[string]string) error {
	type file struct{ Path, Text string }
	var all []file
	for _, path := range slices.Sorted(maps.Keys(files)) {
		all = append(all, file{path, files[path]})
	}
	return page().Execute(w, map[string]any{
		"Run": r, "Tree": ExplainFull(r), "Files": all, "Started": r.Started.Format("2006-01-02 15:04:05 -07:00"), "Summary": OneLine(r),
		"Host": fmt.Sprintf("%s, process %d", r.Owner.Host, r.Owner.PID), "Took": r.Ended.Sub(r.Started).Round(time.Millisecond),
	})
}

// anchor is the place on the page of "file.star:12:5".
func anchor(where string) string {
	path, rest, _ := strings.Cut(where, ":")
	line, _, _ := strings.Cut(rest, ":")
	return "#" + path + "-" + line
}

type sourceLine struct {
	N    int
	Text string
}

func lines(text string) []sourceLine {
	var out []sourceLine
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		out = append(out, sourceLine{i + 1, l})
	}
	return out
}
