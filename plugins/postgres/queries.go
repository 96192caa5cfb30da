package postgres

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxSessions bounds an answer.
const maxSessions = 1000

// session is one session of a client.
type session struct {
	Backend     string        `rb:"backend" db:"backend"`     // its name for terminate: PID/BEGINNING
	Statement   string        `rb:"statement" db:"statement"` // the name of its last statement for cancel
	PID         int           `rb:"pid" db:"pid"`
	User        string        `rb:"user" db:"usename"`
	Database    string        `rb:"database" db:"datname"`
	Application string        `rb:"application" db:"application_name"`
	Client      string        `rb:"client" db:"client"` // address; "" over a socket
	State       string        `rb:"state" db:"state"`   // active, idle, idle in transaction, ...
	WaitsFor    string        `rb:"waits_for" db:"waits_for"`
	Age         time.Duration `rb:"age" db:"age"`
	Transaction time.Duration `rb:"transaction" db:"transaction"` // age of its transaction; 0 outside of one
	QueryAge    time.Duration `rb:"query_age" db:"query_age"`     // since its last statement began
	Query       string        `rb:"query" db:"query"`             // the first 500 characters of its last statement
	Waiting     int           `rb:"waiting" db:"-"`               // how many others wait for it, also through each other
	Longest     time.Duration `rb:"longest" db:"-"`               // for how long the first of them has been waiting
}

// interruptible says that a signal ends what it does at once: it waits for its client, a lock or the clock.
func (s session) interruptible() bool {
	switch s.waitType() {
	case "Client", "Lock", "Timeout":
		return true
	}
	return false
}

func (s session) waitType() string {
	kind, _, _ := strings.Cut(s.WaitsFor, "/")
	return kind
}

const (
	// columns are those of a session: moments as microseconds since 1970, exactly, and durations as nanoseconds.
	columns = `
	pid::bigint || '/' || (extract(epoch from backend_start)*1000000)::bigint as backend,
	pid::bigint || '/' || (extract(epoch from backend_start)*1000000)::bigint || '/' || coalesce((extract(epoch from query_start)*1000000)::bigint, 0) as statement,
	pid::bigint as pid, coalesce(usename, '') as usename, coalesce(datname, '') as datname, coalesce(application_name, '') as application_name,
	coalesce(host(client_addr), '') as client, coalesce(state, '') as state, coalesce(wait_event_type || '/' || wait_event, '') as waits_for,
	coalesce((extract(epoch from clock_timestamp() - backend_start)*1000000000)::bigint, 0) as age,
	coalesce((extract(epoch from clock_timestamp() - xact_start)*1000000000)::bigint, 0) as transaction,
	coalesce((extract(epoch from clock_timestamp() - query_start)*1000000000)::bigint, 0) as query_age,
	left(coalesce(query, ''), 500) as query`
	// clients are the sessions of clients, but for this one.
	clients = ` from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`
)

type sessionsArgs struct {
	Longer time.Duration `rb:"longer,positional" default:"0s" doc:"only those whose transaction has lasted for longer"`
	State  string        `rb:"state" doc:"only in this state: active, idle, idle in transaction, ...; all if not given"`
	User   string        `rb:"user" doc:"only of this user; of all if not given"`
}

func (x *plugin) sessions(ctx context.Context, a sessionsArgs) ([]session, error) {
	found, err := x.look(ctx, func(s session) bool {
		return (a.State == "" || s.State == a.State) && (a.User == "" || s.User == a.User) && (a.Longer == 0 || s.Transaction > a.Longer)
	})
	slices.SortStableFunc(found, func(p, q session) int { return cmp.Compare(q.Transaction, p.Transaction) })
	return found, err
}

type blockersArgs struct {
	Longer time.Duration `rb:"longer,positional" default:"0s" doc:"only those for which somebody has been waiting for longer"`
}

func (x *plugin) blockers(ctx context.Context, a blockersArgs) ([]session, error) {
	found, err := x.look(ctx, func(s session) bool { return s.Waiting > 0 && s.Longest > a.Longer && s.waitType() != "Lock" })
	slices.SortStableFunc(found, func(p, q session) int { return cmp.Compare(q.Waiting, p.Waiting) })
	return found, err
}

// waiter is a session with those that it waits for.
type waiter struct {
	PID  int           `db:"pid"`
	By   []int32       `db:"by"`
	Long time.Duration `db:"long"`
}

