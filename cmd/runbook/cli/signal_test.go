package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/control"
)

// waiter is a program with the real handling of signals whose only command waits for one: "orderly" ends when it is told to,
// "stubborn" does not, "writer" writes to a stdout that nobody reads until it is told to end. Anything else is a state
// directory in whose gate it stands, as a run does that lets an action begin.
func waiter() {
	stdio := System()
	u := newUI(stdio)
	ctx, stop := withSignals(context.Background(), func(s string) { u.Warn("%s", s) })
	defer stop()
	wait := spec{name: "wait", args: "HOW", min: 1, max: 1, run: func(ctx context.Context, c *call) (result, error) {
		if how := c.args[0]; filepath.IsAbs(how) {
			s, err := control.Open(how)
			if err != nil {
				return nil, err
			}
			return nil, s.Pass(ctx, stdio.Env, func() error {
				u.Progress("ready")
				select {}
			})
		}
		u.Progress("ready")
		switch c.args[0] {
		case "stubborn":
			select {}
		case "writer":
			u.Printf("a line that nobody reads\n")
			u.Progress("still there")
		}
		<-ctx.Done()
		u.Progress("recorded")
		return nil, ctx.Err()
	}}
	code := run(ctx, []spec{wait}, os.Args[1:], stdio, u)
	os.Exit(int(code))
}

type child struct {
	*exec.Cmd
	lines *bufio.Reader
}

func startWaiter(t *testing.T, how string, stdout io.Writer) child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, "wait", how)
	cmd.Args[0] = "waiter" // testscript.Main goes by this name
	cmd.Stdout = stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := child{cmd, bufio.NewReader(stderr)}
	c.expect(t, "runbook: ready")
	return c
}

func (c child) expect(t *testing.T, want string) {
	t.Helper()
	line, err := c.lines.ReadString('\n')
	if !strings.HasPrefix(line, want) {
		t.Fatalf("got %q (%v), want %q", line, err, want)
	}
}

func (c child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exits checks how the child ends, and that it has said everything that it should have, in whatever order.
func (c child) exits(t *testing.T, want int, said ...string) {
	t.Helper()
	rest, _ := io.ReadAll(c.lines)
	for _, s := range said {
		if !strings.Contains(string(rest), "runbook: "+s) {
			t.Errorf("did not say %q:\n%s", s, rest)
		}
	}
	err := c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		t.Fatalf("ended with %v, want exit %d; stderr:\n%s", err, want, rest)
	}
}

func TestFirstSignalEndsInOrder(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		c := startWaiter(t, "orderly", nil)
		c.signal(t, s)
		c.exits(t, 130, "recorded", "error: interrupted")
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	c := startWaiter(t, "stubborn", nil)
	c.signal(t, os.Interrupt)
	c.expect(t, "runbook: warning: interrupt: stopping in order; a second signal stops at once")
	c.signal(t, os.Interrupt)
	c.exits(t, 130)
}

// "runbook run | head -1" must not be killed in the middle of an action.
func TestClosedPipeDoesNotKill(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	c := startWaiter(t, "writer", w)
	w.Close()
	c.expect(t, "runbook: still there")
	c.signal(t, os.Interrupt)
	c.exits(t, 130, "recorded")
}
