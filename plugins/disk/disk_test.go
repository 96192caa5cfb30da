package disk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/disk"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	deletes := func(pattern string) value.Dict { return sdktest.Dict("deletes", sdktest.Dict("logs", pattern)) }
	sdktest.Settings(t, disk.New, map[string]sdktest.Setting{
		"nothing":          {Want: ""},
		"a pattern":        {Config: deletes("/var/log/worker/*.log.*"), Want: ""},
		"in the middle":    {Config: deletes("/var/log/worker-*/old/*.gz"), Want: ""},
		"relative":         {Config: deletes("log/*"), Want: "is not a clean absolute path"},
		"a way up":         {Config: deletes("/var/log/../../etc/*"), Want: "is not a clean absolute path"},
		"no star":          {Config: deletes("/etc/passwd"), Want: "has no * or ?"},
		"everything":       {Config: deletes("/*"), Want: "the first name must be without"},
		"anything's":       {Config: deletes("/*/log/x"), Want: "the first name must be without"},
		"two stars":        {Config: deletes("/var/log/**"), Want: "** is not known"},
		"a bad pattern":    {Config: deletes("/var/log/[*"), Want: "is not a pattern"},
		"too young":        {Config: sdktest.Dict("least_age", value.Duration(time.Second)), Want: "is less than a minute"},
		"a relative root":  {Config: sdktest.Dict("roots", sdktest.Texts("var")), Want: "is not a clean absolute path"},
		"relative journal": {Config: sdktest.Dict("journal", "var/log"), Want: "is not an absolute path"},
		"no journal left":  {Config: sdktest.Dict("least_journal", 0), Want: "is not positive"},
	})
}

// tree is a directory with files, whose age in hours is what follows their names.
func tree(t *testing.T, files map[string]int) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, hours := range files {
		write(t, filepath.Join(dir, name), hours)
	}
	return dir
}

