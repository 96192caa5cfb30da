//go:build e2e

package postgres_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed1de3961f/runbook/plugins/postgres"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// server is a real one, with users app_web and other, and one called runbook with no more privileges than the plugin needs.
type server struct {
	t         *testing.T
	dir, port string
}

func newServer(t *testing.T) *server {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		t.Fatal("install the package postgresql")
	}
	bin := filepath.Dir(bins[len(bins)-1])
	dir, err := os.MkdirTemp("", "pg") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	who, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatalf("%v: it takes root, for PostgreSQL does not run as root", err)
	}
	as := []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	data := filepath.Join(dir, "data")
	initdb := append(as, bin+"/initdb", "-D", data, "-A", "trust", "--no-sync", "-U", "postgres")
	if out, err := exec.CommandContext(t.Context(), initdb[0], initdb[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s := &server{t, dir, sdktest.FreePort(t)}
	sdktest.Server(t, func() error {
		c, err := pgx.Connect(t.Context(), s.address("postgres"))
		if err != nil {
			return err
		}
		return c.Close(t.Context())
	}, append(as, bin+"/postgres", "-D", data, "-p", s.port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=40")...)
	s.must("create role runbook login; grant pg_monitor, pg_signal_backend to runbook; create role watcher login; grant pg_monitor to watcher;" +
		"create role app_web login; create role other login; create table t (id int primary key, n int); insert into t values (1, 0), (2, 0); grant all on t to app_web, other")
	return s
}

func (s *server) address(user string) string {
	return fmt.Sprintf("host=%s port=%s user=%s database=postgres application_name=test-%s", s.dir, s.port, user, user)
}

// client is a session of a user.
func (s *server) client(user string) *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(s.t.Context(), s.address(user))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

// must does something as the superuser.
func (s *server) must(sql string) {
	s.t.Helper()
	c := s.client("postgres")
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(s.t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// runs runs a statement beside the test, and sends how it ended.
func runs(c *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), sql)
		done <- err
	}()
	return done
}

func (s *server) config(more ...any) value.Dict {
	port, _ := strconv.Atoi(s.port)
	return sdktest.Dict(append([]any{"host", s.dir, "port", port, "user", "runbook", "users", sdktest.Texts("app_*")}, more...)...)
}

func (s *server) harness(config value.Dict) *sdktest.Harness {
	s.t.Helper()
	h := sdktest.New(s.t, postgres.New())
	if err := h.Configure(config); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// sessionOf is the session of a process, once it is in a state.
func (s *server) sessionOf(h *sdktest.Harness, c *pgx.Conn, state string) value.Value {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for _, v := range h.Ask("sessions", nil).(value.List) {
			if sdktest.Field(v, "pid") == value.Int(c.PgConn().PID()) && sdktest.Field(v, "state") == value.String(state) {
				return v
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("process %d does not come to be %s", c.PgConn().PID(), state)
		}
	}
}

func action(function string, args ...any) sdktest.Action {
	return sdktest.Action{Function: function, Args: sdktest.Dict(args...), Key: "key", Target: sdk.Target{Key: "instance=db1", Name: "db1"}, Timeout: 20 * time.Second}
}

// ended says whether a statement ends soon, and with which of PostgreSQL's errors.
func ended(t *testing.T, done <-chan error, want string) {
	t.Helper()
	select {
	case err := <-done:
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("it ended with %v, want %q", err, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}

func TestE2EPostgres(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := s.harness(s.config())

	t.Run("cancel", func(t *testing.T) {
		c := s.client("app_web")
		done := runs(c, "select pg_sleep(1000)")
		v := s.sessionOf(h, c, "active")
		if q := fmt.Sprint(sdktest.Field(v, "query")); q != "select pg_sleep(1000)" || sdktest.Field(v, "waits_for") != value.String("Timeout/PgSleep") {
			t.Errorf("%v", v)
		}
		name := sdktest.Field(v, "statement")
		plan, err := h.Plan(action("cancel", "statement", name))
		if err != nil || !strings.Contains(plan.GetChanges()[0].GetBefore(), "app_web in postgres, active for 0s, waits for Timeout/PgSleep: select pg_sleep(1000)") {
			t.Errorf("plan: %v %v", plan, err)
		}
		out := h.Expect(action("cancel", "statement", name), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		ended(t, done, "57014")
		h.Probes(action("cancel", "statement", name), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
		h.Expect(action("cancel", "statement", name), pluginpb.Outcome_OUTCOME_NO_CHANGE, "the statement has ended")

		// The session's next statement is another one, and is left alone.
		done = runs(c, "select pg_sleep(1000)")
		next := sdktest.Field(s.sessionOf(h, c, "active"), "statement")
		h.Expect(action("cancel", "statement", name), pluginpb.Outcome_OUTCOME_NO_CHANGE, "the statement has ended")
		if len(done) > 0 {
			t.Error("the next statement was cancelled")
		}
		receipt := []byte(strings.Replace(string(out.Receipt), string(name.(value.String)), string(next.(value.String)), 1))
		h.Probes(action("cancel", "statement", next), receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
		h.Probes(action("cancel", "statement", next), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	})

	t.Run("terminate", func(t *testing.T) {
		holder, waiter, third := s.client("app_web"), s.client("other"), s.client("other")
		if _, err := holder.Exec(t.Context(), "begin; update t set n = n + 1 where id = 1", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		done := runs(waiter, "update t set n = n + 1 where id = 1")
		s.sessionOf(h, waiter, "active")
		also := runs(third, "update t set n = n + 1 where id = 1")
		var blockers value.List
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if blockers = h.Ask("blockers", nil).(value.List); len(blockers) == 1 && sdktest.Field(blockers, "waiting") == value.Int(2) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("blockers: %v", blockers)
			}
		}
		if pid := sdktest.Field(blockers, "pid"); pid != value.Int(holder.PgConn().PID()) || sdktest.Field(blockers, "state") != value.String("idle in transaction") {
			t.Errorf("blockers: %v", blockers)
		}
		if l := h.Ask("blockers", sdktest.Dict("longer", value.Duration(time.Hour))).(value.List); len(l) != 0 {
			t.Errorf("for an hour: %v", l)
		}
		name := sdktest.Field(blockers, "backend")
		out := h.Expect(action("terminate", "backend", name), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		ended(t, done, "")
		ended(t, also, "")
		if _, err := holder.Exec(t.Context(), "select 1"); err == nil {
			t.Error("its session goes on")
		}
		h.Probes(action("terminate", "backend", name), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
		h.Expect(action("terminate", "backend", name), pluginpb.Outcome_OUTCOME_NO_CHANGE, "the session has ended")

		// Another user's is not for us; nor is one whose process has the same number but began at another time.
		theirs := sdktest.Field(s.sessionOf(h, waiter, "idle"), "backend")
		h.Expect(action("terminate", "backend", theirs), pluginpb.Outcome_OUTCOME_NOT_STARTED, "does not allow to act on sessions of user other")
		c := s.client("app_web")
		mine := string(sdktest.Field(s.sessionOf(h, c, "idle"), "backend").(value.String))
		pid, began, _ := strings.Cut(mine, "/")
		n, _ := strconv.ParseInt(began, 10, 64)
		h.Expect(action("terminate", "backend", fmt.Sprintf("%s/%d", pid, n-1)), pluginpb.Outcome_OUTCOME_NO_CHANGE, "the session has ended")
		if _, err := c.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("it was ended: %v", err)
		}
	})

	t.Run("connections", func(t *testing.T) {
		v := h.Ask("connections", nil)
		n := func(name string) int { return int(sdktest.Field(v, name).(value.Int)) }
		if n("most") != 40 || n("reserved") != 3 || n("used") < 1 || n("free") != 37-n("used") {
			t.Errorf("%v", v)
		}
		if l := h.Ask("replicas", nil).(value.List); len(l) != 0 {
			t.Errorf("replicas: %v", l)
		}
	})

	t.Run("busy", func(t *testing.T) {
		// What computes may not have looked at its signals yet: nobody claims to know.
		c := s.client("app_web")
		done := runs(c, "select count(*) from generate_series(1, 1000000000)")
		name := sdktest.Field(s.sessionOf(h, c, "active"), "backend")
		h.Probes(action("terminate", "backend", name), fmt.Appendf(nil, `{"object":%q}`, string(name.(value.String))), pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
		h.Expect(action("terminate", "backend", name), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		ended(t, done, "57P01")
	})

	t.Run("without leave", func(t *testing.T) {
		c := s.client("app_web")
		name := sdktest.Field(s.sessionOf(h, c, "idle"), "backend")
		port, _ := strconv.Atoi(s.port)
		for what, x := range map[string]struct {
			config  value.Dict
			outcome pluginpb.Outcome
			want    string
		}{
			"privileges":   {sdktest.Dict("host", s.dir, "port", port, "user", "watcher", "users", sdktest.Texts("*")), pluginpb.Outcome_OUTCOME_FAILED, "SQLSTATE 42501"},
			"no such user": {sdktest.Dict("host", s.dir, "port", port, "user", "nobody", "users", sdktest.Texts("*")), pluginpb.Outcome_OUTCOME_NOT_STARTED, "SQLSTATE 28000"},
			"not listed":   {sdktest.Dict("host", s.dir, "port", port, "user", "runbook"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "does not allow to act on sessions of user app_web"},
			"no TLS there": {sdktest.Dict("host", "127.0.0.1", "port", port, "user", "runbook", "users", sdktest.Texts("*")), pluginpb.Outcome_OUTCOME_NOT_STARTED, "it does not encrypt connections"},
			"nobody there": {sdktest.Dict("host", "127.0.0.1", "port", 1, "user", "runbook", "users", sdktest.Texts("*")), pluginpb.Outcome_OUTCOME_NOT_STARTED, "connection refused"},
		} {
			if out := s.harness(x.config).Act(action("terminate", "backend", name)); out.Outcome != x.outcome || !strings.Contains(out.Message, x.want) {
				t.Errorf("%s: %s %q, want %s %q", what, out.Outcome, out.Message, x.outcome, x.want)
			}
		}
		if _, err := c.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("it was ended: %v", err)
		}
	})
}

// suite has a client whose statement is cancelled, or whose session is ended, and who comes again.
func suite(s *server) sdktest.Suite {
	var c *pgx.Conn
	var done <-chan error
	var h *sdktest.Harness
	over := func() bool {
		select {
		case err := <-done:
			again := make(chan error, 1)
			again <- err
			done = again
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	effect := func(function, argument, sample string) sdktest.Effect {
		return sdktest.Effect{
			Action:   action(function, argument, sample),
			Happened: over,
			Undo: func() {
				if c != nil {
					s.must(fmt.Sprintf("select pg_terminate_backend(%d)", c.PgConn().PID()))
				}
				c = s.client("app_web")
				done = runs(c, "select pg_sleep(1000)")
			},
			Fresh: func(a *sdktest.Action) {
				if h == nil {
					h = s.harness(s.config())
				}
				a.Args = sdktest.Dict(argument, sdktest.Field(s.sessionOf(h, c, "active"), argument))
			},
		}
	}
	return sdktest.Suite{
		Argv: sdktest.Bundled(s.t, "postgres"), Config: s.config(),
		Queries: []sdktest.Question{{Function: "sessions"}, {Function: "blockers"}, {Function: "connections"}, {Function: "replicas"}},
		Effects: []sdktest.Effect{effect("cancel", "statement", "1/1/1"), effect("terminate", "backend", "1/1")},
	}
}

func TestE2EConformance(t *testing.T) {
	t.Parallel()
	sdktest.Conformance(t, suite(newServer(t)))
}

func TestE2EKills(t *testing.T) {
	t.Parallel()
	sdktest.Kills(t, suite(newServer(t)), 50, 20261130)
}
