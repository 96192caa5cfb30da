package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// HaltRequest says who stops everything, and why.
type HaltRequest struct {
	Reason string
	By     string        // Who() if empty
	For    time.Duration // 0: until a person resumes
	// Report, if set, is told each thing that was done, and each that was not.
	Report func(line string)
}

// Halt stops: when it returns nil, HALT is durable and no action on this machine begins to act until Resume. It does as much as can be done
// in whatever state the directory is, in five seconds at most, and an error says exactly what was done and what was not:
// halt-not-confirmed if the stop is set, but not durably or not confirmed; state-unusable if it could not be set at all.
func (s State) Halt(ctx context.Context, r HaltRequest) error {
	if r.By == "" {
		r.By = Who()
	}
	if r.Report == nil {
		r.Report = func(string) {}
	}
	switch {
	case strings.TrimSpace(r.Reason) == "":
		return problem.New(problem.Usage, "halt needs a reason").WithHint(`runbook halt --reason "what is going on"`)
	case r.For < 0:
		return problem.New(problem.Usage, "halt for %s: an end must be in the future", r.For).WithHint("--for 2h")
	}
	info := HaltInfo{Source: SourceFile, Reason: printable(r.Reason), By: r.By, At: s.now().UTC().Round(0)}
	if r.For > 0 {
		info.Until = info.At.Add(r.For)
	}
	line, err := json.Marshal(info)
	if err != nil {
		return problem.Wrap(problem.Internal, err, "halt")
	}
	line = append(line, '\n')

	// Both at once and each with its own time: a disk that hangs holds up neither the other copy nor us.
	limit := s.patience(writeTimeout)
	state := begin(func() result { return s.setState(line) })
	memory := begin(func() result { return s.setMemory(line) })
	onDisk, inMemory := state.wait(limit), memory.wait(limit)
	r.Report(onDisk.said)
	r.Report(inMemory.said)

	if !onDisk.set && !inMemory.set {
		return problem.New(problem.StateUnusable, "NOT halted: %s; %s", onDisk.said, inMemory.said).
			WithHint("check --state, and that this is its owner (sudo); else stop the scheduler, or set %s where it starts runbook", EnvHalt)
	}
	// The history is for people: it may fail, and it is written while the gate is taken.
	noted := begin(func() result {
		if err := s.note(HaltEvent{What: "halt", At: info.At, By: info.By, Reason: info.Reason, Until: info.Until}); err != nil {
			return result{said: "not noted in halts.log: " + err.Error()}
		}
		return result{}
	})
	confirmed, why := s.confirm(ctx, line, onDisk.set, inMemory.set, r.Report)
	if n := noted.wait(limit); n.said != "" {
		r.Report(n.said)
	}
	if !onDisk.set {
		// A disk that is only slow may have answered meanwhile.
		if late := state.wait(limit); late.set {
			onDisk = late
			r.Report(late.said)
		}
	}
	switch {
	case !confirmed:
		return problem.New(problem.HaltUnsure, "the stop is set, NOT confirmed: %s", why).
			WithHint("see what is in flight with: runbook status; end it with: runbook halt --kill").WithDetail(onDisk.said, inMemory.said)
	case !onDisk.durable:
		return problem.New(problem.HaltUnsure, "stopped now, but a restart of this machine may lift it: %s", onDisk.said).
			WithHint("set it again once the disk answers, and stop the scheduler until then").WithDetail(inMemory.said)
	}
	return nil
}

// result is how far one copy of HALT came.
type result struct {
	set     bool // it halts
	durable bool // and survives a crash
	said    string
}

// task is something that may never come back, because a disk hangs.
type task <-chan result

func begin(f func() result) task {
	done := make(chan result, 1)
	go func() { done <- f() }()
	return done
}

// wait waits no longer than limit. A task that has not come back by then may still do what it was to do.
func (t task) wait(limit time.Duration) result {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-t:
		return r
	case <-timer.C:
	}
	select {
	case r := <-t:
		return r
	default:
		return result{said: "a disk did not answer within " + span(limit)}
	}
}

