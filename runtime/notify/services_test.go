package notify

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Each service gets what its documentation says: the shapes here were written from it, field by field.
func TestServices(t *testing.T) {
	t.Parallel()
	var body []byte
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		header = r.Header
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	n := notice()
	n.Text = "its storage is <slow> & full\nmore: runbook explain r1"
	m := Message{ID: n.ID() + "-2", Notice: n, Count: 3, Reminder: 1}
	details := map[string]any{
		"text": n.Text, "count": "3", "runbook": n.Runbook, "target": n.Target, "owner": n.Owner,
	}
	if n.Run != "" {
		details["run"], details["why"] = n.Run, "runbook explain "+n.Run
	}
	for _, c := range []struct {
		sink Sink
		auth string
		want map[string]any
	}{
		{Slack(server.URL+"/services/T0/B0/hush-hush", nil), "", map[string]any{
			"text": "*runbook escalation worker instance=w3 for team-a (reminder 1)*\nits storage is &lt;slow&gt; &amp; full\nmore: runbook explain r1",
		}},
		{PagerDuty(server.URL, "hush-hush", nil), "", map[string]any{
			"routing_key": "hush-hush", "event_action": "trigger", "dedup_key": n.ID(), "client": "runbook",
			"payload": map[string]any{
				"summary": "runbook escalation worker instance=w3 for team-a (reminder 1): its storage is <slow> & full", "source": "instance=w3", "severity": "error",
				"timestamp": n.At.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"), "component": "instance=w3", "group": "team-a", "class": "escalation", "custom_details": details,
			},
		}},
		{Opsgenie(server.URL, "hush-hush", nil), "GenieKey hush-hush", map[string]any{
			"message": "runbook escalation worker instance=w3 for team-a (reminder 1)", "alias": n.ID(), "description": n.Text, "source": "runbook", "entity": "instance=w3",
			"priority": "P2", "tags": []any{"escalation", "team-a"}, "details": details,
		}},
	} {
		if err := c.sink.Send(t.Context(), m); err != nil {
			t.Errorf("%s: %v", c.sink.Name(), err)
			continue
		}
		var got map[string]any
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.sink.Name(), d)
		}
		if header.Get("Authorization") != c.auth || header.Get("Content-Type") != "application/json" || strings.Contains(c.sink.Name(), "hush") {
			t.Errorf("%s: %v", c.sink.Name(), header)
		}
	}
}

// What a service would refuse for its length is shortened, and two routes to one service are told apart.
func TestServicesLimits(t *testing.T) {
	t.Parallel()
	n := notice()
	n.Text, n.Runbook, n.Owner, n.Target = strings.Repeat("é", 50_000), strings.Repeat("r", 2000), strings.Repeat("o", 300), strings.Repeat("t", 2000)
	for _, kind := range []Kind{Escalation, Info, Source} {
		n.Kind = kind
		m := Message{ID: "m", Notice: n, Count: 1}
		event := PagerDuty(PagerDutyURL, "k", nil).(*webhook).body(m).(pagerDutyEvent)
		alert := Opsgenie(OpsgenieURL, "k", nil).(*webhook).body(m).(opsgenieAlert)
		text := Slack("https://hooks.slack.com/x", nil).(*webhook).body(m).(map[string]string)["text"]
		for what, c := range map[string]struct {
			text string
			most int
		}{
			"summary": {event.Payload.Summary, 1024}, "dedup_key": {event.DedupKey, 255}, "source": {event.Payload.Source, 255},
			"message": {alert.Message, 130}, "alias": {alert.Alias, 512}, "description": {alert.Description, 15000}, "entity": {alert.Entity, 512},
			"tag": {alert.Tags[1], 50}, "slack": {text, 3000},
		} {
			if got := utf8.RuneCountInString(c.text); got > c.most || got == 0 {
				t.Errorf("%s of a %s: %d characters, at most %d", what, kind, got, c.most)
			}
		}
		if event.Payload.Severity == "" || alert.Priority == "" {
			t.Errorf("%s has no severity", kind)
		}
	}
	if a, b := PagerDuty(PagerDutyURL, "one", nil).Name(), PagerDuty(PagerDutyURL, "two", nil).Name(); a == b {
		t.Errorf("two routes have one name: %s", a)
	}
}
