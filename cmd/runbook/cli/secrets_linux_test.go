package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// canaries are secrets, one of each way in which a project can have one.
var canaries = map[string]string{
	"TOKEN":   "canary-of-a-bearer-token",
	"HOOK":    "canary-of-a-webhook",
	"HOOKKEY": "canary-of-a-webhook-header",
	"BEAT":    "canary-of-a-heartbeat",
	"FILE":    "canary-in-a-file",
}

// forms are the ways in which a secret may be written.
func forms(c string) [][]byte {
	return [][]byte{[]byte(c), []byte(base64.StdEncoding.EncodeToString([]byte("u:" + c))), []byte(url.QueryEscape(c))}
}

// receivers is a Prometheus, an Alertmanager, a webhook and a dead man's switch in one. It remembers which canaries came,
// and in trouble it repeats all that it got, as servers do that are badly made.
type receivers struct {
	*httptest.Server
	sync.Mutex
	metrics string // the address of one that answers
	trouble bool
	came    map[string]bool
}

func (s *receivers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var got bytes.Buffer
	_ = r.Write(&got)
	s.Lock()
	defer s.Unlock()
	for _, c := range canaries {
		for _, form := range forms(c) {
			s.came[c] = s.came[c] || bytes.Contains(got.Bytes(), form)
		}
	}
	if s.trouble {
		http.Error(w, "no, not with this:\n"+got.String(), http.StatusUnauthorized)
		return
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/am/"):
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "[]")
	case strings.HasPrefix(r.URL.Path, "/prom/"):
		req, _ := http.NewRequestWithContext(r.Context(), r.Method, s.metrics+strings.TrimPrefix(r.URL.RequestURI(), "/prom"), bytes.NewReader(afterHead(got.Bytes())))
		req.Header.Set("Content-Type", r.Header.Get("Content-Type"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}
}

func afterHead(request []byte) []byte {
	_, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	return body
}

// No secret is in anything that the program prints or writes, whether all goes well or the other side repeats it in an error; and each did get to
// where it belongs.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &receivers{metrics: stuckWorker(t), came: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(canaries["FILE"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "project.star"), fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": %[1]q, "bearer_token": secret.env("TOKEN")}),
    alerts = [connection("alertmanager", config = {"url": %[2]q, "basic_user": "u", "basic_password": secret.file(%[3]q)})],
    policy = policy(tested = False, mode = "auto"),
    notify = [webhook(secret.env("HOOK"), headers = {"X-Key": secret.env("HOOKKEY")})],
    heartbeat = "state/runbook.prom",
    heartbeat_url = secret.env("BEAT"),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {"show": ["/usr/bin/env"], "fail": ["/bin/sh", "-c", "/usr/bin/env; exit 1"]}})],
)
`, s.URL+"/prom", s.URL+"/am", secret))
	for name, command := range map[string]string{"worker": "show", "failing": "fail"} {
		write(t, filepath.Join(dir, name+".star"), fmt.Sprintf(`runbook(
    owner = "team",
    trigger = manual(),
    severity = "warning",
    mode = "auto",
    targets = single("w3", labels = {"job": "worker", "name": %q}, sick = 'max(queue_depth) > 100'),
)

def run(ctx):
    print(ctx.metrics.value("max(queue_depth)"))
    print(ctx.alerts.firing("Nothing"))
    print(ctx.metrics.vector("up"))
    ctx.exec.run(%q, reason = "its queue is stuck")
`, name, command))
	}
	exe, err := exec.LookPath("runbook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGates(dir) })
	var said bytes.Buffer
	does := func(args ...string) {
		t.Helper()
		for _, more := range [][]string{{"--verbose"}, {"--json"}} {
			if slices.Contains(args, "-") && more[0] == "--json" {
				continue
			}
			cmd := exec.CommandContext(t.Context(), exe, append(args, more...)...)
			cmd.Dir, cmd.Env = dir, []string{noRaceSleep, "PATH=/usr/bin:/bin"}
			for name, c := range canaries {
				switch name {
				case "HOOK", "BEAT":
					c = s.URL + "/" + name + "/" + c
				case "FILE":
					continue
				}
				cmd.Env = append(cmd.Env, name+"="+c)
			}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&said, "$ runbook %s\n%s\n", strings.Join(args, " "), out)
		}
	}
	does("init", "--state", "state")
	for _, trouble := range []bool{false, true} {
		s.Lock()
		s.trouble = trouble
		s.Unlock()
		does("run", "--target", "w3", "worker.star")
		does("run", "--dry-run", "worker.star", "--target", "w3")
		does("run", "failing.star", "--target", "w3")
		does("run")
		does("doctor")
		for _, look := range []string{"status", "runs", "actions", "report", "check", "docs", "explain last --full", "explain last --html page.html", "replay last", "why-not worker", "why-not failing", "audit list", "audit export log.ndjson", "audit export -", "breaker status"} {
			does(strings.Fields(look)...)
		}
		does("backup", fmt.Sprintf("backup-%t", trouble))
	}
	s.Lock()
	for name, c := range canaries {
		if !s.came[c] {
			t.Errorf("%s did not get to where it belongs", name)
		}
	}
	s.Unlock()
	if !strings.Contains(said.String(), "queue_depth") || !strings.Contains(said.String(), "exec.run (command=\"show\"): succeeded") {
		t.Errorf("nothing was decided, or nothing done:\n%s", said.String())
	}
	found := func(where string, content []byte) {
		for name, c := range canaries {
			for _, form := range forms(c) {
				if i := bytes.Index(content, form); i >= 0 {
					t.Errorf("%s is in %s: ...%q", name, where, content[max(0, i-200):min(len(content), i+50)])
				}
			}
		}
	}
	found("what was printed", said.Bytes())
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		found(path, content)
		return err
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
	state, err := control.Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := pebble.New(storeConfig(state, "test")) // the files may be compressed
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Scan(t.Context(), "", false, func(key string, val []byte) bool { found(key, val); return true }); err != nil {
		t.Error(err)
	}
}