// setState makes HALT in the state directory or, if that is not possible, takes RUN away.
func (s State) setState(line []byte) result {
	if err := s.looksLikeState(); err != nil {
		return result{said: err.Error()}
	}
	path := s.path("HALT")
	err := s.disk().Append(path, line)
	if err == nil {
		adoptFrom(s.Dir, path)
		return result{set: true, durable: true, said: path + " is written"}
	}
	said := fmt.Sprintf("%s could not be written (%v)", path, plain(err))
	if _, exists := os.Lstat(path); exists == nil && !errors.Is(err, errNotSynced) {
		// Whatever it is, a directory, a pipe, an empty file on a full disk, it halts, and nothing lifts it but a person.
		return result{set: true, durable: syncDir(s.Dir) == nil, said: said + ", but it exists and halts"}
	}
	switch gone := s.disk().Remove(s.path("RUN")); {
	case gone == nil:
		return result{set: true, durable: syncDir(s.Dir) == nil, said: said + ", so RUN was taken away: that halts"}
	case errors.Is(gone, fs.ErrNotExist):
		return result{set: true, durable: true, said: said + ", but RUN is not there: that halts"}
	default:
		_, exists := os.Lstat(path)
		return result{set: exists == nil, said: fmt.Sprintf("%s, and RUN could not be taken away (%v)", said, plain(gone))}
	}
}

