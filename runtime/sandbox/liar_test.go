package sandbox_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// lies are what a worker in the hands of a script could send after it was told to run, with what the engine says.
var lies = map[string]struct {
	send func(out *os.File)
	want string
}{
	"garbage":    {raw("not a frame at all"), "the worker cannot be trusted: frame of "},
	"not-json":   {frame("hello"), "the worker cannot be trusted: decode frame"},
	"half-json":  {frame(`{"done":{`), "the worker cannot be trusted: decode frame"},
	"field":      {frame(`{"evil":1}`), "the worker cannot be trusted: decode frame"},
	"huge":       {raw("\x7f\xff\xff\xff"), "the worker cannot be trusted: frame of 2147483647 bytes"},
	"empty":      {frame(`{}`), "the worker cannot be trusted: it sent a frame that does not belong here"},
	"ready":      {frame(`{"ready":{}}`), "the worker cannot be trusted: it sent a frame that does not belong here"},
	"function":   {call("systemd", "format_disk", nil), "the worker cannot be trusted: it calls systemd.format_disk, which there is not"},
	"family":     {call("ssh", "restart", nil), "the worker cannot be trusted: it calls ssh.restart, which there is not"},
	"declare":    {call("", "runbook", nil), "the worker cannot be trusted: it calls .runbook, which there is not"},
	"no-reason":  {call("systemd", "restart", value.Strings(map[string]string{"unit": "x"})), "the worker cannot be trusted: it calls systemd.restart with arguments that it should have refused: restart needs reason"},
	"type":       {call("metrics", "value", value.Dict{{Key: value.String("expr"), Value: value.Int(1)}}), "the worker cannot be trusted: it calls metrics.value with arguments that it should have refused"},
	"unknown":    {call("metrics", "value", value.Strings(map[string]string{"expr": "x", "evil": "y"})), "the worker cannot be trusted: it calls metrics.value with arguments that it should have refused"},
	"key":        {call("metrics", "value", value.Dict{{Key: value.Int(1), Value: value.Int(1)}}), "the worker cannot be trusted: it calls metrics.value with an argument without a name"},
	"nan":        {frame(`{"call":{"family":"metrics","function":"value","args":{"expr":"x","default":{"$float":"NaN"}},"pos":{},"events":{}}}`), "the worker cannot be trusted: it calls metrics.value with arguments"},
	"load":       {send(wire.FromWorker{Load: &wire.Load{Path: "../../etc/passwd"}}), "load \"../../etc/passwd\": the path must not hold .."},
	"outcome":    {done(wire.Done{Outcome: &value.Record{Type: "evil"}}), "the worker cannot be trusted: it did not read main.star"},
	"stopped":    {done(wire.Done{Stopped: true}), "the worker cannot be trusted: it says that it was stopped"},
	"code":       {done(wire.Done{Problem: problem.New(problem.Halted, "halted")}), "the worker cannot be trusted: it reports a problem that cannot be"},
	"escape":     {done(wire.Done{Problem: problem.New(problem.Script, "\x1b[2Jall is well")}), "\uFFFD[2Jall is well"},
	"event":      {done(wire.Done{Events: wire.Events{List: []wire.Event{{Kind: "verdict"}}}}), "the worker cannot be trusted: it reports an event that cannot be"},
	"big-event":  {done(wire.Done{Events: wire.Events{List: []wire.Event{{Kind: "print", Result: strings.Repeat("x", 1<<20)}}}}), "the worker cannot be trusted: it reports an event that is too large"},
	"many":       {frame(`{"done":{"events":{"list":[` + strings.Repeat("{},", 30_000) + `{}]}}}`), "the worker cannot be trusted: it reports more than"},
	"exit":       {func(*os.File) { os.Exit(0) }, "the worker process ended by itself (exit status 0)"},
	"kill":       {killed, "the worker process was ended from outside (killed)"},
	"close":      {func(out *os.File) { _ = out.Close(); forever() }, "the worker process ended by itself (it closed its pipe and went on)"},
	"silent":     {func(*os.File) { forever() }, "stopped after 3s of its own time (limits(time=))"},
	"deaf":       {send(wire.FromWorker{Load: &wire.Load{Path: "main.star"}}), "stopped after 3s of its own time (limits(time=))"},
	"read-first": {readThen(`{"done":{"steps":1,"events":{},"outcome":{"$record":{"type":"evil"}}}}`), "the worker cannot be trusted: it declares what it should have refused"},
	"read-field": {readThen(`{"done":{"steps":1,"events":{},"outcome":{"$record":{"type":"escalate","fields":[{"name":"reason","value":5}]}}}}`), "the worker cannot be trusted: it declares what it should have refused"},
	"read-def":   {readThen(`{"done":{"steps":1,"events":{},"defs":["a\u001b"]}}`), "the worker cannot be trusted: it defines a function with an impossible name"},
	"read-cover": {readThen(`{"done":{"steps":1,"events":{},"coverage":[{"path":"x","statements":[],"ran":[],"conditions":[]}]}}`), "the worker cannot be trusted: it covers a file"},
	"read-twice": {readThen(`{"load":{"path":"main.star","pos":{}}}`), "the worker cannot be trusted: it asked for main.star again"},
}

