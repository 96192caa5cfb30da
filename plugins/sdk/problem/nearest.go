package problem

import (
	"slices"
	"strings"
)

// Nearest returns the name that was most likely meant, or "" if none is close: at most one letter and a
// third of the others are wrong, swapped neighbours count as one, upper and lower case as the same. It
// looks at all names; of several that are equally near it takes the first in alphabetical order.
func Nearest(name string, names []string) string {
	if len(name) > maxName {
		return ""
	}
	best, bestDist := "", len([]rune(name))/3+2
	sorted := slices.Sorted(slices.Values(names))
	for _, n := range sorted {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < bestDist && d < len(n) {
			best, bestDist = n, d
		}
	}
	return best
}

// maxName bounds the work that a name from an untrusted place can cause.
const maxName = 100

// DidYouMean is ` (did you mean "x"?)`, or "" if nothing is near.
func DidYouMean(name string, names []string) string {
	if n := Nearest(name, names); n != "" {
		return ` (did you mean "` + n + `"?)`
	}
	return ""
}

// distance is the optimal string alignment distance of two words.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
