package engine

import (
	"testing"

	"pgregory.net/rapid"
)

// Two series have one key exactly if all labels but the name of the metric are the same, where one that is empty is none.
func TestLabelKey(t *testing.T) {
	t.Parallel()
	same := func(a, b map[string]string) bool {
		for k := range a {
			if k != "__name__" && a[k] != b[k] {
				return false
			}
		}
		return true
	}
	labels := rapid.MapOfN(rapid.SampledFrom([]string{"__name__", "a", "b", "ab"}), rapid.SampledFrom([]string{"", "x", "b", "xb"}), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		a, b := labels.Draw(t, "a"), labels.Draw(t, "b")
		if is, should := labelKey(a) == labelKey(b), same(a, b) && same(b, a); is != should {
			t.Fatalf("%v and %v have the same key: %t, want %t", a, b, is, should)
		}
	})
}
