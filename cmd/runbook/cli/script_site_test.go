package cli

import (
	"net/http/httptest"
	"regexp"

	"github.com/rogpeppe/go-internal/testscript"
)

// prometheus starts a Prometheus with the metrics of a site, and says where it is in $PROMETHEUS.
func prometheus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: prometheus")
	}
	db, err := history()
	ts.Check(err)
	srv := httptest.NewServer(db.Handler())
	ts.Defer(srv.Close)
	ts.Setenv("PROMETHEUS", srv.URL)
}

// keep sets a variable to what the group in a regular expression matches in the last stdout.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME REGEXP")
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("stdout has no %s", re)
	}
	ts.Setenv(args[0], m[1])
}
