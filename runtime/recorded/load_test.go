package recorded

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

func load(t *testing.T, text string, rec Recording) (*DB, Loaded, error) {
	t.Helper()
	db := New(Options{})
	l, err := db.Load(strings.NewReader(text), rec)
	return db, l, err
}

const openMetrics = `# TYPE depth gauge
depth{instance="w1"} 5 1772359200.000
depth{instance="w1"} 2000 1772359260.000
depth{instance="w2"} 7 1772359200.000
# EOF
`

const own = `{"recording":1,"server":"http://p","version":"3.1.0","step":"1m","selectors":["depth"]}
{"labels":{"__name__":"depth","instance":"w1"},"t":[1772359200000,60000],"v":[5,2000]}
{"labels":{"__name__":"depth","instance":"w2"},"t":[1772359200000],"v":[7]}
{"end":true,"series":2,"samples":3}
`

func TestLoad(t *testing.T) {
	t.Parallel()
	table := &CSV{Time: "when", Layout: "2006-01-02 15:04:05", Values: map[string]string{"jobs": "depth"}, Labels: map[string]string{"host": "instance"}, Add: map[string]string{"job": "worker"}}
	for name, c := range map[string]struct {
		name, text string
		csv        *CSV
	}{
		"OpenMetrics":       {"a.om", openMetrics, nil},
		"with a mark":       {"a.om", "\xef\xbb\xbf" + openMetrics, nil},
		"Prometheus text":   {"a.txt", "depth{instance=\"w1\"} 5 1772359200000\n\ndepth{instance=\"w1\"} 2000 1772359260000\ndepth{instance=\"w2\"} 7 1772359200000\n", nil},
		"whole answer":      {"a.json", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"depth","instance":"w1"},"values":[[1772359200,"5"],[1772359260.0,"2000"]]},{"metric":{"__name__":"depth","instance":"w2"},"value":[1772359200,"7"]}]}}`, nil},
		"list of an answer": {"a.json", `[{"metric":{"__name__":"depth","instance":"w1"},"values":[[1772359200,"5"],[1772359260.0,2000]]},{"metric":{"__name__":"depth","instance":"w2"},"values":[[1772359200,"7"]]}]`, nil},
		"own":               {"a.jsonl", own, nil},
		"CSV":               {"a.csv", "when,host,jobs\n2026-03-01 10:00:00,w1,5\n2026-03-01 10:00:00,w2,7\n2026-03-01 10:01:00,w1,2000\n2026-03-01 10:01:00,w2,\n", table},
		"CSV with CRLF":     {"a.csv", "when, host ,jobs\r\n2026-03-01 10:00:00,w1,5\r\n2026-03-01 10:00:00,w2,7\r\n2026-03-01 10:01:00,\"w1\",2000\r\n", table},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, packed := range []bool{false, true} {
				rec := Recording{Name: c.name, CSV: c.csv}
				text := c.text
				if packed {
					rec.Name += ".gz"
					var b bytes.Buffer
					z := gzip.NewWriter(&b)
					_, _ = z.Write([]byte(text))
					_ = z.Close()
					text = b.String()
				}
				db, l, err := load(t, text, rec)
				if err != nil {
					t.Fatal(err)
				}
				want(t, l, Loaded{Series: 2, Samples: 3, From: t0, To: at(time.Minute), Begin: t0, End: at(time.Minute)})
				want(t, instant(t, db, "depth", at(time.Minute)), map[string]float64{"w1": 2000, "w2": 7})
			}
		})
	}
}

func TestLoadProblems(t *testing.T) {
	t.Parallel()
	table := &CSV{Time: "t", Layout: "unix", Values: map[string]string{"v": "m"}}
	for name, c := range map[string]struct {
		rec  Recording
		text string
		line int
		says string
	}{
		"unknown ending":        {Recording{Name: "a.xls"}, "x", 0, `".xls"`},
		"empty":                 {Recording{Name: "a.om"}, "# EOF\n", 0, "no samples"},
		"broken":                {Recording{Name: "a.om"}, "# TYPE m gauge\nm 1 1\nm{ 2 2\n# EOF\n", 3, "expected"},
		"cut off":               {Recording{Name: "a.om"}, "m 1 1\nm 2 2\n", 2, "EOF"},
		"no time":               {Recording{Name: "a.txt"}, "m 1 1000\n\n\nm 2\n", 4, "no time"},
		"out of order":          {Recording{Name: "a.om"}, "m 1 20\nm 2 10\n# EOF\n", 2, "the one before it is of 1970-01-01T00:00:20Z"},
		"two values at a time":  {Recording{Name: "a.om"}, "m 1 20\nm 2 20\n# EOF\n", 2, "out of order"},
		"UTF-16":                {Recording{Name: "a.csv", CSV: table}, "\xff\xfet\x00", 1, "UTF-16"},
		"Latin-1":               {Recording{Name: "a.om"}, "m{a=\"b\"} 1 1\nm{a=\"\xe9\"} 1 1\n# EOF\n", 2, "UTF-8"},
		"huge":                  {Recording{Name: "a.om", MaxBytes: 10}, openMetrics, 0, "larger than 10 bytes"},
		"not gzip":              {Recording{Name: "a.om.gz"}, openMetrics, 0, "gzip"},
		"no JSON":               {Recording{Name: "a.json"}, "{\n\"data\":\n\n oops", 4, "invalid character"},
		"an error":              {Recording{Name: "a.json"}, `{"status":"error","error":"too many samples"}`, 0, "too many samples"},
		"histograms":            {Recording{Name: "a.json"}, `[{"metric":{"__name__":"h"},"histograms":[[1,{}]]}]`, 0, "native histograms"},
		"no header":             {Recording{Name: "a.jsonl"}, `{"labels":{},"t":[1],"v":[1]}` + "\n", 1, "does not begin as a recording"},
		"a later format":        {Recording{Name: "a.jsonl"}, `{"recording":2}` + "\n", 1, "version 2 of the format"},
		"cut in a line":         {Recording{Name: "a.jsonl"}, own[:len(own)-60], 3, "unexpected end"},
		"cut between lines":     {Recording{Name: "a.jsonl"}, own[:strings.Index(own, `{"end"`)], 3, "cut off"},
		"a line is missing":     {Recording{Name: "a.jsonl"}, strings.Replace(own, `{"labels":{"__name__":"depth","instance":"w2"},"t":[1772359200000],"v":[7]}`+"\n", "", 1), 3, "says that it has 2 and 3"},
		"something follows":     {Recording{Name: "a.jsonl"}, own + `{"labels":{"__name__":"m"},"t":[1],"v":[1]}` + "\n", 5, "follows its end"},
		"times without values":  {Recording{Name: "a.jsonl"}, strings.Replace(own, "[5,2000]", "[5]", 1), 2, "2 times and 1 values"},
		"time goes back":        {Recording{Name: "a.jsonl"}, strings.Replace(own, "00000,60000]", "00000,-60000]", 1), 2, "out of order"},
		"no whole time":         {Recording{Name: "a.jsonl"}, strings.Replace(own, "00000,60000]", "00000,6e4]", 1), 2, "a time must be whole milliseconds, got 6e4"},
		"no number of JSON":     {Recording{Name: "a.jsonl"}, strings.Replace(own, "[5,2000]", "[5,+2000]", 1), 2, "invalid character '+'"},
		"a quote is missing":    {Recording{Name: "a.jsonl"}, strings.Replace(own, "[7]", `["7]`, 1), 3, "in string literal"},
		"no list":               {Recording{Name: "a.jsonl"}, strings.Replace(own, "[7]", "7", 1), 3, "1 times and 0 values"},
		"no value":              {Recording{Name: "a.jsonl"}, strings.Replace(own, "[7]", `["seven"]`, 1), 3, "a value must be"},
		"no mapping":            {Recording{Name: "a.csv"}, "t,v\n1,1\n", 0, "columns"},
		"unknown column":        {Recording{Name: "a.csv", CSV: table}, "t,w\n1,1\n", 1, `no column "v"`},
		"ragged":                {Recording{Name: "a.csv", CSV: table}, "t,v\n1,1\n2\n", 3, "wrong number of fields"},
		"no number":             {Recording{Name: "a.csv", CSV: table}, "t,v\n1,1\n2,x\n", 3, `"x" is not a number`},
		"no time in CSV":        {Recording{Name: "a.csv", CSV: table}, "t,v\nyesterday,1\n", 2, `"yesterday" is not a time in seconds`},
		"no metric name":        {Recording{Name: "a.json"}, `[{"metric":{"a":"b"},"values":[[1,"1"]]}]`, 0, "no metric name"},
		"a point of three":      {Recording{Name: "a.json"}, `[{"metric":{"__name__":"m"},"values":[[1,"1",2]]}]`, 0, "a point must be"},
		"a time that overflows": {Recording{Name: "a.json"}, `[{"metric":{"__name__":"m"},"values":[[1e300,"1"]]}]`, 0, "a point's time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _, err := load(t, c.text, c.rec)
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || p.Code != problem.Recording || !strings.Contains(p.Message, c.says) {
				t.Fatalf("%v, want one that says %q", err, c.says)
			}
			if p.Pos.File != c.rec.Name || c.line != 0 && p.Pos.Line != c.line && c.says != "" {
				t.Errorf("it is at %s:%d, want line %d: %v", p.Pos.File, p.Pos.Line, c.line, err)
			}
			if _, some := db.Newest(); some {
				t.Error("it left something behind")
			}
		})
	}
}

