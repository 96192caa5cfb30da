//go:build e2e

package redis_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"

	"github.com/seed1de3961f/runbook/plugins/redis"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var target = sdk.Target{Key: "instance=cache1", Name: "cache1"}

// server is a real one, with a user who may do no more than the plugin needs.
type server struct {
	t    *testing.T
	port string
}

func newServer(t *testing.T, more ...string) *server {
	t.Helper()
	s := &server{t, sdktest.FreePort(t)}
	argv := []string{"redis-server", "--port", s.port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "no"}
	sdktest.Server(t, sdktest.Listens("tcp", "127.0.0.1:"+s.port), append(argv, more...)...)
	s.must("ACL", "SETUSER", "runbook", "on", ">acts", "-@all", "+info", "+client|list", "+client|kill", "+client|setname", "+slowlog|get", "+config|get", "+config|set")
	return s
}

func (s *server) config() value.Dict {
	return sdktest.Dict("address", "127.0.0.1:"+s.port, "user", "runbook", "password", "acts", "settings", sdktest.Texts("maxmemory", "maxmemory-policy"))
}

// dial is a client of the server, which is called so.
func (s *server) dial(name string) redigo.Conn {
	s.t.Helper()
	c, err := redigo.Dial("tcp", "127.0.0.1:"+s.port, redigo.DialClientName(name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// must asks the server itself.
func (s *server) must(command string, args ...any) any {
	s.t.Helper()
	r, err := s.dial("test").Do(command, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *server) harness() *sdktest.Harness {
	s.t.Helper()
	h := sdktest.New(s.t, redis.New())
	if err := h.Configure(s.config()); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// clientNamed is the only client that calls itself so.
func clientNamed(t *testing.T, h *sdktest.Harness, name string) string {
	t.Helper()
	v := h.Ask("clients", sdktest.Dict("name", name))
	if l := v.(value.List); len(l) != 1 {
		t.Fatalf("clients named %s: %v", name, l)
	}
	return string(sdktest.Field(v, "client").(value.String))
}

func action(function string, args ...any) sdktest.Action {
	return sdktest.Action{Function: function, Args: sdktest.Dict(args...), Key: "key", Target: target}
}

func TestE2ERedis(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := s.harness()

	t.Run("info", func(t *testing.T) {
		server := h.Ask("info", sdktest.Dict("section", "server"))
		if port := sdktest.Field(server, "tcp_port"); fmt.Sprint(port) != s.port {
			t.Errorf("tcp_port %v, want %s", port, s.port)
		}
		if _, err := h.Query(t.Context(), "info", sdktest.Dict("section", "nonsense")); err == nil || !strings.Contains(err.Error(), `INFO has no section "nonsense"`) {
			t.Errorf("%v", err)
		}
	})

	t.Run("slow", func(t *testing.T) {
		s.must("EVAL", "local t = redis.call('TIME')[2] for i = 1, 3000000 do t = t + i end return 1", 0)
		v := h.Ask("slow", sdktest.Dict("count", 1))
		if c, took := sdktest.Field(v, "command"), sdktest.Field(v, "took"); !strings.HasPrefix(fmt.Sprint(c), `EVAL local t`) || time.Duration(took.(value.Duration)) < 10*time.Millisecond {
			t.Errorf("slow: %v", v)
		}
	})

	t.Run("end_client", func(t *testing.T) {
		a, b := s.dial("worker-a"), s.dial("worker-b")
		client := clientNamed(t, h, "worker-a")
		plan, err := h.Plan(action("end_client", "client", client))
		if err != nil || plan.GetNoChange() || !strings.Contains(plan.GetChanges()[0].GetBefore(), "last command client|setname") {
			t.Errorf("plan: %v %v", plan, err)
		}
		out := h.Expect(action("end_client", "client", client), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		if _, err := a.Do("PING"); err == nil {
			t.Error("the client that was ended still gets an answer")
		}
		if _, err := b.Do("PING"); err != nil {
			t.Errorf("another client was ended: %v", err)
		}
		h.Probes(action("end_client", "client", client), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
		h.Expect(action("end_client", "client", client), pluginpb.Outcome_OUTCOME_NO_CHANGE, "is not connected any more")
		other := clientNamed(t, h, "worker-b")
		h.Probes(action("end_client", "client", other), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
		h.Probes(action("end_client", "client", other), []byte(strings.Replace(string(out.Receipt), client, other, 1)), pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	})

	t.Run("set", func(t *testing.T) {
		set := action("set", "name", "maxmemory", "value", "100mb")
		plan, err := h.Plan(set)
		if err != nil || plan.GetChanges()[0].GetBefore() != "0" || plan.GetChanges()[0].GetAfter() != "100mb" {
			t.Errorf("plan: %v %v", plan, err)
		}
		out := h.Expect(set, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		if v := h.Ask("setting", sdktest.Dict("name", "maxmemory")); v != value.String("104857600") {
			t.Errorf("maxmemory is %v", v)
		}
		h.Expect(set, pluginpb.Outcome_OUTCOME_NO_CHANGE, "maxmemory is 104857600")
		h.Probes(set, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
		s.must("CONFIG", "SET", "maxmemory", "0")
		h.Probes(set, out.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
		s.must("CONFIG", "SET", "maxmemory", "1")
		h.Probes(set, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN) // somebody else did something
		h.Expect(action("set", "name", "maxmemory-policy", "value", "nonsense"), pluginpb.Outcome_OUTCOME_FAILED, "CONFIG SET failed")
		h.Expect(action("set", "name", "maxclients", "value", "1"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "does not allow to set maxclients")
		if _, err := h.Query(t.Context(), "setting", sdktest.Dict("name", "max*")); err == nil || !strings.Contains(err.Error(), "cannot be a parameter") {
			t.Errorf("%v", err)
		}
	})
}

// A replica's connection looks like a client's, and is not one.
func TestE2EReplica(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newServer(t, "--replicaof", "127.0.0.1 "+s.port)
	h := s.harness()
	id := regexp.MustCompile(`(?m)^id=(\d+) .* flags=S `)
	var found []string
	for deadline := time.Now().Add(30 * time.Second); found == nil; time.Sleep(50 * time.Millisecond) {
		list, err := redigo.String(s.must("CLIENT", "LIST"), nil)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the replica does not come: %v\n%s", err, list)
		}
		found = id.FindStringSubmatch(list)
	}
	s.dial("worker")
	client := clientNamed(t, h, "worker") // to know the run
	run, _, _ := strings.Cut(client, "/")
	for _, c := range h.Ask("clients", nil).(value.List) {
		if n := sdktest.Field(c, "client"); n == value.String(run+"/"+found[1]) {
			t.Errorf("the replica is among the clients: %v", c)
		}
	}
	h.Expect(action("end_client", "client", run+"/"+found[1]), pluginpb.Outcome_OUTCOME_NOT_STARTED, "is a replica or the master")
}

// After a restart the numbers of clients begin anew: an old name fits nobody.
func TestE2EClientOfAnotherRun(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := s.harness()
	c := s.dial("worker")
	client := clientNamed(t, h, "worker")
	run, id, _ := strings.Cut(client, "/")
	old := strings.Repeat("0", len(run)) + "/" + id
	h.Expect(action("end_client", "client", old), pluginpb.Outcome_OUTCOME_NO_CHANGE, "started anew since")
	if _, err := c.Do("PING"); err != nil {
		t.Errorf("it was ended: %v", err)
	}
}

func TestE2EWithoutLeave(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.must("ACL", "SETUSER", "reader", "on", ">reads", "-@all", "+info", "+client|list", "+client|setname", "+config|get")
	for name, c := range map[string]struct {
		config  value.Dict
		outcome pluginpb.Outcome
		want    string
	}{
		"wrong password": {sdktest.Dict("address", "127.0.0.1:"+s.port, "user", "runbook", "password", "wrong"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "WRONGPASS"},
		"no permission":  {sdktest.Dict("address", "127.0.0.1:"+s.port, "user", "reader", "password", "reads"), pluginpb.Outcome_OUTCOME_FAILED, "NOPERM"},
		"nobody there":   {sdktest.Dict("address", "127.0.0.1:1"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "connection refused"},
		"no encryption":  {sdktest.Dict("address", "127.0.0.1:"+s.port, "tls", true), pluginpb.Outcome_OUTCOME_NOT_STARTED, "redis 127.0.0.1"},
	} {
		h := sdktest.New(t, redis.New())
		if err := h.Configure(append(c.config, sdktest.Dict("settings", sdktest.Texts("maxmemory"), "timeout", value.Duration(2*time.Second))...)); err != nil {
			t.Fatal(err)
		}
		if out := h.Act(action("set", "name", "maxmemory", "value", "1gb")); out.Outcome != c.outcome || !strings.Contains(out.Message, c.want) {
			t.Errorf("%s: %s %q, want %s %q", name, out.Outcome, out.Message, c.outcome, c.want)
		}
	}
	if v, err := redigo.Strings(s.must("CONFIG", "GET", "maxmemory"), nil); err != nil || v[1] != "0" {
		t.Errorf("maxmemory is %v, %v", v, err)
	}
}

// suite has a worker that is ended and connects again, and a setting.
func suite(s *server) sdktest.Suite {
	var worker redigo.Conn
	var h *sdktest.Harness
	return sdktest.Suite{
		Argv: sdktest.Bundled(s.t, "redis"), Config: s.config(),
		Queries: []sdktest.Question{
			{Function: "info"},
			{Function: "clients", Args: sdktest.Dict("idle", value.Duration(time.Hour))},
			{Function: "slow"},
			{Function: "setting", Args: sdktest.Dict("name", "maxmemory")},
		},
		Effects: []sdktest.Effect{
			{
				Action: action("end_client", "client", strings.Repeat("0", 40)+"/1"),
				Happened: func() bool {
					_, err := worker.Do("PING")
					return err != nil
				},
				Undo: func() {
					if worker != nil {
						_ = worker.Close()
					}
					worker = s.dial(fmt.Sprintf("worker-%d", time.Now().UnixNano()))
				},
				Fresh: func(a *sdktest.Action) {
					if h == nil {
						h = s.harness()
					}
					name, err := redigo.String(worker.Do("CLIENT", "GETNAME"))
					if err != nil {
						s.t.Fatal(err)
					}
					a.Args = sdktest.Dict("client", clientNamed(s.t, h, name))
				},
			},
			{
				Action: action("set", "name", "maxmemory", "value", "1gb"),
				Happened: func() bool {
					v, err := redigo.Strings(s.must("CONFIG", "GET", "maxmemory"), nil)
					return err == nil && v[1] != "0"
				},
				Undo: func() { s.must("CONFIG", "SET", "maxmemory", "0") },
			},
		},
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
