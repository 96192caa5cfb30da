package postgres

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// shows is how long an action waits for what it has sent to show, and how often it looks.
const (
	shows  = 5 * time.Second
	glance = 50 * time.Millisecond
)

type statementArgs struct {
	Statement string `rb:"statement,required,positional" doc:"statement of an answer of sessions() or blockers()"`
}

type backendArgs struct {
	Backend string `rb:"backend,required,positional" doc:"backend of an answer of sessions() or blockers()"`
}

// object is a session or a statement, as it is named.
type object struct {
	name                string
	pid, began, queryAt int64 // queryAt is 0 for a session
}

var (
	backendName   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d{1,10})/(\d{1,18})$`) })
	statementName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d{1,10})/(\d{1,18})/([1-9]\d{0,17})$`) })
)

func parse(what, name string, form *regexp.Regexp) (object, error) {
	m := form.FindStringSubmatch(name)
	if m == nil {
		return object{}, problem.New(problem.Argument, "%s: %.80q is not the name of one", what, name).WithHint("it is the %q of an answer of sessions() or blockers()", what)
	}
	o := object{name: name}
	for i, to := range []*int64{&o.pid, &o.began, &o.queryAt}[:len(m)-1] {
		*to, _ = strconv.ParseInt(m[i+1], 10, 64) // its form was looked at
	}
	return o, nil
}

// is compares a session with an object, as the server does.
const is = ` from pg_stat_activity where backend_type = 'client backend' and pid = $1::bigint and (extract(epoch from backend_start)*1000000)::bigint = $2::bigint` +
	` and ($3::bigint = 0 or state = 'active' and (extract(epoch from query_start)*1000000)::bigint = $3)`

// find looks for an object. nil: it is gone.
func (x *plugin) find(ctx context.Context, c *pgx.Conn, o object) (*session, error) {
	found, err := rows[session](ctx, x, c, "select "+columns+is, o.pid, o.began, o.queryAt)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], x.allowed(found[0].User)
}

// receipt is what is about to be done to what.
type receipt struct {
	Object string `json:"object"`
	User   string `json:"user"`
	Query  string `json:"query"`
}

// verb is a signal, the function that sends it, and how it is said that its object is not there.
type verb struct{ name, function, gone string }

var (
	cancel    = verb{"cancel", "pg_cancel_backend", "the statement has ended"}
	terminate = verb{"terminate", "pg_terminate_backend", "the session has ended"}
)

func (x *plugin) cancel(call *sdk.Call, a statementArgs) (session, error) {
	o, err := parse("statement", a.Statement, statementName())
	if err != nil {
		return session{}, err
	}
	return x.act(call, cancel, o)
}

func (x *plugin) terminate(call *sdk.Call, a backendArgs) (session, error) {
	o, err := parse("backend", a.Backend, backendName())
	if err != nil {
		return session{}, err
	}
	return x.act(call, terminate, o)
}

func (x *plugin) act(call *sdk.Call, v verb, o object) (session, error) {
	c, err := x.dial(call)
	if err != nil {
		return session{}, err
	}
	defer x.hangUp(c)
	s, err := x.find(call, c, o)
	if err != nil {
		return session{}, x.explain(err)
	}
	if s == nil {
		return session{}, sdk.NoChange("%s", v.gone)
	}
	before, err := json.Marshal(receipt{o.name, s.User, s.Query})
	if err != nil {
		return *s, err
	}
	if err := call.Begin(before); err != nil {
		return *s, err
	}
	type sent struct {
		OK bool `db:"ok"`
	}
	signals, err := rows[sent](call, x, c, "select "+v.function+"(pid) as ok"+is, o.pid, o.began, o.queryAt)
	switch {
	case refused(err):
		return *s, x.explain(err)
	case err != nil:
		return *s, sdk.Unknown(x.explain(err))
	case len(signals) == 0 || !signals[0].OK:
		return *s, sdk.NoChange("%s by itself", v.gone)
	}
	// The signal is sent. That it shows is what makes it done.
	patience := time.After(shows)
	for {
		now, err := x.find(call, c, o)
		switch {
		case err != nil:
			return *s, sdk.Unknown(x.explain(err))
		case now == nil:
			return *s, nil
		}
		select {
		case <-call.Done():
			return *s, sdk.Unknown(context.Cause(call))
		case <-patience:
			return *s, sdk.Unknown(problem.New(problem.PluginTimeout, "%s: the signal was sent, and after %s it still runs: %s", v.name, shows, now.said()))
		case <-time.After(glance):
		}
	}
}

// said is a session for people.
func (s session) said() string {
	out := s.User + " in " + s.Database + ", " + s.State + " for " + s.QueryAge.Round(time.Second).String()
	if s.WaitsFor != "" {
		out += ", waits for " + s.WaitsFor
	}
	return out + ": " + strings.Join(strings.Fields(s.Query), " ")
}

func (x *plugin) planCancel(ctx context.Context, _ sdk.Target, a statementArgs) (sdk.Plan, error) {
	o, err := parse("statement", a.Statement, statementName())
	if err != nil {
		return sdk.Plan{}, err
	}
	return x.plan(ctx, cancel, o)
}

func (x *plugin) planTerminate(ctx context.Context, _ sdk.Target, a backendArgs) (sdk.Plan, error) {
	o, err := parse("backend", a.Backend, backendName())
	if err != nil {
		return sdk.Plan{}, err
	}
	return x.plan(ctx, terminate, o)
}

func (x *plugin) plan(ctx context.Context, v verb, o object) (sdk.Plan, error) {
	return with(ctx, x, func(c *pgx.Conn) (sdk.Plan, error) {
		s, err := x.find(ctx, c, o)
		if err != nil || s == nil {
			return sdk.Plan{NoChange: true}, err
		}
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: v.name + " " + o.name, Before: s.said()}}}, nil
	})
}

func (x *plugin) probeCancel(ctx context.Context, p sdk.Probe, a statementArgs) (sdk.ProbeAnswer, error) {
	o, err := parse("statement", a.Statement, statementName())
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	return x.probe(ctx, p, cancel, o)
}

func (x *plugin) probeTerminate(ctx context.Context, p sdk.Probe, a backendArgs) (sdk.ProbeAnswer, error) {
	o, err := parse("backend", a.Backend, backendName())
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	return x.probe(ctx, p, terminate, o)
}

// probe looks whether the object is there. That it went by itself cannot be told apart, and need not be. One that is there was not told to end if it
// would have noticed at once; one that is busy may only not have looked yet.
func (x *plugin) probe(ctx context.Context, p sdk.Probe, v verb, o object) (sdk.ProbeAnswer, error) {
	var before receipt
	if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Object != o.name {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this object"}, nil
	}
	return with(ctx, x, func(c *pgx.Conn) (sdk.ProbeAnswer, error) {
		return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
			s, err := x.find(ctx, c, o)
			switch {
			case err != nil:
				return sdk.ProbeAnswer{}, err
			case s == nil:
				return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: v.gone}, nil
			case s.interruptible():
				return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: "it goes on: " + s.said()}, nil
			}
			return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "it goes on, and would not have noticed yet: " + s.said()}, nil
		})
	})
}
