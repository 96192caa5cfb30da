package sdk_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Whatever differs between two manifests differs in their digests.
func TestDigest(t *testing.T) {
	t.Parallel()
	param := func() sdk.Param { return sdk.Param{Name: "p", Type: "any", Default: value.Int(12)} }
	of := func() *sdk.Manifest {
		return &sdk.Manifest{Name: "m", Config: []sdk.Param{param()}, Functions: []sdk.Function{{Name: "f", Params: []sdk.Param{param(), param()}, Capabilities: []string{"net"}}}}
	}
	seen := map[string]string{of().Digest(): "nothing"}
	differs := func(m *sdk.Manifest, what string) {
		d := m.Digest()
		if other, twice := seen[d]; twice || d == "" {
			t.Errorf("%s and %s have the digest %q", what, other, d)
		}
		seen[d] = what
	}
	// change sets one field after the other in the n-th struct of a kind to something else.
	change := func(what string, in func(*sdk.Manifest) any) {
		for i := range reflect.TypeOf(in(of())).Elem().NumField() {
			m := of()
			v := reflect.ValueOf(in(m)).Elem()
			switch f := v.Field(i); f.Kind() {
			case reflect.String:
				f.SetString(f.String() + "x")
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Int, reflect.Int64:
				f.SetInt(7)
			case reflect.Slice:
				f.Set(reflect.AppendSlice(f, f))
			case reflect.Interface:
				f.Set(reflect.ValueOf(value.Float(12)))
			default:
				t.Fatalf("%s: %s", f.Kind(), v.Type().Field(i).Name)
			}
			differs(m, what+v.Type().Field(i).Name)
		}
	}
	change("", func(m *sdk.Manifest) any { return m })
	change("function.", func(m *sdk.Manifest) any { return &m.Functions[0] })
	change("setting.", func(m *sdk.Manifest) any { return &m.Config[0] })
	change("first.", func(m *sdk.Manifest) any { return &m.Functions[0].Params[0] })
	change("second.", func(m *sdk.Manifest) any { return &m.Functions[0].Params[1] })
	null := of()
	null.Config[0].Default = value.Null{}
	differs(null, "no value")
	null.Config[0].Default = nil
	differs(null, "no default")
}

// A plugin tells with its configuration what its locked manifest sums up to, so that nobody has to ask for that again.
func TestDigestIsTold(t *testing.T) {
	t.Parallel()
	p := echo()
	sdk.QueryFunc(p, "none", "Without arguments.", func(context.Context, struct{}) (string, error) { return "", nil })
	s := sdk.NewServer(t.Context(), p)
	d, err := s.Describe(t.Context(), &pluginpb.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	locked, err := sdk.DecodeManifest(d.GetManifest())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Configure(t.Context(), &pluginpb.ConfigureRequest{})
	if err != nil || c.GetManifestDigest() == "" || c.GetManifestDigest() != locked.Digest() {
		t.Errorf("%v, it tells %q; the manifest in a lock has %q", err, c.GetManifestDigest(), locked.Digest())
	}
}
