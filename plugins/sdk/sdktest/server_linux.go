package sdktest

import (
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// readyWithin is how long a real server may take until it answers.
const readyWithin = 30 * time.Second

// Server starts the real server of a plugin and waits until ready returns nil. It is killed with its group when the test ends.
func Server(t testing.TB, ready func() error, argv ...string) {
	t.Helper()
	log := &Output{}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it is killed with its group
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: .ci/run installs what the tests need", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", argv[0], log)
		}
	})
	patience, err := time.After(readyWithin), error(nil)
	for look := time.Tick(20 * time.Millisecond); ; {
		if err = ready(); err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended", argv[0])
		case <-patience:
			t.Fatalf("%s is not ready after %s: %v", argv[0], readyWithin, err)
		case <-look:
		}
	}
}

// FreePort is a port of 127.0.0.1 on which nobody listens.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return port
}

// Listens is for Server: somebody listens there.
func Listens(network, address string) func() error {
	return func() error {
		c, err := net.Dial(network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
