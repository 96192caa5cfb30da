package cli

import (
	"context"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// stateDir is the state directory: the one that was named, or the one that project.star says.
func (c *call) stateDir(_ context.Context) (string, error) {
	dir, err := c.givenState()
	if err != nil || dir != "" {
		return dir, err
	}
	return "", problem.New(problem.Usage, "%s needs --state DIR", c.Command.HelpName).WithHint("or set %s", envState)
}
