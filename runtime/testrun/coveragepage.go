package testrun

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
	"sync"
)

//go:embed coverage.html
var coverageText string

var coveragePage = sync.OnceValue(func() *template.Template { return template.Must(template.New("coverage").Parse(coverageText)) })

// The classes of a line that a statement or a condition begins in.
const (
	lineRan    = "ran"
	linePartly = "partly" // a part of a condition went one way only, or an action ended one way only
	lineNever  = "never"
)

type coverageFile struct {
	Path    string
	Percent float64
	Gaps    []Gap
	Lines   []coverageLine
}

type coverageLine struct {
	N                 int
	Text, Class, Gaps string
}

// Page writes what is covered as one page of HTML that needs nothing else; read returns the text of a file.
func (c Coverage) Page(w io.Writer, read func(path string) ([]byte, error)) error {
	var files []coverageFile
	for _, path := range c.Files() {
		text, err := read(path)
		if err != nil {
			return err
		}
		f := coverageFile{Path: path, Percent: c[path].Percent(), Gaps: c.Gaps(path)}
		gaps := map[int][]string{}
		for _, g := range f.Gaps {
			gaps[g.Pos.Line] = append(gaps[g.Pos.Line], g.What)
		}
		for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
			x := coverageLine{N: i + 1, Text: line, Gaps: strings.Join(gaps[i+1], "; ")}
			ran, begins := c[path].Statements[i+1]
			switch {
			case begins && !ran:
				x.Class = lineNever
			case x.Gaps != "":
				x.Class = linePartly
			case begins:
				x.Class = lineRan
			}
			f.Lines = append(f.Lines, x)
		}
		files = append(files, f)
	}
	return coveragePage().Execute(w, files)
}

// Percent is how much of a file is covered, 100 if there is nothing to cover.
func (f *FileCoverage) Percent() float64 {
	covered, all := f.Points()
	if all == 0 {
		return 100
	}
	return 100 * float64(covered) / float64(all)
}
