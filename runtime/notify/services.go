package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Where the services listen, unless project.star says otherwise.
const (
	PagerDutyURL = "https://events.pagerduty.com/v2/enqueue"
	OpsgenieURL  = "https://api.opsgenie.com/v2/alerts"
)

// Slack posts each notice to an incoming webhook of Slack, whose URL is its secret.
// Source: https://api.slack.com/messaging/webhooks, and https://api.slack.com/reference/surfaces/formatting for what is escaped.
func Slack(to string, wants func(owner string) bool) Sink {
	w := newService("slack", to, to, nil, wants)
	w.body = func(m Message) any {
		return map[string]string{"text": cut("*"+slackText(title(m))+"*\n"+slackText(clean(m.Text)), 3000)}
	}
	return w
}

// slackText takes from a text what Slack would make a link or a mention of everybody of.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// PagerDuty triggers an event of the Events API, version 2, at the integration that the routing key belongs to. A notice that is told again is added to the same
// incident. Source: https://developer.pagerduty.com/docs/events-api-v2-trigger-events.
func PagerDuty(to, routingKey string, wants func(owner string) bool) Sink {
	w := newService("pagerduty", to, routingKey, nil, wants)
	w.body = func(m Message) any {
		return pagerDutyEvent{
			RoutingKey: routingKey, Action: "trigger", DedupKey: m.Notice.ID(), Client: "runbook",
			Payload: pagerDutyPayload{
				Summary: cut(title(m)+": "+firstLine(m.Text), 1024), Source: source(m), Severity: map[Kind]string{Escalation: "error", Source: "error", Info: "info"}[m.Kind],
				Timestamp: m.At.UTC().Format(time.RFC3339Nano), Component: m.Target, Group: m.Owner, Class: string(m.Kind), Details: details(m),
			},
		}
	}
	return w
}

type pagerDutyEvent struct {
	RoutingKey string           `json:"routing_key"`
	Action     string           `json:"event_action"`
	DedupKey   string           `json:"dedup_key"`
	Client     string           `json:"client"`
	Payload    pagerDutyPayload `json:"payload"`
}

type pagerDutyPayload struct {
	Summary   string            `json:"summary"`  // at most 1,024 characters
	Source    string            `json:"source"`   // what is affected
	Severity  string            `json:"severity"` // critical, error, warning or info
	Timestamp string            `json:"timestamp"`
	Component string            `json:"component,omitempty"`
	Group     string            `json:"group,omitempty"`
	Class     string            `json:"class"`
	Details   map[string]string `json:"custom_details"`
}

// Opsgenie creates an alert with an API key. A notice that is told again counts for the same alert.
// Source: https://docs.opsgenie.com/docs/alert-api#create-alert.
func Opsgenie(to, key string, wants func(owner string) bool) Sink {
	w := newService("opsgenie", to, key, map[string]string{"Authorization": "GenieKey " + key}, wants)
	w.body = func(m Message) any {
		tags := []string{string(m.Kind)}
		if m.Owner != "" {
			tags = append(tags, cut(m.Owner, 50))
		}
		return opsgenieAlert{
			Message: cut(title(m), 130), Alias: m.Notice.ID(), Description: cut(clean(m.Text), 15000), Source: "runbook", Entity: cut(m.Target, 512),
			Priority: map[Kind]string{Escalation: "P2", Source: "P3", Info: "P5"}[m.Kind], Tags: tags, Details: details(m),
		}
	}
	return w
}

type opsgenieAlert struct {
	Message     string            `json:"message"` // at most 130 characters
	Alias       string            `json:"alias"`   // what makes it the same alert
	Description string            `json:"description"`
	Source      string            `json:"source"`
	Entity      string            `json:"entity,omitempty"`
	Priority    string            `json:"priority"` // P1 to P5
	Tags        []string          `json:"tags"`
	Details     map[string]string `json:"details"`
}

// newService is a webhook that is named for what is behind it. secret tells two of them apart without being shown.
func newService(name, to, secret string, headers map[string]string, wants func(string) bool) *webhook {
	w := Webhook(to, headers, wants).(*webhook)
	sum := sha256.Sum256([]byte(to + "\x00" + secret))
	w.label = name + " (" + hex.EncodeToString(sum[:4]) + ")"
	return w
}

// title is a notice in one line: what it is, about what, for whom.
func title(m Message) string {
	parts := []string{"runbook " + string(m.Kind)}
	for _, p := range []string{m.Runbook, m.Target, m.Source} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	s := strings.Join(parts, " ")
	if m.Owner != "" {
		s += " for " + m.Owner
	}
	if m.Reminder > 0 {
		s += fmt.Sprintf(" (reminder %d)", m.Reminder)
	}
	return clean(strings.ReplaceAll(s, "\n", " "))
}

func source(m Message) string {
	for _, s := range []string{m.Target, m.Source, m.Runbook} {
		if s != "" {
			return cut(s, 255)
		}
	}
	return "runbook"
}

func details(m Message) map[string]string {
	out := map[string]string{"text": cut(clean(m.Text), 4000), "count": fmt.Sprint(m.Count)}
	for k, v := range map[string]string{"runbook": m.Runbook, "target": m.Target, "owner": m.Owner, "run": m.Run, "source": m.Source} {
		if v != "" {
			out[k] = v
		}
	}
	if m.Run != "" {
		out["why"] = "runbook explain " + m.Run
	}
	return out
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(clean(s), "\n")
	return line
}

// cut shortens a text to so many characters.
func cut(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}
