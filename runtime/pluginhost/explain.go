package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// explainStart says why a plugin did not start, from what was seen and not from what is usually the cause.
func (p *process) explainStart(err error) error {
	path := p.host.config.Exe
	if e, ok := p.host.config.External[p.name]; ok {
		path = e.Path
	}
	fail := func(code problem.Code, format string, args ...any) *problem.Problem {
		msg := fmt.Sprintf("plugin %s (%s): ", p.name, path) + fmt.Sprintf(format, args...)
		return problem.New(code, "%s", p.secret.text(msg)).WithDetail(p.lastWords()...)
	}
	g := p.group.Load()
	var killed bool
	var startErr error
	if g != nil {
		_, killed, startErr = g.process()
	}
	if g == nil || startErr != nil {
		switch {
		case errors.Is(err, os.ErrNotExist):
			return missing(p.name, path)
		case errors.Is(err, os.ErrPermission):
			return fail(problem.PluginFailed, "it may not be executed by this user").WithHint("chmod +x %s", path)
		case errors.Is(err, syscall.ENOEXEC):
			return fail(problem.PluginFailed, "it is not a program for this machine").
				WithHint("install the build of the plugin for this operating system and processor")
		}
		return fail(problem.PluginFailed, "cannot be started: %v", err)
	}
	first := g.stdout.first()
	handshake := strings.Count(first, "|") >= 3
	switch {
	case errors.Is(err, errNotInTime), strings.Contains(err.Error(), "timeout while waiting"):
		return fail(problem.PluginTimeout, "it was not ready within %s", p.host.config.StartTimeout)
	case first != "" && !handshake:
		return fail(problem.PluginFailed, "it printed %q to standard output instead of the handshake", first).
			WithHint("a plugin prints to standard error; what it runs before it serves must be silent")
	case strings.Contains(err.Error(), "incompatible"):
		version := strings.Split(first, "|")[1]
		return fail(problem.PluginFailed, "it speaks version %s of the plugin protocol, this program %d", version, sdk.ProtocolVersion).
			WithHint("install versions of runbook and of the plugin that belong together")
	}
	select {
	case <-g.done:
		if !killed {
			return fail(problem.PluginFailed, "it ended before it was ready: %s", g.state)
		}
	default:
	}
	return fail(problem.PluginFailed, "the handshake failed: %v", err)
}

// callError says why a call got no answer.
func (p *process) callError(what string, err error) *problem.Problem {
	fail := func(code problem.Code, format string, args ...any) *problem.Problem {
		msg := fmt.Sprintf("plugin %s: %s: ", p.name, what) + fmt.Sprintf(format, args...)
		return problem.New(code, "%s", p.secret.text(msg)).WithDetail(p.lastWords()...)
	}
	st, _ := status.FromError(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), st.Code() == codes.DeadlineExceeded:
		return fail(problem.PluginTimeout, "it did not answer in time")
	case errors.Is(err, context.Canceled), st.Code() == codes.Canceled:
		return fail(problem.Interrupted, "cancelled")
	case st.Code() == codes.ResourceExhausted:
		return fail(problem.PluginFailed, "the message is too large: %s", st.Message())
	case st.Code() == codes.Unimplemented:
		return fail(problem.PluginFailed, "the plugin does not offer this")
	}
	// A broken connection is mostly the end of the process, a moment ago or in a moment.
	g := p.group.Load()
	select {
	case <-g.done:
		return fail(problem.PluginFailed, "the plugin ended: %s", g.state)
	case <-time.After(100 * time.Millisecond):
	}
	return fail(problem.PluginFailed, "%s", st.Message())
}

// lastWords is the end of what the plugin printed, without secrets. Of a plugin that has ended it waits for the rest, which
// is bounded by leftOpen.
func (p *process) lastWords() []string {
	if g := p.group.Load(); g != nil {
		select {
		case <-g.done:
			if _, _, startErr := g.process(); startErr == nil {
				<-g.stderr.eof
			}
		default:
		}
	}
	var out []string
	for _, l := range p.stderr.lines() {
		out = append(out, p.secret.text(l))
	}
	return out
}

// tail keeps the last lines that a plugin printed.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// The size of a tail.
const (
	tailBytes = 64 << 10
	tailLines = 20
)

func newTail() *tail { return &tail{} }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailBytes):]...)
	if len(t.buf) > 2*tailBytes {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) lines() []string {
	t.mu.Lock()
	text := strings.ToValidUTF8(string(t.buf[max(0, len(t.buf)-tailBytes):]), "\uFFFD")
	t.mu.Unlock()
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	// A crash says why in its first line, and then goes on about itself.
	for i, l := range slices.Backward(lines) {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			return lines[i:min(len(lines), i+tailLines)]
		}
	}
	lines = lines[max(0, len(lines)-tailLines):]
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines
}

// redactor hides the secrets of a connection in text that a plugin wrote.
type redactor struct{ secrets []string }

// hidden is what is shown instead of a secret.
const hidden = "[hidden]"

func newRedactor(m sdk.Manifest, config value.Dict) redactor {
	var r redactor
	for _, pa := range m.Config {
		if v, ok := config.Get(pa.Name); ok && pa.Sensitive {
			r.collect(v)
		}
	}
	return r
}

// collect takes every text in v that is long enough not to occur by chance.
func (r *redactor) collect(v value.Value) {
	switch v := v.(type) {
	case value.String:
		if len(v) >= 4 {
			r.secrets = append(r.secrets, string(v))
		}
	case value.List:
		for _, it := range v {
			r.collect(it)
		}
	case value.Dict:
		for _, e := range v {
			r.collect(e.Value)
		}
	}
}

func (r redactor) text(s string) string {
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, hidden)
	}
	return s
}

// problem is pr as said by the plugin, without secrets, with where it comes from in front.
func (r redactor) problem(pr *problem.Problem, format string, args ...any) *problem.Problem {
	pr.Message = fmt.Sprintf(format, args...) + ": " + r.text(pr.Message)
	pr.Hint = r.text(pr.Hint)
	for i, l := range pr.Detail {
		pr.Detail[i] = r.text(l)
	}
	return pr
}