// look reads the sessions that fit.
func (x *plugin) look(ctx context.Context, fits func(session) bool) ([]session, error) {
	return with(ctx, x, func(c *pgx.Conn) ([]session, error) {
		waiting, err := rows[waiter](ctx, x, c, "select pid::bigint as pid, pg_blocking_pids(pid) as by,"+
			" coalesce((extract(epoch from clock_timestamp() - query_start)*1000000000)::bigint, 0) as long"+clients+" and wait_event_type = 'Lock'")
		if err != nil {
			return nil, err
		}
		all, err := rows[session](ctx, x, c, "select "+columns+clients)
		if err != nil {
			return nil, err
		}
		count(all, waiting)
		found := slices.DeleteFunc(all, func(s session) bool { return !fits(s) })
		if len(found) > maxSessions {
			return nil, problem.New(problem.Argument, "%d sessions fit, at most %d are returned", len(found), maxSessions).WithHint("narrow it")
		}
		return found, nil
	})
}

// count notes for how many others, directly or through each other, each session is what they wait for.
func count(all []session, waiting []waiter) {
	at := map[int]*session{}
	for i := range all {
		at[all[i].PID] = &all[i]
	}
	by := map[int][]int32{}
	for _, w := range waiting {
		by[w.PID] = w.By
	}
	for _, w := range waiting {
		seen := map[int32]bool{int32(w.PID): true} //nolint:gosec // the number of a process
		for next := slices.Clone(w.By); len(next) > 0; next = next[1:] {
			if pid := next[0]; !seen[pid] {
				seen[pid] = true
				if s := at[int(pid)]; s != nil {
					s.Waiting++
					s.Longest = max(s.Longest, w.Long)
				}
				next = append(next, by[int(pid)]...)
			}
		}
	}
}

// counts is how many connections there are.
type counts struct {
	Most              int `rb:"most" db:"most"`
	Reserved          int `rb:"reserved" db:"reserved"` // for those with privileges
	Used              int `rb:"used" db:"used"`
	Active            int `rb:"active" db:"active"`
	Idle              int `rb:"idle" db:"idle"`
	IdleInTransaction int `rb:"idle_in_transaction" db:"idle_in_transaction"`
	Free              int `rb:"free" db:"free"`
}

type noArgs struct{}

func (x *plugin) connections(ctx context.Context, _ noArgs) (counts, error) {
	return with(ctx, x, func(c *pgx.Conn) (counts, error) {
		found, err := rows[counts](ctx, x, c, `
			with s as (select current_setting('max_connections')::bigint as most,
				current_setting('superuser_reserved_connections')::bigint + coalesce(current_setting('reserved_connections', true)::bigint, 0) as reserved),
			a as (select count(*) as used, count(*) filter (where state = 'active') as active, count(*) filter (where state = 'idle') as idle,
				count(*) filter (where state like 'idle in transaction%') as idle_in_transaction from pg_stat_activity where backend_type = 'client backend')
			select most, reserved, used, active, idle, idle_in_transaction, greatest(most - reserved - used, 0) as free from s, a`)
		if err != nil || len(found) != 1 {
			return counts{}, err
		}
		return found[0], nil
	})
}

// replica is one that is connected.
type replica struct {
	Name     string        `rb:"name" db:"application_name"`
	Client   string        `rb:"client" db:"client"`
	State    string        `rb:"state" db:"state"`         // streaming, catchup, ...
	Sync     string        `rb:"sync" db:"sync_state"`     // async, sync, quorum, potential
	LagBytes int64         `rb:"lag_bytes" db:"lag_bytes"` // written here and not yet applied there
	Lag      time.Duration `rb:"lag" db:"lag"`             // as it was measured last; 0 when there is nothing to apply
}

func (x *plugin) replicas(ctx context.Context, _ noArgs) ([]replica, error) {
	return with(ctx, x, func(c *pgx.Conn) ([]replica, error) {
		return rows[replica](ctx, x, c, `select coalesce(application_name, '') as application_name, coalesce(host(client_addr), '') as client, coalesce(state, '') as state,
			coalesce(sync_state, '') as sync_state, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint as lag_bytes,
			coalesce((extract(epoch from replay_lag)*1000000000)::bigint, 0) as lag from pg_stat_replication order by 5 desc limit 100`)
	})
}
