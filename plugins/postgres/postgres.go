// Package postgres is the plugin that looks at what a PostgreSQL server is doing, cancels statements and ends sessions.
//
// Promise: a session is named by its process and the moment at which that began, a statement by that and the moment at which it began; the server compares them in the
// very statement that sends the signal, so that a process number that was given anew, or the next statement of a session, is never hit. Only sessions of the users
// that the connection lists are acted on, and never a replica's or one of the server's own. What was sent and has not shown yet is unknown.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/web"
)

type config struct {
	Host     string        `rb:"host,required" doc:"name of the server, or the directory of its socket"`
	Port     int           `rb:"port" default:"5432" doc:"its port"`
	Database string        `rb:"database" default:"postgres" doc:"the database to connect to; what is seen is of all databases"`
	User     string        `rb:"user,required" doc:"who logs in; needs the roles pg_monitor and, to act, pg_signal_backend"`
	Password string        `rb:"password,sensitive" doc:"the password to log in with"`
	TLS      bool          `rb:"tls" default:"true" doc:"the connection is encrypted, and the server's certificate and name are checked; not over a socket"`
	CAFile   string        `rb:"ca_file" doc:"PEM file with the authority that signed that certificate; the system's authorities if not given"`
	Users    []string      `rb:"users" doc:"the users whose statements may be cancelled and whose sessions may be ended, each a name or a pattern: app_*; none if not given"`
	Timeout  time.Duration `rb:"timeout" default:"10s" doc:"how long connecting and one answer may take"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("postgres", "1", "Look at what a PostgreSQL server is doing, cancel statements and end sessions.")
	sdk.ConfigFunc(p, x.configure)
	asked := []sdk.Option{sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net")}
	sdk.QueryFunc(p, "sessions", "Sessions of clients, the longest transaction first, as a list of {backend, statement, pid, user, database, application, client, state, waits_for, age, "+
		"transaction, query_age, query, waiting, longest}; at most 1,000. waits_for is the type of the event and the event, as PostgreSQL calls them: Lock/transactionid. waiting is how many "+
		"wait for it, longest for how long.", x.sessions, asked...)
	sdk.QueryFunc(p, "blockers", "Sessions for which others wait and which wait for no lock themselves, the one with most waiting first, as in sessions().", x.blockers, asked...)
	sdk.QueryFunc(p, "connections", "How many connections there are, as {most, reserved, used, active, idle, idle_in_transaction, free}; free is what is left to users without privileges.", x.connections, asked...)
	sdk.QueryFunc(p, "replicas", "The replicas that are connected, as a list of {name, client, state, sync, lag_bytes, lag}.", x.replicas, asked...)
	acts := []sdk.Option{sdk.Timeout(30*time.Second, 5*time.Minute), sdk.BlastRadius("session"), sdk.Capabilities("net")}
	sdk.ActionFunc(p, "cancel", "Cancel a statement on the target. The session goes on, in a transaction that has failed.", x.cancel, acts...)
	sdk.PlanFunc(p, "cancel", x.planCancel)
	sdk.ProbeFunc(p, "cancel", x.probeCancel)
	sdk.ActionFunc(p, "terminate", "End a session on the target. Its transaction is rolled back.", x.terminate, acts...)
	sdk.PlanFunc(p, "terminate", x.planTerminate)
	sdk.ProbeFunc(p, "terminate", x.probeTerminate)
	return p
}

type plugin struct {
	config   config
	settings *pgx.ConnConfig
}

func (x *plugin) configure(_ context.Context, c config) error {
	switch {
	case c.Host == "" || strings.ContainsAny(c.Host, " ,=:@"):
		return problem.New(problem.Project, "host: %.80q is not the name of one server", c.Host).WithHint("the port, user and database have settings of their own")
	case c.Port < 1 || c.Port > 65535:
		return problem.New(problem.Project, "port: %d is not 1 to 65535", c.Port)
	case c.Timeout < time.Millisecond:
		return problem.New(problem.Project, "timeout: it must be positive")
	case c.CAFile != "" && !c.TLS:
		return problem.New(problem.Project, "ca_file: without tls no certificate is looked at").WithHint(`leave "tls": False out`)
	}
	if err := allow.Patterns("users", c.Users); err != nil {
		return err
	}
	s, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return err
	}
	s.Host, s.Port, s.Database, s.User, s.Password, s.Fallbacks = c.Host, uint16(c.Port), c.Database, c.User, c.Password, nil //nolint:gosec // checked above
	if c.TLS && !strings.HasPrefix(c.Host, "/") {
		if s.TLSConfig, err = web.TLS(c.CAFile); err != nil {
			return err
		}
		s.TLSConfig.ServerName = c.Host
	}
	s.ConnectTimeout = c.Timeout
	s.RuntimeParams = map[string]string{"application_name": "runbook", "statement_timeout": fmt.Sprint(c.Timeout.Milliseconds())}
	s.DefaultQueryExecMode = pgx.QueryExecModeExec
	x.config, x.settings = c, s
	return nil
}

// allowed says whether sessions of a user may be acted on.
func (x *plugin) allowed(user string) error {
	return allow.Check("users", x.config.Users, "sessions of user ", user)
}

// with runs one piece of work over a connection of its own.
func with[R any](ctx context.Context, x *plugin, work func(*pgx.Conn) (R, error)) (R, error) {
	var none R
	c, err := x.dial(ctx)
	if err != nil {
		return none, err
	}
	defer x.hangUp(c)
	r, err := work(c)
	if err != nil {
		return none, x.explain(err)
	}
	return r, nil
}

func (x *plugin) dial(ctx context.Context) (*pgx.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	c, err := pgx.ConnectConfig(limited, x.settings)
	if err != nil {
		return nil, x.explain(err)
	}
	return c, nil
}

// hangUp says goodbye, and does not wait for long.
func (x *plugin) hangUp(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// rows reads an answer.
func rows[R any](ctx context.Context, x *plugin, c *pgx.Conn, sql string, args ...any) ([]R, error) {
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	r, err := c.Query(limited, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowToStructByName[R])
}

// refused says that the server itself answered that it will not: then nothing has happened. Of the classes of its errors (SQLSTATE) these are what it says before
// it does anything: 22 data, 28 who may log in, 42 syntax and privileges.
func refused(err error) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && len(said.Code) == 5 && (said.Code[:2] == "22" || said.Code[:2] == "28" || said.Code[:2] == "42")
}

// explain words an error, and keeps what kind it is.
func (x *plugin) explain(err error) error {
	var known *problem.Problem
	var said *pgconn.PgError
	where := fmt.Sprintf("postgres %s:%d", x.config.Host, x.config.Port)
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &said):
		p := problem.New(problem.PluginFailed, "%s: %s (SQLSTATE %s)", where, said.Message, said.Code).Because(said)
		switch said.Code {
		case "28P01", "28000":
			return p.WithHint("look at user, password and tls of the connection in project.star, and at the server's pg_hba.conf")
		case "42501":
			return p.WithHint("GRANT pg_monitor, pg_signal_backend TO %s; superusers' sessions can only be ended by a superuser", x.config.User)
		case "57014":
			return problem.New(problem.PluginTimeout, "%s: no answer within %s", where, x.config.Timeout)
		}
		return p
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return problem.New(problem.PluginTimeout, "%s: no answer within %s", where, x.config.Timeout)
	case strings.Contains(err.Error(), "server refused TLS connection"):
		return problem.New(problem.PluginFailed, "%s: it does not encrypt connections", where).WithHint(`set ssl = on there, or "tls": False in the connection if the network can be trusted`)
	}
	return problem.Wrap(problem.PluginFailed, err, "%s", where)
}
