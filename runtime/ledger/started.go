package ledger

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// The attempts of the last day are kept as text, one to a line: "ID TRUSTED WALL", in nanoseconds and in milliseconds since 1970. Every decision reads
// all of them, and to read them as JSON was most of what a decision cost.

// ReadStarted reads them; KeyStarted is read.
func ReadStarted(tx store.ReadTx) ([]Started, error) {
	b, err := tx.Get(KeyStarted)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	if b[0] == '[' || string(b) == "null" { // the list of objects that it was before
		return Read[[]Started](tx, KeyStarted)
	}
	text := string(b) // one copy, of which the ids are parts
	out := make([]Started, 0, strings.Count(text, "\n"))
	for len(text) > 0 {
		line, rest, _ := strings.Cut(text, "\n")
		id, numbers, _ := strings.Cut(line, " ")
		first, second, _ := strings.Cut(numbers, " ")
		trusted, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return nil, badStarted(err)
		}
		wall, err := strconv.ParseInt(second, 10, 64)
		if err != nil {
			return nil, badStarted(err)
		}
		out = append(out, Started{Attempt: id, At: action.Clock{Wall: time.UnixMilli(wall).UTC(), Trusted: time.Duration(trusted)}})
		text = rest
	}
	return out, nil
}

func badStarted(err error) error {
	return problem.Wrap(problem.StoreDamaged, err, "record %s cannot be read", KeyStarted).
		WithHint("run `runbook status`; the record was written by another version or is damaged")
}

func writeStarted(tx store.Tx, all []Started) error {
	var b bytes.Buffer
	for _, d := range all {
		if d.Attempt == "" || strings.ContainsAny(d.Attempt, " \n") {
			return problem.New(problem.Internal, "attempt %q cannot be booked", d.Attempt)
		}
		fmt.Fprintf(&b, "%s %d %d\n", d.Attempt, int64(d.At.Trusted), d.At.Wall.UnixMilli())
	}
	tx.Put(KeyStarted, b.Bytes())
	return nil
}
