package ledger_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/memory"
)

var update = flag.Bool("update", false, "write the golden files anew: only for fields that are new")

// records are the types of what is kept as a small document; those of steps, attempts and traces have goldens where they are defined.
func records() []any {
	return []any{
		&ledger.Approvals{}, &ledger.Controls{}, &ledger.ControlEvent{}, &ledger.Change{}, &map[string]ledger.Change{}, &ledger.Analysis{}, &ledger.Source{},
		&[]ledger.Open{}, &[]ledger.Doubt{}, &ledger.Cool{}, &[]ledger.Cooling{}, &ledger.Last{}, &map[string]ledger.Episode{}, &ledger.Kept{},
		&guard.Approval{}, &breaker.Doc{}, &clock.Saved{}, &notify.Record{}, new(int64), &map[string]value.JSON{},
	}
}

// fill gives every field a value, so that none can be forgotten or change its name or form unseen.
func fill(v reflect.Value, depth int) {
	if depth > 8 {
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 3, 1, 10, 20, 30, 4000, time.UTC)
		return
	case *value.JSON:
		x.Value = value.Dict{{Key: value.String("k"), Value: value.List{value.Int(1), value.Float(1.5), value.Duration(time.Minute)}}}
		return
	case *value.Dict:
		*x = value.Dict{{Key: value.String("k"), Value: value.String("v")}}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(7)
	case reflect.Uint64, reflect.Uint32, reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.String:
		v.SetString("s")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(val, depth+1)
		v.SetMapIndex(key, val)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	}
}

func nameOf(rec any) string {
	return strings.NewReplacer("*", "", "[]", "list of ", "map[string]", "map of ").Replace(fmt.Sprintf("%T", rec))
}

// The bytes of version 1 of every record: whatever a later version writes, it reads these, and what they said is still there.
func TestGoldenRecords(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "records.v1.golden")
	var now bytes.Buffer
	for _, rec := range records() {
		fill(reflect.ValueOf(rec).Elem(), 0)
		b, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&now, "%s %s\n", strings.ReplaceAll(nameOf(rec), " ", "_"), b)
		again := reflect.New(reflect.TypeOf(rec).Elem())
		if err := json.Unmarshal(b, again.Interface()); err != nil {
			t.Fatalf("%T: %v", rec, err)
		}
		if d := cmp.Diff(rec, again.Interface(), cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
			t.Errorf("%T is not what was written:\n%s", rec, d)
		}
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, now.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), now.String()); d != "" {
		t.Errorf("what is written has changed; old records must stay readable (go test ./runtime/ledger -run TestGoldenRecords -update once they are):\n%s", d)
	}
}

// FuzzRecords reads any bytes as any record: what cannot be read is an error that says which record, never a panic and never a zero value taken for
// one; what can be read is the same once it was written again.
func FuzzRecords(f *testing.F) {
	for i, rec := range records() {
		fill(reflect.ValueOf(rec).Elem(), 0)
		b, err := json.Marshal(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Add(uint8(0), []byte(`{"v":1`))
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		all := records()
		rec := all[int(kind)%len(all)]
		st := memory.New()
		read := func(into any) error {
			return st.View(t.Context(), []string{"k"}, func(tx store.ReadTx) error {
				raw, err := ledger.Read[json.RawMessage](tx, "k")
				if err != nil {
					return err
				}
				return json.Unmarshal(raw, into)
			})
		}
		write := func(b []byte) {
			if err := st.Update(t.Context(), nil, func(tx store.Tx) error { tx.Put("k", b); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		write(text)
		if err := read(rec); err != nil {
			return
		}
		first, err := json.Marshal(rec)
		if err != nil {
			return // such as a value that has no JSON form
		}
		write(first)
		again := reflect.New(reflect.TypeOf(rec).Elem()).Interface()
		if err := read(again); err != nil {
			t.Fatalf("%T: %s was written and cannot be read: %v", rec, first, err)
		}
		second, err := json.Marshal(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%T: %s became %s, %v", rec, first, second, err)
		}
	})
}
