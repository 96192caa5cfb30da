package redis

import (
	"strconv"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// parseInfo reads the text of INFO: a name and a value each line, and titles.
func parseInfo(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		name, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if ok && name != "" && name[0] != '#' {
			out[name] = v
		}
	}
	return out
}

// number is a value of INFO as what it is.
func number(s string) value.Value {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return value.Int(n)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return value.Float(f)
	}
	return value.String(strings.ToValidUTF8(s, "\uFFFD"))
}

// parseClient reads a line of CLIENT LIST. A client cannot give itself a name with a space in it.
func parseClient(line string) map[string]string {
	out := map[string]string{}
	for field := range strings.FieldsSeq(line) {
		name, v, _ := strings.Cut(field, "=")
		out[name] = v
	}
	return out
}

// amount is a value of a parameter as a number of bytes, the way Redis reads one in its settings (memtoull): 1k is 1000, 1kb is 1024. Another is itself.
func amount(s string) string {
	lower := strings.ToLower(s)
	digits := strings.TrimRight(lower, "bkmg")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return s
	}
	factor, ok := map[string]uint64{"": 1, "b": 1, "k": 1e3, "kb": 1 << 10, "m": 1e6, "mb": 1 << 20, "g": 1e9, "gb": 1 << 30}[lower[len(digits):]]
	if !ok {
		return s
	}
	return strconv.FormatUint(n*factor, 10)
}
