//go:build !race

package sandbox_test

// raced says that the race detector is on: it keeps books of all memory, which count as the worker's, and needs the C library.
const raced = false
