package promexpr

import (
	"strings"
	"testing"
	"time"
)

// The longest expressions that are read at all do not stall the engine: a worker can send them.
func TestLongExpressions(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"parentheses": strings.Repeat("(", maxLength/2-1) + "a" + strings.Repeat(")", maxLength/2-1),
		"minus":       strings.Repeat("-", maxLength-1) + "a",
		"sum":         strings.Repeat("a+", maxLength/2-1) + "a",
		"power":       strings.Repeat("1^", maxLength/2-1) + "1",
		"parameters":  strings.Repeat("$limit+", maxLength/7-1) + "a",
		"calls":       strings.Repeat("abs(", maxLength/5-1) + "a" + strings.Repeat(")", maxLength/5-1),
		"labels":      "a{" + strings.Repeat(`b="",`, maxLength/5-2) + "}",
		"dollars":     strings.Repeat("$", maxLength),
		"subqueries":  "a" + strings.Repeat("[1m:1m]", maxLength/7-1),
	} {
		start := time.Now()
		e, err := Parse(text, params)
		if err == nil {
			_ = e.String()
			_, _ = e.WithMatchers(map[string]string{"x": "y"})
			e.Timestamps()
			_, _ = e.Symptom()
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}
