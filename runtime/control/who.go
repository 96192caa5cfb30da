package control

import (
	"os"
	"os/user"
	"strconv"
)

// Who is who acts, for the record: "ann@db1(pts/1)", behind sudo "root@db1(pts/1, ann)", from cron "runbook@db1(no terminal)". It is not
// an authentication.
func Who() string {
	name := strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	where := terminal()
	if where == "" {
		where = "no terminal"
	}
	if login := loginUID(); login >= 0 && login != os.Geteuid() {
		who := strconv.Itoa(login)
		if u, err := user.LookupId(who); err == nil {
			who = u.Username
		}
		where += ", " + who
	}
	return name + "@" + host + "(" + where + ")"
}