func raw(s string) func(*os.File) {
	return func(out *os.File) { _, _ = out.WriteString(s); forever() }
}

func frame(s string) func(*os.File) {
	return raw(string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s)
}

func send(m wire.FromWorker) func(*os.File) {
	return func(out *os.File) { _ = wire.Write(out, m); forever() }
}

func call(family, fn string, args value.Dict) func(*os.File) {
	return send(wire.FromWorker{Call: &wire.Call{Family: family, Function: fn, Args: args}})
}

func done(d wire.Done) func(*os.File) { return send(wire.FromWorker{Done: &d}) }

// readThen asks for the file as it should, and then sends a frame.
func readThen(s string) func(*os.File) {
	return func(out *os.File) {
		_ = wire.Write(out, wire.FromWorker{Load: &wire.Load{Path: "main.star"}})
		frame(s)(out)
	}
}

func killed(*os.File) {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	forever()
}

// forever waits for the engine to end this process.
func forever() { select {} }

// lie is a worker that behaves until it is told to run.
func lie(how string) int {
	time.AfterFunc(time.Minute, func() { os.Exit(9) }) // keeps select{} from being a deadlock, and bounds it
	if how == "echo" {                                 // the peer of a benchmark
		_, _ = io.Copy(os.Stdout, struct{ io.Reader }{os.Stdin})
		return 0
	}
	in, out := bufio.NewReader(os.NewFile(3, "in")), os.NewFile(4, "out")
	var m wire.ToWorker
	switch how {
	case "mute":
		forever()
	case "unlimited":
		_ = wire.Write(out, wire.FromWorker{Ready: &wire.Ready{Error: "RLIMIT_DATA: operation not permitted"}})
		forever()
	}
	if wire.Read(in, &m) != nil || wire.Write(out, wire.FromWorker{Ready: &wire.Ready{}}) != nil || wire.Read(in, &m) != nil {
		return 8
	}
	lies[how].send(out)
	return 7
}

func TestLies(t *testing.T) {
	t.Parallel()
	never := callerFunc(func(_ context.Context, r kit.Request) (value.Value, error) {
		t.Errorf("a lie reached the engine: %+v", r)
		return value.Null{}, nil
	})
	for how, c := range lies {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, err := sandbox.Spawner{Args: []string{"lie", how}, Limits: sandbox.Limits{Time: 3 * time.Second}}.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			text := "def run(ctx):\n    pass\n"
			if how == "deaf" {
				text += strings.Repeat("#", 200<<10) // more than a pipe holds
			}
			_, err = w.Evaluate(t.Context(), "main.star", "run", vocabulary(), one(text), environment(), never)
			if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), "main.star: "), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if !w.Dead() && how != "escape" && how != "load" {
				t.Error("a liar is still alive")
			}
			if strings.Contains(errString(err), "\x1b") {
				t.Error("the error holds an escape sequence")
			}
		})
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, c := range []struct {
		s    sandbox.Spawner
		ctx  context.Context
		want string
	}{
		{sandbox.Spawner{Args: []string{"lie", "unlimited"}}, t.Context(), "sandbox start a worker: a limit cannot be set: RLIMIT_DATA: operation not permitted"},
		{sandbox.Spawner{Args: []string{"lie", "mute"}}, ctx, "deadline start a worker: context deadline exceeded"},
		{sandbox.Spawner{Exe: "/bin/true", Args: []string{}}, t.Context(), "sandbox start a worker: "},
		{sandbox.Spawner{Exe: "/nonexistent"}, t.Context(), "sandbox start a worker: fork/exec /nonexistent: no such file or directory"},
	} {
		w, err := c.s.Start(c.ctx)
		if err == nil {
			w.Close()
		}
		if !strings.HasPrefix(problemOf(err), c.want) {
			t.Errorf("got %s, want %s", problemOf(err), c.want)
		}
	}
}
