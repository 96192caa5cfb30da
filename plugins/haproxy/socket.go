package haproxy

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxAnswer is the longest answer that is read, in bytes.
const maxAnswer = 8 << 20

// server is one server of a backend.
type server struct {
	Server   string        `rb:"server"` // backend/name
	Backend  string        `rb:"backend"`
	Name     string        `rb:"name"`
	Address  string        `rb:"address"`
	State    string        `rb:"state"`    // as set by people or the configuration: ready, drain or maint
	Status   string        `rb:"status"`   // UP, DOWN, UP 1/3, MAINT, DRAIN, NOLB, no check, ...
	Serving  bool          `rb:"serving"`  // new sessions are given to it
	Sessions int64         `rb:"sessions"` // at this moment
	Queue    int64         `rb:"queue"`    // requests that wait for it
	Check    string        `rb:"check"`    // result of the last health check: L7OK, L4CON, ...; "" without checks
	Weight   int64         `rb:"weight"`
	Since    time.Duration `rb:"since"` // how long ago its status changed
	forced   uint64
}

// The bits of srv_admin_state that the runtime API sets, and all others, which the configuration, another server or the DNS has set; see the
// section "show servers state" of HAProxy's management guide.
const (
	forcedMaint = 0x01
	forcedDrain = 0x08
	anyMaint    = 0x01 | 0x02 | 0x04 | 0x20 | 0x40
	anyDrain    = 0x08 | 0x10
)

// ask sends one command and reads the answer to its end, which HAProxy makes by closing the connection. sent says that the command may have been carried
// out.
func (x *plugin) ask(ctx context.Context, command string) (answer string, sent bool, err error) {
	network := "tcp"
	if strings.HasPrefix(x.config.Socket, "/") {
		network = "unix"
	}
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(limited, network, x.config.Socket)
	if err != nil {
		return "", false, x.explain(limited, err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(limited, func() { _ = c.Close() })
	defer stop()
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", true, x.explain(limited, err)
	}
	b, err := io.ReadAll(io.LimitReader(c, maxAnswer+1))
	switch {
	case err != nil:
		return "", true, x.explain(limited, err)
	case len(b) > maxAnswer:
		return "", true, problem.New(problem.PluginFailed, "haproxy %s: the answer to %q is longer than %d MiB", x.config.Socket, command, maxAnswer>>20)
	case !strings.HasSuffix(string(b), "\n"):
		return "", true, problem.New(problem.PluginFailed, "haproxy %s: the answer to %q was cut off", x.config.Socket, command)
	}
	answer = strings.TrimSpace(string(b))
	if strings.HasPrefix(answer, "Permission denied") {
		return "", false, problem.New(problem.PluginFailed, "haproxy %s: permission denied: %s", x.config.Socket, command).
			WithHint("the socket needs the level admin in haproxy.cfg: stats socket %s mode 660 level admin", x.config.Socket)
	}
	return answer, true, nil
}

func (x *plugin) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return problem.New(problem.PluginTimeout, "haproxy %s: no answer within %s", x.config.Socket, x.config.Timeout)
	case errors.Is(err, os.ErrNotExist):
		return problem.New(problem.PluginFailed, "haproxy %s: there is no such socket", x.config.Socket).WithHint("does HAProxy run, and has haproxy.cfg: stats socket %s mode 660 level admin", x.config.Socket)
	case errors.Is(err, os.ErrPermission):
		return problem.New(problem.PluginFailed, "haproxy %s: permission denied", x.config.Socket).WithHint("give the engine's user the group of the socket: stats socket ... group runbook mode 660")
	}
	return problem.Wrap(problem.PluginFailed, err, "haproxy %s", x.config.Socket)
}

// look reads the servers of a backend, or of all.
func (x *plugin) look(ctx context.Context, backend string) ([]server, error) {
	text, _, err := x.ask(ctx, strings.TrimSpace("show servers state "+backend))
	if err != nil {
		return nil, err
	}
	states, err := table(text, ' ')
	if err != nil {
		if backend != "" && strings.Contains(text, "backend") {
			return nil, problem.New(problem.NotFound, "haproxy %s has no backend %s", x.config.Socket, backend)
		}
		return nil, problem.New(problem.PluginFailed, "haproxy %s: it does not say what state its servers are in: %.200q", x.config.Socket, text)
	}
	if text, _, err = x.ask(ctx, "show stat -1 4 -1"); err != nil { // of every proxy, only servers
		return nil, err
	}
	stats, err := table(text, ',')
	if err != nil {
		return nil, problem.New(problem.PluginFailed, "haproxy %s: its statistics cannot be read: %v", x.config.Socket, err)
	}
	of := map[string]map[string]string{}
	for _, s := range stats {
		of[s["pxname"]+"/"+s["svname"]] = s
	}
	out := make([]server, 0, len(states))
	for _, s := range states {
		full := s["be_name"] + "/" + s["srv_name"]
		out = append(out, newServer(full, s, of[full]))
	}
	return out, nil
}

func newServer(full string, state, stat map[string]string) server {
	n := func(m map[string]string, name string) int64 {
		v, _ := strconv.ParseInt(m[name], 10, 64) // an empty field is 0
		return v
	}
	s := server{
		Server: full, Backend: state["be_name"], Name: state["srv_name"], Address: stat["addr"], State: "ready", Status: stat["status"],
		Sessions: n(stat, "scur"), Queue: n(stat, "qcur"), Check: strings.TrimPrefix(stat["check_status"], "* "), Weight: n(state, "srv_uweight"),
		Since: time.Duration(n(stat, "lastchg")) * time.Second,
	}
	admin := uint64(n(state, "srv_admin_state"))
	s.forced = admin & (forcedMaint | forcedDrain)
	switch {
	case admin&anyMaint != 0:
		s.State = "maint"
	case admin&anyDrain != 0:
		s.State = "drain"
	}
	op := n(state, "srv_op_state") // 0 stopped, 1 starting, 2 running, 3 stopping
	s.Serving = s.State == "ready" && (op == 1 || op == 2) && s.Weight > 0
	return s
}

// table reads lines below one that begins with # and names the columns.
func table(text string, comma rune) ([]map[string]string, error) {
	_, text, ok := strings.Cut(text, "# ")
	if !ok {
		return nil, errors.New("it has no line with the names of its columns")
	}
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = comma, -1, true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, v := range row {
			if i < len(rows[0]) {
				m[rows[0][i]] = v
			}
		}
		out = append(out, m)
	}
	return out, nil
}
