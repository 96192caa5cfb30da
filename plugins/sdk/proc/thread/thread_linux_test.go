package thread

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// slack is how late the timers of a process may be that a thread starts, as the process itself sees it.
func slack(t *testing.T, prepare func()) string {
	t.Helper()
	var out []byte
	if _, err := Start(func() (int, error) {
		prepare()
		cmd := exec.Command("/bin/cat", "/proc/self/timerslack_ns")
		var err error
		out, err = cmd.Output()
		return cmd.ProcessState.Pid(), err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// What is set on a thread reaches what it starts, and is taken back for what must be exact.
func TestPatient(t *testing.T) {
	if got := slack(t, func() { Patient(true) }); got != "1000000" {
		t.Errorf("patient: %s ns", got)
	}
	if got := slack(t, func() { Patient(true); Patient(false) }); got != "50000" {
		t.Errorf("patient no more: %s ns", got)
	}
}

// The thread that looks after the others becomes patient and no other, nor what the process starts; where the kernel does not allow it nothing happens.
func TestPatientMonitor(t *testing.T) {
	const child = "RUNBOOK_TEST_PATIENT_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestPatientMonitor$", "-test.v")
		cmd.Env = []string{child + "=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	PatientMonitor()
	if got := slack(t, func() {}); got != "50000" {
		t.Errorf("a process that is started: %s ns", got)
	}
	if os.Geteuid() != 0 {
		return
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	patient := 0
	for _, th := range threads {
		text, err := os.ReadFile("/proc/" + th.Name() + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(text)) == "1000000" {
			patient++
		}
	}
	if patient != 1 {
		t.Errorf("%d of %d threads are patient", patient, len(threads))
	}
}
