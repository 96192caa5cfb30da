package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report writes the table in Markdown, so that it can be published as it is.
func report(w io.Writer, all []*contestant, machine string) {
	null, compared := all[0], false
	fmt.Fprintf(w, "%s\n\n", machine)
	fmt.Fprintf(w, "| command | median | fastest 10%% | slowest 10%% | CPU | times /bin/true | the same in Ansible takes | one bare task takes |\n|---|---|---|---|---|---|---|---|\n")
	for _, c := range all {
		against := "- | -"
		if c.like != nil {
			compared = true
			against = fmt.Sprintf("**%.0f times as long** | %.1f times", ratio(c.like, c), ratio(c.bare, c))
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %.0f | %s |\n", c.name, ms(at(c.took, 50)), ms(at(c.took, 10)), ms(at(c.took, 90)), ms(at(c.cpu, 50)),
			ratio(c, null), against)
	}
	fmt.Fprintf(w, "\n%d interleaved runs of each; CPU is the median of user and system time, children included.\n", len(null.took))
	if !compared {
		fmt.Fprintln(w, "ansible-playbook is not installed here (Debian: ansible-core), so there is no ratio.")
	}
}

// ratio is how many times as long a takes as b.
func ratio(a, b *contestant) float64 { return float64(at(a.took, 50)) / float64(at(b.took, 50)) }

// at is a percentile.
func at(d []time.Duration, percent int) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[(len(s)-1)*percent/100]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

// machine says where this was measured. What cannot be read is left out.
func machine(dir string) string {
	parts := []string{fmt.Sprintf("%d CPUs", runtime.NumCPU())}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				parts[0] += " (" + strings.Trim(name, "\t :\n") + ")"
				break
			}
		}
	}
	parts = append(parts, runtime.GOOS+"/"+runtime.GOARCH)
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "kernel "+strings.TrimSpace(string(b)))
	}
	if fs := filesystem(dir); fs != "" {
		parts = append(parts, "store on "+fs)
	}
	return strings.Join(append(parts, runtime.Version()), ", ")
}

// filesystem is the type of the file system that a directory is on: the longest mount point above it.
func filesystem(dir string) string {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	best, kind := "", ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			best, kind = f[1], f[2]
		}
	}
	return kind
}