// What is written is read as it was, also where numbers end; and a server of another major version is warned of.
func TestOwnFormat(t *testing.T) {
	t.Parallel()
	long := Piece{Labels: map[string]string{"__name__": "m", "a": "\"\n\u00e9"}}
	for i := range 3*maxPiece + 1 {
		long.Times, long.Values = append(long.Times, t0.UnixMilli()+int64(i)*1001), append(long.Values, float64(i)/3)
	}
	odd := Piece{Labels: map[string]string{"__name__": "odd"}, Times: []int64{1, 2, 3, 4, 5, 6}, Values: []float64{math.NaN(), math.Inf(1), math.Inf(-1), 5e-324, -0.1, StaleNaN()}}
	for _, name := range []string{"a.jsonl", "a.jsonl.gz"} {
		var b bytes.Buffer
		if err := WriteRecording(&b, strings.HasSuffix(name, ".gz"), Header{Version: "2.42.0", From: t0, To: at(time.Hour)}, []Piece{long, odd}); err != nil {
			t.Fatal(err)
		}
		db, l, err := load(t, b.String(), Recording{Name: name})
		if err != nil || !l.Begin.Equal(t0) || !l.End.Equal(at(time.Hour)) || l.Samples != len(long.Times)+6 || l.Series != 2 || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "Prometheus 2.42.0") {
			t.Fatalf("%+v, %v", l, err)
		}
		for _, p := range []Piece{long, odd} {
			s := db.series[string(labels.FromMap(p.Labels).Bytes(nil))]
			for i := range p.Times {
				if s.ts[i] != p.Times[i] || math.Float64bits(s.vs[i]) != math.Float64bits(p.Values[i]) && !(math.IsNaN(p.Values[i]) && !value.IsStaleNaN(p.Values[i]) && math.IsNaN(s.vs[i]) && !value.IsStaleNaN(s.vs[i])) {
					t.Fatalf("%s: sample %d of %v is %d %v, want %d %v", name, i, p.Labels, s.ts[i], s.vs[i], p.Times[i], p.Values[i])
				}
			}
		}
	}
}

