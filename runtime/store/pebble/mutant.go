package pebble

// mutant leaves out one part of what keeps the promise. Only tests of this package can set one: they show that without that part a
// crash is found that loses something.
type mutant string

const (
	noParentSync   mutant = "the directory is not synced before a marker is made"
	unsyncedCommit mutant = "a commit is not synced"
	markFirst      mutant = "the mark is written before the commit"
	unsyncedMark   mutant = "the mark is not synced before the effect"
	fatalReturns   mutant = "a failed sync does not end the process"
	// noCompactions leaves out nothing that the promise needs.
	noCompactions mutant = "files are not compacted"
)
