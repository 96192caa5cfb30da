package project

import (
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// File is the name of the settings file at the root of a project.
const File = "project.star"

// Vocabulary sorts families by what they are: those without a name are written as they are, those that
// only declare stand behind their name, all others are capabilities under ctx. What is said of them to people alone, most of their text, is left
// out, because each worker is told the rest.
func Vocabulary(families []kit.Family) sandbox.Vocabulary {
	var v sandbox.Vocabulary
	for _, f := range families {
		f.Doc, f.Functions = "", undocumented(f.Functions)
		switch {
		case f.Name == "":
			v.Declarations = append(v.Declarations, f.Functions...)
		case len(f.Functions) > 0 && onlyDeclares(f):
			v.Modules = append(v.Modules, f)
		default:
			v.Families = append(v.Families, f)
		}
	}
	return v
}

func undocumented(documented []kit.Function) []kit.Function {
	functions := slices.Clone(documented)
	for i := range functions {
		f := &functions[i]
		f.Doc, f.Params = "", slices.Clone(f.Params)
		for j := range f.Params {
			if p := &f.Params[j]; !p.Required { // else it is the hint where it is missing
				p.Doc = ""
			}
		}
	}
	return functions
}

func onlyDeclares(f kit.Family) bool {
	for _, fn := range f.Functions {
		if fn.Kind != kit.Declare {
			return false
		}
	}
	return true
}

// declaration finds a declaration of a vocabulary by its full name, such as "param.int".
func declaration(v sandbox.Vocabulary) func(name string) (kit.Function, bool) {
	return func(name string) (kit.Function, bool) {
		module, rest, dotted := strings.Cut(name, ".")
		if !dotted {
			return kit.Family{Functions: v.Declarations}.Lookup(name)
		}
		for _, m := range v.Modules {
			if m.Name == module {
				return m.Lookup(rest)
			}
		}
		return kit.Function{}, false
	}
}

// Families is the vocabulary of project.star: the source of its reference page.
func Families() []kit.Family {
	return []kit.Family{
		{Doc: "The settings of a project, in project.star at its root.", Functions: []kit.Function{
			projectFn(), connectionFn(), confineFn(), pluginFn(), policyFn(), rateFn(), weeklyFn(), onceFn(), protectFn(), webhookFn(), slackFn(), pagerdutyFn(), opsgenieFn(), emailFn(), limitsFn(),
		}},
		{Name: "secret", Doc: "Secrets by reference: the value is read when it is needed, and is never written down.", Functions: []kit.Function{
			{
				Name: "env", Kind: kit.Declare, Positional: 1, Doc: "A secret in an environment variable of the engine.",
				Params: []kit.Param{{Name: "name", Type: kit.StringT, Required: true, Doc: "name of the variable; it must be set and not empty"}},
			},
			{
				Name: "file", Kind: kit.Declare, Positional: 1, Doc: "A secret in a file that not everybody may read. One line break at its end is dropped.",
				Params: []kit.Param{{Name: "path", Type: kit.StringT, Required: true, Doc: "path of the file, from the project root if it is not absolute; at most 64 KiB"}},
			},
		}},
	}
}

var secretRecords = []string{"secret.env", "secret.file"}

func projectFn() kit.Function {
	return kit.Function{
		Name: "project", Kind: kit.Declare, Doc: "The settings of the project. project.star has exactly one.",
		Params: []kit.Param{
			{Name: "metrics", Type: kit.Any, Record: []string{"connection"}, Required: true, Doc: `where metrics are read: connection("prometheus", config = {"url": ...})`},
			{Name: "alerts", Type: kit.List, Record: []string{"connection"}, Doc: `where alerts are read: [connection("alertmanager", config = {"url": ...}), ...], of which each has a part or all; none if not given`},
			{Name: "state", Type: kit.StringT, Default: value.String("state"), Doc: "the state directory, from the project root if it is not absolute; made by runbook init"},
			{Name: "plugins", Type: kit.List, Record: []string{"plugin"}, Doc: "plugins that are not part of this program, each locked by runbook plugin lock; none if not given"},
			{Name: "connections", Type: kit.List, Record: []string{"connection"}, Doc: "where plugins act; none if not given, and then nothing can act"},
			{Name: "policy", Type: kit.Any, Record: []string{"policy"}, Doc: "the limits of every runbook; the ones that ship if not given"},
			{Name: "notify", Type: kit.List, Record: routes, Doc: "who is called when a person is needed; nobody if not given, and then notices wait in runbook status"},
			{Name: "sampling", Type: kit.Duration, Default: value.Duration(15 * time.Second), Doc: "the step at which a symptom's past is looked at; best the scrape interval"},
			{Name: "max_age", Type: kit.Duration, Default: value.Duration(3 * time.Minute), Doc: "a sample older than this is stale and says nothing: its target is unknown"},
			{Name: "retention", Type: kit.Duration, Default: value.Duration(90 * 24 * time.Hour), Doc: "how long what has come to an end stays on record, at least 7d; what is open stays for ever"},
			{Name: "deadline", Type: kit.Duration, Default: value.Duration(10 * time.Minute), Doc: "how long one run may take; no action starts whose timeout does not fit into what is left"},
			{Name: "heartbeat", Type: kit.StringT, Doc: "a file for node_exporter's textfile collector, ending in .prom, written after each completed run; none if not given"},
			{Name: "heartbeat_url", Type: kit.Any, Doc: "a URL, as text or secret, that is asked for after each completed run; none if not given"},
			{Name: "limits", Type: kit.Any, Record: []string{"limits"}, Doc: "what a runbook file may use while it is read and evaluated; the ones that ship if not given"},
		},
	}
}

func connectionFn() kit.Function {
	return kit.Function{
		Name: "connection", Kind: kit.Declare, Positional: 1,
		Doc: "Where a plugin acts or asks. An action goes to the one connection of its plugin whose labels its target has; without one it is refused.",
		Params: []kit.Param{
			{Name: "plugin", Type: kit.StringT, Required: true, Doc: "name of the plugin"},
			{Name: "name", Type: kit.StringT, Doc: "name of the connection, unique in the project; the plugin's if not given"},
			{Name: "match", Type: kit.Labels, Doc: "the labels that a target must have, all of them; required, except for metrics and alerts"},
			{Name: "config", Type: kit.Dict, Doc: "the plugin's settings; the plugin's defaults if not given"},
			{Name: "confine", Type: kit.Any, Record: []string{"confine"}, Doc: "what its process may touch; what the engine's user may if not given"},
		},
	}
}

func confineFn() kit.Function {
	return kit.Function{
		Name: "confine", Kind: kit.Declare,
		Doc: "Takes from a connection's process what it need not touch, on Linux: it reads the system's own files and what is named here, writes only what is named here, " +
			"and has a network and starts programs only if a function of the plugin says that it needs that. What cannot be confined is not started.",
		Params: []kit.Param{
			{Name: "read", Type: kit.Strings, Doc: "absolute paths of files that it may read, and of directories with all below; none if not given"},
			{Name: "write", Type: kit.Strings, Doc: "the same for what it may read, write and delete; none if not given"},
			{Name: "network", Type: kit.Bool, Default: value.Bool(false), Doc: "it has a network, also if no function says so: for commands of exec that need one"},
			{Name: "user", Type: kit.StringT, Doc: "the user, by name or number, as whom it runs, for which the engine has to run as root; the engine's own if not given"},
		},
	}
}

func pluginFn() kit.Function {
	return kit.Function{
		Name: "plugin", Kind: kit.Declare, Positional: 1,
		Doc: "A plugin that is a program of its own. It is started only while its file is the one that runbook.lock names.",
		Params: []kit.Param{
			{Name: "name", Type: kit.StringT, Required: true, Doc: "what the plugin calls itself"},
			{Name: "path", Type: kit.StringT, Required: true, Doc: "its file, from the project root if it is not absolute: a program, or a script that names its interpreter"},
		},
	}
}

func webhookFn() kit.Function {
	return kit.Function{
		Name: "webhook", Kind: kit.Declare, Positional: 1, Doc: "A notification route: each notice is sent to it as JSON by HTTP POST.",
		Params: []kit.Param{
			{Name: "url", Type: kit.Any, Required: true, Doc: "where to, http or https, as text or secret"},
			ownersParam(),
			{Name: "headers", Type: kit.Dict, Doc: "HTTP headers by name, as text or secrets; none if not given"},
		},
	}
}

// routes are the declarations of a notification route.
var routes = []string{"webhook", "slack", "pagerduty", "opsgenie", "email"}

func ownersParam() kit.Param {
	return kit.Param{Name: "owners", Type: kit.Strings, Doc: "the owners whose notices go here; everybody's if not given"}
}

func slackFn() kit.Function {
	return kit.Function{
		Name: "slack", Kind: kit.Declare, Positional: 1, Doc: "A notification route: each notice is a message of an incoming webhook of Slack.",
		Params: []kit.Param{
			{Name: "url", Type: kit.Any, Required: true, Doc: "the webhook's URL, as secret: who has it can post"},
			ownersParam(),
		},
	}
}

func pagerdutyFn() kit.Function {
	return kit.Function{
		Name: "pagerduty", Kind: kit.Declare, Positional: 1, Doc: "A notification route: each notice triggers an event of PagerDuty's Events API v2; what is told again is the same incident.",
		Params: []kit.Param{
			{Name: "key", Type: kit.Any, Required: true, Doc: "the integration's routing key, as secret"},
			ownersParam(),
			{Name: "url", Type: kit.Any, Default: value.String(notify.PagerDutyURL), Doc: "where the API is"},
		},
	}
}

func opsgenieFn() kit.Function {
	return kit.Function{
		Name: "opsgenie", Kind: kit.Declare, Positional: 1, Doc: "A notification route: each notice is an alert of Opsgenie; what is told again is the same alert.",
		Params: []kit.Param{
			{Name: "key", Type: kit.Any, Required: true, Doc: "the API key, as secret"},
			ownersParam(),
			{Name: "url", Type: kit.Any, Default: value.String(notify.OpsgenieURL), Doc: "where the API is; of the European service https://api.eu.opsgenie.com/v2/alerts"},
		},
	}
}

func emailFn() kit.Function {
	return kit.Function{
		Name: "email", Kind: kit.Declare, Positional: 1, Doc: "A notification route: each notice is a mail, handed in by SMTP; what is told again is in the same thread.",
		Params: []kit.Param{
			{Name: "server", Type: kit.StringT, Required: true, Doc: "host:port of the mail server"},
			{Name: "sender", Type: kit.StringT, Required: true, Doc: "the address that it comes from"},
			{Name: "to", Type: kit.Strings, Required: true, Doc: "the addresses that it goes to"},
			ownersParam(),
			{Name: "user", Type: kit.StringT, Doc: "who hands it in; nobody in particular if not given"},
			{Name: "password", Type: kit.Any, Doc: "the user's, as secret; none if not given"},
			{Name: "tls", Type: kit.StringT, Default: value.String(string(notify.STARTTLS)), Doc: "starttls: encrypted from the second line on, or not at all; tls: from the first byte; none: for a server on this machine"},
		},
	}
}

func limitsFn() kit.Function {
	return kit.Function{
		Name: "limits", Kind: kit.Declare, Doc: "What the worker process that reads and evaluates a runbook may use.",
		Params: []kit.Param{
			{Name: "steps", Type: kit.Int, Default: value.Int(10_000_000), Doc: "steps of the language in one evaluation"},
			{Name: "time", Type: kit.Duration, Default: value.Duration(30 * time.Second), Doc: "the script's own time in one evaluation, without waiting for queries and actions"},
			{Name: "memory", Type: kit.StringT, Default: value.String("128MiB"), Doc: "memory of the script, at least 64MiB; units are KiB, MiB and GiB"},
			{Name: "source_file", Type: kit.StringT, Default: value.String("256KiB"), Doc: "size of one file, at most 4MiB"},
			{Name: "source", Type: kit.StringT, Default: value.String("1MiB"), Doc: "size of a file with everything that it loads, at most 16MiB"},
		},
	}
}
