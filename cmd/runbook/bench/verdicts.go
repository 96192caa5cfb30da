package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

var numbers = regexp.MustCompile(`\b\d+\b`)

// verdicts gives unit test files of rules, and so many copies of each in which one number is another, to promtool and to `runbook test`, and fails where one of them accepts what
// the other does not. The copies lie beside their file, so that it finds its rules, and are removed.
func verdicts(ctx context.Context, exe, promtool string, copies int, files []string) error {
	promtool, err := exec.LookPath(promtool)
	if err != nil {
		return err
	}
	if promtool, err = filepath.Abs(promtool); err != nil { // it is run elsewhere
		return err
	}
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	all, rejected, differ := 0, 0, 0
	judge := func(file, what string) error {
		var accepted [2]bool
		var said [2][]byte
		for i, argv := range [][]string{{promtool, "test", "rules"}, {exe, "test"}} {
			cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], filepath.Base(file))...)
			cmd.Dir = filepath.Dir(file)
			out, err := cmd.CombinedOutput()
			if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
				return err
			}
			accepted[i], said[i] = err == nil, out
		}
		all++
		if !accepted[0] {
			rejected++
		}
		if accepted[0] != accepted[1] {
			differ++
			fmt.Printf("%s: promtool accepts it: %v, runbook test: %v\n%s\n%s\n", what, accepted[0], accepted[1], said[0], said[1])
		}
		return ctx.Err()
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := judge(file, file); err != nil {
			return err
		}
		places := numbers.FindAllIndex(text, -1)
		for range min(copies, len(places)) {
			at := places[rnd.IntN(len(places))]
			edited := fmt.Appendf(nil, "%s%d%s", text[:at[0]], rnd.IntN(20), text[at[1]:])
			if err := judgeCopy(file, edited, func(name string) error {
				return judge(name, fmt.Sprintf("%s with another number at byte %d", file, at[0]))
			}); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "\r%d judged", all)
	}
	fmt.Fprintln(os.Stderr)
	fmt.Printf("%d files, %d of them copies with another number; promtool rejects %d; the verdicts differ for %d\n", all, all-len(files), rejected, differ)
	if differ > 0 {
		return fmt.Errorf("%d of %d verdicts differ", differ, all)
	}
	return nil
}

// judgeCopy has a copy of the file beside it for as long as fn runs.
func judgeCopy(file string, text []byte, fn func(name string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "edited-*.yml")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return fn(f.Name())
}
