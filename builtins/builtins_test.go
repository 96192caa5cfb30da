package builtins_test

import (
	"testing"

	"github.com/seed1de3961f/runbook/builtins"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	kittest.Contract(t, builtins.All())
}