func write(t *testing.T, path string, hours int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// left are the files below a directory, as they are named from there.
func left(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	slices.Sort(names)
	return strings.Join(names, " ")
}

func harness(t *testing.T, config value.Dict) *sdktest.Harness {
	t.Helper()
	h := sdktest.New(t, disk.New())
	if err := h.Configure(config); err != nil {
		t.Fatal(err)
	}
	return h
}

func remove(name string, older time.Duration, more ...any) sdktest.Action {
	return sdktest.Action{
		Function: "delete", Args: sdktest.Dict(append([]any{"name", name, "older", value.Duration(older)}, more...)...), Key: "key",
		Target: sdk.Target{Key: "instance=w3", Name: "w3"},
	}
}

const week = 7 * 24 * time.Hour

func TestDelete(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]int{
		"logs/a/x.log.1": 200, "logs/a/x.log.2": 300, "logs/a/x.log": 300, "logs/b/y.log.1": 100, "logs/b/y.log.2": 400, "logs/c/d/z.log.1": 400, "logs/x.log.1": 400, "else/x.log.1": 400,
	})
	h := harness(t, sdktest.Dict("deletes", sdktest.Dict("logs", dir+"/logs/?/*.log.*")))
	count := h.Ask("old", sdktest.Dict("name", "logs", "older", value.Duration(week)))
	if n, taken := sdktest.Field(count, "files"), sdktest.Field(count, "bytes").(value.Int); n != value.Int(3) || taken < 15000 {
		t.Errorf("old: %v", count)
	}
	plan, err := h.Plan(remove("logs", week))
	if err != nil || !strings.HasPrefix(plan.GetChanges()[0].GetWhat(), "delete 3 files of logs (") {
		t.Errorf("plan: %v %v", plan, err)
	}
	no := remove("logs", week)
	no.Decline = true
	if out := h.Act(no); !out.Declined {
		t.Errorf("%+v", out)
	}
	// The oldest goes first.
	one := remove("logs", week, "most", 1)
	out := h.Expect(one, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if got, want := left(t, dir), "else/x.log.1 logs/a/x.log logs/a/x.log.1 logs/a/x.log.2 logs/b/y.log.1 logs/c/d/z.log.1 logs/x.log.1"; got != want {
		t.Errorf("left: %s\nwant: %s", got, want)
	}
	h.Probes(one, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	out = h.Expect(remove("logs", week), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if got, want := left(t, dir), "else/x.log.1 logs/a/x.log logs/b/y.log.1 logs/c/d/z.log.1 logs/x.log.1"; got != want {
		t.Errorf("left: %s\nwant: %s", got, want)
	}
	if n := sdktest.Field(out.Value, "files"); n != value.Int(2) {
		t.Errorf("%v", out.Value)
	}
	h.Probes(remove("logs", week), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	h.Expect(remove("logs", week), pluginpb.Outcome_OUTCOME_NO_CHANGE, "no file of logs is older than")
	// One of two came back: nobody knows. Both did: it was not done.
	write(t, filepath.Join(dir, "logs/a/x.log.1"), 200)
	h.Probes(remove("logs", week), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	write(t, filepath.Join(dir, "logs/a/x.log.2"), 200)
	h.Probes(remove("logs", week), out.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	h.Probes(remove("logs", week), []byte("{}"), pluginpb.ProbeState_PROBE_STATE_UNKNOWN)

	for want, a := range map[string]sdktest.Action{
		`have no "lgos" (did you mean "logs"?)`:                remove("lgos", week),
		"is less than the connection's least_age":              remove("logs", time.Hour),
		"most: 0 is not 1 to 100000":                           remove("logs", week, "most", 0),
		"least_age, 24h":                                       remove("logs", -week),
		"most: 100001 is not 1 to 100000":                      remove("logs", week, "most", 100001),
		"older: 23h59m59s is less than the connection's least": remove("logs", 24*time.Hour-time.Second),
	} {
		h.Expect(a, pluginpb.Outcome_OUTCOME_NOT_STARTED, want)
	}
}

// No link leads to a file that the pattern does not name, whichever part of the path it is, and what is no file stays.
func TestLinksLeadNowhere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // links take privileges there
	}
	dir := tree(t, map[string]int{"secret/x.log": 400, "logs/real/x.log": 400})
	old := time.Now().Add(-400 * time.Hour)
	for name, to := range map[string]string{"logs/linked": "../secret", "logs/real/link.log": "../../secret/x.log", "logs/abs": dir + "/secret"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "logs/real/dir.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "logs/real/dir.log"), old, old); err != nil {
		t.Fatal(err)
	}
	h := harness(t, sdktest.Dict("deletes", sdktest.Dict("logs", dir+"/logs/*/*.log")))
	h.Expect(remove("logs", week), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if got, want := left(t, dir), "logs/abs logs/linked logs/real/link.log secret/x.log"; got != want {
		t.Errorf("left: %s\nwant: %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs/real/dir.log")); err != nil {
		t.Errorf("a directory: %v", err)
	}
}

// A file that cannot be deleted is said, and the others go.
func TestWhatCannotBeDeleted(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]int{"logs/x.log": 400})
	h := harness(t, sdktest.Dict("deletes", sdktest.Dict("logs", dir+"/gone/*.log")))
	h.Expect(remove("logs", week), pluginpb.Outcome_OUTCOME_NOT_STARTED, "no such file or directory")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // nothing says it there
	}
	h := harness(t, nil)
	v := h.Ask("usage", sdktest.Dict("path", t.TempDir()))
	n := func(name string) int64 { return int64(sdktest.Field(v, name).(value.Int)) }
	share := float64(sdktest.Field(v, "share").(value.Float))
	if n("size") <= 0 || n("used") <= 0 || n("used")+n("free") > n("size") || share <= 0 || share > 1 {
		t.Errorf("%v", v)
	}
	for path, want := range map[string]string{"var": "is not an absolute path", "/nonexistent": "no such file"} {
		if _, err := h.Query(t.Context(), "usage", sdktest.Dict("path", path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	f := h.Ask("forecast", sdktest.Dict("path", t.TempDir(), "over", value.Duration(time.Second)))
	before, after, rate := sdktest.Field(f, "before").(value.Int), sdktest.Field(f, "after").(value.Int), sdktest.Field(f, "rate").(value.Float)
	if filling := sdktest.Field(f, "filling"); (after > before) != bool(filling.(value.Bool)) || (after > before) != (rate > 0) {
		t.Errorf("%v", f)
	}
}

func TestLargest(t *testing.T) {
	t.Parallel()
	files := map[string]int{}
	for i := range 60 {
		files[fmt.Sprintf("d%d/small%d", i%3, i)] = 1
	}
	dir := tree(t, files)
	big := filepath.Join(dir, "d1", "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	h := harness(t, sdktest.Dict("roots", sdktest.Texts(dir+"/d1")))
	l := h.Ask("largest", sdktest.Dict("root", dir+"/d1", "count", 3)).(value.List)
	if len(l) != 3 || sdktest.Field(l, "path") != value.String(big) || sdktest.Field(l, "bytes").(value.Int) < 1<<20 {
		t.Errorf("%v", l)
	}
	for root, want := range map[string]string{dir: "does not allow to look below", dir + "/d1/../d2": "does not allow to look below", dir + "/d10": "does not allow", dir + "/d1/none": "is not a directory"} {
		if _, err := h.Query(t.Context(), "largest", sdktest.Dict("root", root)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", root, err)
		}
	}
}
