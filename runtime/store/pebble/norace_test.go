//go:build !race

package pebble

// raced says that the race detector is on, under which everything takes ten times as long.
const raced = false
