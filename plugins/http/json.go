package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// fromJSON reads a JSON text of the world, which may have any keys; Null if it is none. The keys of an object come sorted.
func fromJSON(text []byte) value.Value {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var x any
	if d.Decode(&x) != nil {
		return value.Null{}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return value.Null{}
	}
	v, err := from(x, 0)
	if err != nil {
		return value.Null{}
	}
	return v
}

func from(x any, depth int) (value.Value, error) {
	if depth >= value.MaxDepth {
		return nil, errors.New("nested too deeply")
	}
	switch x := x.(type) {
	case bool:
		return value.Bool(x), nil
	case string:
		return value.String(x), nil
	case json.Number:
		if n, err := strconv.ParseInt(string(x), 10, 64); err == nil {
			return value.Int(n), nil
		}
		f, err := x.Float64()
		return value.Float(f), err
	case []any:
		l := make(value.List, len(x))
		for i, e := range x {
			v, err := from(e, depth+1)
			if err != nil {
				return nil, err
			}
			l[i] = v
		}
		return l, nil
	case map[string]any:
		d := make(value.Dict, 0, len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			v, err := from(x[k], depth+1)
			if err != nil {
				return nil, err
			}
			d = append(d, value.Entry{Key: value.String(k), Value: v})
		}
		return d, nil
	}
	return value.Null{}, nil
}

// plain is a value as encoding/json writes it. What JSON does not have is refused, not guessed.
func plain(v value.Value) (any, error) {
	switch v := v.(type) {
	case nil, value.Null:
		return nil, nil //nolint:nilnil // null
	case value.Bool:
		return bool(v), nil
	case value.Int:
		return int64(v), nil
	case value.Big:
		return json.Number(v), nil
	case value.Float:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("JSON has no %v", float64(v))
		}
		return float64(v), nil
	case value.String:
		return string(v), nil
	case value.List:
		l := make([]any, len(v))
		for i, e := range v {
			x, err := plain(e)
			if err != nil {
				return nil, err
			}
			l[i] = x
		}
		return l, nil
	case value.Dict:
		d := make(map[string]any, len(v))
		for _, e := range v {
			k, ok := e.Key.(value.String)
			if !ok {
				return nil, errors.New("the keys of an object must be text")
			}
			x, err := plain(e.Value)
			if err != nil {
				return nil, err
			}
			d[string(k)] = x
		}
		return d, nil
	}
	return nil, fmt.Errorf("JSON has no %s: write it as text", v.Kind())
}
