package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var record = flag.Bool("record", false, "with a real cluster (-tags kubernetes): write what was exchanged with it to testdata")

// exchange is one request to an API server and its answer.
type exchange struct {
	Method, Path, Body string
	Status             int
	Answer             string
}

// tape is an API server: a real one whose exchanges are written down, or what was written down, in the same order. Either way both the plugin and the test
// talk to it, one after the other.
type tape struct {
	t    *testing.T
	name string
	url  string // with the certificate in ca
	ca   string
	// Of the real one.
	real        string
	admin, user string

	mu        sync.Mutex
	exchanges []exchange
	next      int
}

func newTape(t *testing.T, name string) *tape {
	t.Helper()
	p := &tape{t: t, name: filepath.Join("testdata", name+".json"), admin: "admin", user: "user"}
	if startCluster != nil {
		p.real, p.admin, p.user = startCluster(t)
	} else {
		b, err := os.ReadFile(p.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &p.exchanges); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // a plugin that is killed hangs up
	s.StartTLS()
	t.Cleanup(s.Close)
	p.url, p.ca = s.URL, filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(p.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.real == "" && !t.Failed() && p.next != len(p.exchanges) {
			t.Errorf("%d of %d exchanges were asked for", p.next, len(p.exchanges))
		}
		if *record && p.real != "" && !t.Failed() {
			b, err := json.MarshalIndent(p.exchanges, "", " ")
			if err == nil {
				err = os.WriteFile(p.name, append(b, '\n'), 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

// moment is what differs in a body each time.
var moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func (p *tape) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x := exchange{Method: r.Method, Path: r.URL.RequestURI(), Body: moment.ReplaceAllString(string(body), "MOMENT")}
	if p.real != "" {
		if err := p.forward(r, body, &x); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		p.exchanges = append(p.exchanges, x)
	} else {
		if p.next >= len(p.exchanges) {
			p.t.Errorf("after all that was written down: %s %s", x.Method, x.Path)
			http.Error(w, "nothing was written down", http.StatusBadGateway)
			return
		}
		want := p.exchanges[p.next]
		p.next++
		if want.Method != x.Method || want.Path != x.Path || want.Body != x.Body {
			p.t.Errorf("request %d is\n%s %s %s\nwas\n%s %s %s", p.next, x.Method, x.Path, x.Body, want.Method, want.Path, want.Body)
		}
		x = want
	}
	w.Header().Set("Content-Type", "application/json")
	if x.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // as it does, which the client library would take up
	}
	w.WriteHeader(x.Status)
	_, _ = io.WriteString(w, x.Answer)
}

// forward asks the real one.
func (p *tape) forward(r *http.Request, body []byte, x *exchange) error {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, p.real+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for _, name := range []string{"Authorization", "Content-Type", "Accept"} {
		req.Header.Set(name, r.Header.Get(name))
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // it has just been started, on loopback
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	x.Status, x.Answer = resp.StatusCode, strings.TrimSpace(string(b))
	return err
}

// do asks the API server as its administrator, and decodes its answer.
func (p *tape) do(method, path string, body, answer any) int {
	p.t.Helper()
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			p.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/merge-patch+json"
	}
	req.Header.Set("Authorization", "Bearer "+p.admin)
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/json")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // our own, above
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			p.t.Fatalf("%s %s: %s: %v", method, path, resp.Status, err)
		}
	}
	return resp.StatusCode
}

// must does something that has to succeed.
func (p *tape) must(method, path string, body, answer any) {
	p.t.Helper()
	var raw json.RawMessage
	if status := p.do(method, path, body, &raw); status >= 300 {
		p.t.Fatalf("%s %s: %d %s", method, path, status, raw)
	}
	if answer != nil {
		if err := json.Unmarshal(raw, answer); err != nil {
			p.t.Fatal(err)
		}
	}
}