func TestLoadDrop(t *testing.T) {
	t.Parallel()
	db, l, err := load(t, "m 1 20\nm 2 10\nm 1 20\nm 3 30\n# EOF\n", Recording{Name: "a.om", Disorder: Drop})
	if err != nil || l.Samples != 3 || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "1 samples") {
		t.Fatalf("%+v, %v", l, err)
	}
	want(t, instant(t, db, "sum(m)", time.Unix(30, 0)), map[string]float64{"": 3})
}

func TestLoadAfterEachOther(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	for i, text := range []string{"m 1 10\n# EOF\n", "m 2 20\nn 1 5\n# EOF\n"} {
		if _, err := db.Load(strings.NewReader(text), Recording{Name: "a.om"}); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := db.Load(strings.NewReader("m 3 15\nx 1 1\n# EOF\n"), Recording{Name: "a.om"}); err == nil || !strings.Contains(err.Error(), "has samples already") {
		t.Error(err)
	}
	want(t, instant(t, db, "m + n", time.Unix(20, 0)), map[string]float64{"": 3})
	want(t, instant(t, db, "x", time.Unix(20, 0)), map[string]float64{})
}

func TestStepGridIsToldOf(t *testing.T) {
	t.Parallel()
	answer := func(second string) string {
		return `[{"metric":{"__name__":"m"},"values":[[100,"1"],[` + second + `,"2"],[220,"3"]]}]`
	}
	for second, warned := range map[string]bool{"160": true, "160.123": false} {
		_, l, err := load(t, answer(second), Recording{Name: "a.json"})
		if err != nil || (len(l.Warnings) == 1) != warned {
			t.Errorf("%s: %v, %v", second, l.Warnings, err)
		}
	}
}

// shared is a folder of recorded incidents that lies beside the project.
func shared(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "data", name)
	if _, err := os.Stat(filepath.Join("..", "..", "..", "shared")); err != nil {
		t.Skipf("SKIPPED: the recorded incidents are not here: %v", err)
	}
	return dir
}

func TestRealTables(t *testing.T) {
	t.Parallel()
	loadAll := func(t *testing.T, pattern string, rec Recording) (total Loaded) {
		t.Helper()
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			rec.Name = name
			l, err := New(Options{}).Load(f, rec)
			_ = f.Close()
			if err != nil {
				t.Fatal(err)
			}
			total.Samples += l.Samples
			total.Warnings = append(total.Warnings, l.Warnings...)
		}
		return total
	}
	t.Run("cloud series", func(t *testing.T) {
		t.Parallel()
		rec := Recording{CSV: &CSV{Time: "timestamp", Layout: "2006-01-02 15:04:05", Values: map[string]string{"value": "m"}}, Disorder: Drop}
		l := loadAll(t, filepath.Join(shared(t, "nab"), "data", "*", "*.csv"), rec)
		if l.Samples < 30_000 || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "ec2_request_latency") {
			t.Errorf("%d samples, %v", l.Samples, l.Warnings)
		}
	})
	t.Run("pods of a shop", func(t *testing.T) {
		t.Parallel()
		rec := Recording{CSV: &CSV{
			Time: "Time", Layout: "2006-01-02 15:04:05.999999999 -0700 MST", Labels: map[string]string{"PodName": "pod"},
			Values: map[string]string{"CpuUsageRate(%)": "cpu", "PodServerLatencyP90(s)": "latency"},
		}}
		l := loadAll(t, filepath.Join(shared(t, "nezha-onlineboutique-2022-08-22"), "metric", "*_metric.csv"), rec)
		if l.Samples < 20_000 || len(l.Warnings) > 0 {
			t.Errorf("%d samples, %v", l.Samples, l.Warnings)
		}
	})
}
