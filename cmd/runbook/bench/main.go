// Command bench measures whole processes from outside, as cron sees them: `runbook run` against /bin/true and against
// ansible-playbook, on the same machine, interleaved, in one go.
//
// It is fair to the others where it can be: ansible-playbook runs its plays on localhost without gathering facts, and asks a third of what
// runbook asks of a metric server that runs on the same processors, in this process; a play with one task that does nothing is measured too. Every
// timed run is checked: a run that did not ask, evaluate and act as it should fails the benchmark.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		binary  = flag.String("runbook", "bin/runbook", "the binary to measure")
		rounds  = flag.Int("rounds", 30, "timed runs of each command; with -verdicts, edited copies of each file")
		warmup  = flag.Int("warmup", 2, "untimed runs of each command before them")
		dir     = flag.String("dir", "", "where projects and stores are made, on the disk that is to be measured; default: a temporary directory")
		hold    = flag.Bool("hold", false, "measure nothing: make the projects, print the commands and wait, to look at one run with strace or perf")
		asking  = flag.Bool("guards", false, "measure what asking every guard costs instead")
		worker  = flag.Bool("workers", false, "measure the start of a worker against runbook --version instead")
		halting = flag.Bool("halt", false, "measure runbook halt against /bin/true instead")
		hosting = flag.Bool("plugins", false, "measure starting and calling plugins against go-plugin's own example instead")
		peers   = flag.String("promtool", "", "measure runbook test against these promtool binaries, separated by commas, instead")
		judging = flag.Bool("verdicts", false, "compare the verdicts of runbook test and of one -promtool on the unit test files of rules that are named, and on copies of them")
		atLeast = flag.Float64("at-least", 0, "fail if a bare task of ansible-playbook, or the same in Ansible, takes less than this many times a run")
	)
	flag.Parse()
	if (flag.NArg() > 0) != *judging {
		return fmt.Errorf("-verdicts takes the files to judge, and nothing else takes an argument; got %q", flag.Args())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exe, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(*dir, "runbook-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(root) }()
	if *asking {
		return guards(ctx, root, *rounds)
	}
	if *worker {
		return workers(ctx, exe, root, *rounds)
	}
	if *halting {
		return halts(ctx, exe, root, *rounds)
	}
	if *hosting {
		return plugins(ctx, root, *rounds)
	}
	if *judging {
		return verdicts(ctx, exe, *peers, *rounds, flag.Args())
	}
	if *peers != "" {
		return promtool(ctx, exe, root, *rounds, strings.Split(*peers, ","))
	}
	debug.SetGCPercent(400) // of the metric server, which is not what is measured
	m, err := serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer m.close()
	all, err := contestants(ctx, exe, root, m.url)
	if err != nil {
		return err
	}
	if *hold {
		for _, c := range all {
			if c.prepare != nil {
				if err := c.prepare(); err != nil {
					return err
				}
			}
			fmt.Println(strings.Join(c.argv, " "))
		}
		<-ctx.Done()
		return nil
	}
	if err := race(ctx, all, *warmup, *rounds); err != nil {
		return err
	}
	report(os.Stdout, all, machine(root))
	return reached(all, *atLeast)
}

// contestant is one command that is measured.
type contestant struct {
	name    string
	like    *contestant // what does the same in Ansible; nil: nothing is compared
	bare    *contestant // the least that Ansible can do
	argv    []string
	env     []string
	prepare func() error              // before each run, not timed
	check   func(stdout []byte) error // after each run, not timed
	took    []time.Duration
	cpu     []time.Duration // of the process and all children that it waited for
}

// race runs all contestants in turn, round by round, so that whatever else the machine does meets all of them.
func race(ctx context.Context, all []*contestant, warmup, rounds int) error {
	for round := range warmup + rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			took, cpu, err := c.once(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= warmup {
				c.took = append(c.took, took)
				c.cpu = append(c.cpu, cpu)
			}
		}
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round+1, warmup+rounds)
	}
	fmt.Fprintln(os.Stderr)
	return nil
}

func (c *contestant) once(ctx context.Context) (took, cpu time.Duration, err error) {
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return 0, 0, err
		}
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, c.env
	began := time.Now()
	err = cmd.Run()
	took = time.Since(began)
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s%s", err, stdout.String(), stderr.String())
	}
	if c.check != nil {
		if err := c.check(stdout.Bytes()); err != nil {
			return 0, 0, fmt.Errorf("%w\n%s%s", err, stdout.String(), stderr.String())
		}
	}
	return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// reached fails if the wanted ratio was not reached.
func reached(all []*contestant, atLeast float64) error {
	if atLeast <= 0 {
		return nil
	}
	var errs []error
	compared := false
	for _, c := range all {
		if c.like == nil {
			continue
		}
		compared = true
		for _, peer := range []*contestant{c.bare, c.like} {
			if r := ratio(peer, c); r < atLeast {
				errs = append(errs, fmt.Errorf("%s: %s takes %.1f times as long, want %.1f", c.name, peer.name, r, atLeast))
			}
		}
	}
	if !compared {
		return errors.New("ansible-playbook is not installed, so there is no ratio to judge")
	}
	return errors.Join(errs...)
}
