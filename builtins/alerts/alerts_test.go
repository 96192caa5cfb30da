package alerts_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/alerts"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestFiring(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	h := &kittest.Host{Fires: []kit.Alert{{Name: "Stuck", Labels: map[string]string{"alertname": "Stuck"}, Since: since, Silenced: true}}}
	got, err := kittest.Call(t, alerts.Family(), "firing", h, kit.Args{"name": value.String("Stuck"), "where": value.Strings(map[string]string{"a": "b"})})
	if err != nil {
		t.Fatal(err)
	}
	l := got.(value.List)
	d := l[0].(value.Dict)
	at, _ := d.Get("since")
	silenced, _ := d.Get("silenced")
	if len(l) != 1 || at != value.Value(value.Time(since)) || silenced != value.Value(value.Bool(true)) {
		t.Errorf("%v", got)
	}
	if d := cmp.Diff([]kittest.Question{{Expr: "Stuck", Where: map[string]string{"a": "b"}}}, h.Asked); d != "" {
		t.Error(d)
	}
	if got, err := kittest.Call(t, alerts.Family(), "firing", &kittest.Host{}, nil); err != nil || len(got.(value.List)) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	h.Err = errors.New("connection refused")
	if _, err := kittest.Call(t, alerts.Family(), "firing", h, nil); !errors.Is(err, h.Err) {
		t.Errorf("%v", err)
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	kittest.Contract(t, []kit.Family{alerts.Family()})
}
