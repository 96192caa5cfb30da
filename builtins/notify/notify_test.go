package notify_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/builtins/notify"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestOwner(t *testing.T) {
	t.Parallel()
	h := &kittest.Host{}
	tell := func(text string) error {
		_, err := kittest.Call(t, notify.Family(), "owner", h, kit.Args{"text": value.String(text)})
		return err
	}
	if err := tell("  the disk fills up\n"); err != nil || !slices.Equal(h.Told, []string{"the disk fills up"}) {
		t.Errorf("%v, told %q", err, h.Told)
	}
	for _, text := range []string{"", " \n", strings.Repeat("x", 2001)} {
		if err := tell(text); err == nil || !strings.Contains(err.Error(), "from 1 to 2000 are told") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	h.Err = errors.New("the store is locked")
	if err := tell("x"); !errors.Is(err, h.Err) {
		t.Errorf("%v", err)
	}
}