// looksLikeState keeps a mistyped --state from looking like a stop.
func (s State) looksLikeState() error {
	if s.Namespace != "" {
		_, err := os.Stat(s.Dir)
		return err
	}
	for _, name := range []string{"ID", "RUN"} {
		if _, err := os.Lstat(s.path(name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not a state directory", s.Dir)
}

// setMemory must not look at the state directory unless it has to: its disk may hang.
func (s State) setMemory(line []byte) result {
	if s.GateDir == "" {
		return result{said: "no memory copy: the gate directory is not known"}
	}
	path := s.memoryHalt()
	err := s.disk().Append(path, line)
	if errors.Is(err, fs.ErrNotExist) {
		// A reboot took the directory.
		if err = s.gateReady(); err == nil {
			err = s.disk().Append(path, line)
		}
	}
	if err == nil {
		adoptFrom(s.GateDir, path)
		return result{set: true, said: path + " is written"}
	}
	_, exists := os.Lstat(path)
	return result{set: exists == nil, said: fmt.Sprintf("%s could not be written (%v)", path, plain(err))}
}

// part is one of the two lock files of the gate, with the copy of HALT that lies beside it.
type part struct {
	gate   string
	lifted func() bool // our copy is gone
	again  func() result
}

// answer is what taking a part of the gate said.
type answer struct {
	gate  string
	proof bool // no run is between its check and its action
	err   error
}

// confirm waits until no run is between its check and its action. Every run holds both parts of the gate, so either proves it.
func (s State) confirm(ctx context.Context, line []byte, onDisk, inMemory bool, report func(string)) (ok bool, why string) {
	gone := func(path string) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	parts := []part{{
		gate:   s.stateGate(),
		lifted: func() bool { return onDisk && gone(s.path("HALT")) && s.sentinel() == "" },
		again:  func() result { return s.setState(line) },
	}}
	if s.GateDir != "" {
		parts = append(parts, part{
			gate:   s.memoryGate(),
			lifted: func() bool { return inMemory && gone(s.memoryHalt()) },
			again:  func() result { return s.setMemory(line) },
		})
	}
	answers := make(chan answer, len(parts))
	for _, p := range parts {
		go func() { answers <- s.take(ctx, p) }()
	}
	timer := time.NewTimer(s.patience(gateTimeout) + s.patience(writeTimeout))
	defer timer.Stop()
	var reasons []string
	for range parts {
		select {
		case a := <-answers:
			switch {
			case errors.Is(a.err, errHeld):
				return false, s.whoHolds()
			case a.err != nil:
				reasons = append(reasons, fmt.Sprintf("the gate %s cannot be taken (%v)", a.gate, plain(a.err)))
			case a.proof:
				ok = true
			default:
				reasons = append(reasons, fmt.Sprintf("the gate %s was not there", a.gate))
			}
			continue
		case <-timer.C:
			reasons = append(reasons, "a part of the gate did not answer")
		}
		break
	}
	for _, line := range reasons {
		report(line)
	}
	if ok {
		report("no action is beginning")
	}
	return ok, strings.Join(reasons, "; ")
}

// take takes one part of the gate and lets go of it.
func (s State) take(ctx context.Context, p part) answer {
	l, err := s.lock(ctx, p.gate, true, gateTimeout)
	if err != nil {
		return answer{gate: p.gate, err: err}
	}
	defer l.release()
	// A resume that was under way has lifted us with the rest, unseen. It is over, as it holds the gate: set the stop again.
	if p.lifted() {
		if r := p.again(); !r.set {
			return answer{gate: p.gate, err: errors.New("a resume lifted this halt, and " + r.said)}
		}
	}
	return answer{gate: p.gate, proof: !l.fresh}
}

func (s State) whoHolds() string {
	var pids []string
	for _, h := range s.Holders() {
		pids = append(pids, fmt.Sprint(h.PID))
	}
	if pids == nil {
		return "an action is beginning right now, by a process that left no note"
	}
	return "an action is beginning right now, by process " + strings.Join(pids, ", ")
}

// Resume lifts every halt but the environment's, which it names. It must not cross an action that is beginning or another halt, so it holds
// the gate meanwhile.
func (s State) Resume(ctx context.Context, reason, by string) error {
	if by == "" {
		by = Who()
	}
	switch {
	case strings.TrimSpace(reason) == "":
		return problem.New(problem.Usage, "resume needs a reason").WithHint(`runbook resume --reason "why it is safe again"`)
	case s.Dir == "" || s.Namespace == "" || s.GateDir == "":
		return problem.New(problem.StateUnusable, "still halted: the state directory is not readable").WithHint("runbook doctor")
	}
	still := func(err error) error {
		if errors.Is(err, errHeld) {
			return problem.New(problem.Halted, "still halted: the gate is held: %s", s.whoHolds()).WithHint("try again")
		}
		return problem.Wrap(problem.StateUnusable, plain(err), "still halted").WithHint("runbook doctor")
	}
	if err := s.gateReady(); err != nil {
		return still(err)
	}
	memory, err := s.lock(ctx, s.memoryGate(), true, gateTimeout)
	if err != nil {
		return still(err)
	}
	defer memory.release()
	state, err := s.lock(ctx, s.stateGate(), true, gateTimeout)
	if err != nil {
		return still(err)
	}
	defer state.release()

	if err := s.note(HaltEvent{What: "resume", At: s.now().UTC().Round(0), By: by, Reason: printable(reason)}); err != nil {
		return still(err)
	}
	if s.sentinel() != "" {
		if err := writeSynced(s.path("RUN"), []byte(s.Namespace+"\n")); err != nil {
			return still(err)
		}
		adoptFrom(s.Dir, s.path("RUN"))
	}
	// HALT in the state directory goes last: whatever cuts this short leaves a halt.
	for _, path := range []string{s.memoryHalt(), s.path("HALT")} {
		if err := s.disk().Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return still(err)
		}
	}
	if err := syncDir(s.Dir); err != nil {
		return problem.Wrap(problem.StateUnusable, plain(err), "resumed, but a crash of this machine may bring the halt back").WithHint("runbook status")
	}
	if set := s.Check(s.lookupEnv); len(set) > 0 {
		return Halted(set)
	}
	return nil
}

// adoptFrom gives a file that root made to the owner of the directory. Failing that is no reason to stop a stop.
func adoptFrom(dir, path string) {
	if info, err := os.Stat(dir); err == nil {
		_ = adopt(path, info)
	}
}

// plain is an error without the operation and path, which the message has already.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && !errors.Is(err, errNotSynced) {
		return p.Err
	}
	return err
}

// files is how a halt writes, so that tests can let a disk be full, or hang.
type files interface {
	Append(path string, line []byte) error
	Remove(path string) error
}

// errNotSynced means that the file exists, and that a crash may take it away.
var errNotSynced = errors.New("not synced")

type osFiles struct{}

func (osFiles) Remove(path string) error { return os.Remove(path) }

// Append adds a line and syncs it. After something that is not a line, such as the nothing of a HALT that was touched by hand, it begins
// a new one, so that that keeps its own meaning.
func (osFiles) Append(path string, line []byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|noFollow, 0)
		if err == nil {
			line, err = afterLine(f, line)
		}
	}
	if err != nil {
		if f != nil {
			_ = f.Close()
		}
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return errors.Join(errNotSynced, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return errors.Join(errNotSynced, err)
	}
	return nil
}

func afterLine(f *os.File, line []byte) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	if size := info.Size(); size > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if last[0] == '\n' {
			return line, nil
		}
	}
	return append([]byte("\n"), line...), nil
}
