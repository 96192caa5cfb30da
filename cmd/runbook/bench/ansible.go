package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// plays are the plays of Ansible that the runs are compared with: one with a single task, which does nothing, and for each run one that does the
// same, with no effect either. There are none where there is no Ansible.
func plays(root, metrics string, idle, acting *contestant) ([]*contestant, error) {
	exe, err := exec.LookPath("ansible-playbook")
	if err != nil {
		return nil, nil //nolint:nilerr // the report says that it is missing
	}
	var fleets []string
	for i := range runbooks {
		fleets = append(fleets, fleetName(i))
	}
	dir := filepath.Join(root, "ansible")
	err = write(dir, map[string]string{
		"bare.yml":   playbook("    - command: /bin/true\n"),
		"idle.yml":   playbook(asks(metrics, fleets...)),
		"acting.yml": playbook(asks(metrics, "sick")),
	})
	play := func(file, name, said string) *contestant {
		return &contestant{
			name: "`ansible-playbook`, " + name, argv: []string{exe, "-i", "localhost,", filepath.Join(dir, file)}, env: append(os.Environ(), "LC_ALL=C.UTF-8"),
			check: func(stdout []byte) error {
				if !strings.Contains(string(stdout), said) || !strings.Contains(string(stdout), "failed=0 ") {
					return errors.New("the tasks were not carried out")
				}
				return nil
			},
		}
	}
	bare := play("bare.yml", "one task (`command: /bin/true`)", "ok=1 ")
	idle.like = play("idle.yml", fmt.Sprintf("asks about %d fleets, nothing sick", runbooks), "ok=1 ")
	acting.like = play("acting.yml", "asks about one fleet, one action (`command: /bin/true`)", "ok=2 ")
	idle.bare, acting.bare = bare, bare
	return []*contestant{bare, idle.like, acting.like}, err
}

func playbook(tasks string) string {
	return "- hosts: localhost\n  connection: local\n  gather_facts: no\n  tasks:\n" + tasks
}

// asks are the tasks that ask the metric server for the targets of each fleet that have been sick for five minutes, one question a fleet, and act on each. A
// run asks two more: who belongs to the fleet, and how old is what is known of them.
func asks(metrics string, fleets ...string) string {
	var questions strings.Builder
	for _, f := range fleets {
		fmt.Fprintf(&questions, "        - 'min_over_time(queue_depth{job=%q}[5m]) > 100'\n", f)
	}
	return fmt.Sprintf(`    - uri:
        url: "%s/api/v1/query?query={{ item | urlencode }}"
      loop:
%s      register: asked
    - command: /bin/true
      loop: "{{ asked.results | map(attribute='json.data.result') | flatten }}"
`, metrics, &questions)
}
