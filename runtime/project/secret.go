package project

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// maxSecret bounds a secret file.
const maxSecret = 64 * kib

// Resolve returns a connection's config with its secrets read. What it returns is handed to the plugin and nowhere
// else; it must not be logged or recorded.
func (s *Settings) Resolve(c Connection) (value.Dict, error) {
	out := make(value.Dict, 0, len(c.Config))
	for _, e := range c.Config {
		v := e.Value
		if r, ok := v.(*value.Record); ok {
			text, err := s.secret(r)
			if err != nil {
				return nil, err
			}
			v = value.String(text)
		}
		out = append(out, value.Entry{Key: e.Key, Value: v})
	}
	return out, nil
}

// Text returns a setting that is text or a secret.
func (s *Settings) Text(v value.Value) (string, error) {
	switch v := v.(type) {
	case value.String:
		return string(v), nil
	case *value.Record:
		return s.secret(v)
	}
	return "", problem.New(problem.Project, "neither text nor a secret")
}

// URL returns a setting that is an http or https URL. An error does not show it, because it may hold a token.
func (s *Settings) URL(v value.Value) (string, error) {
	text, err := s.Text(v)
	if err != nil {
		return "", err
	}
	if !isURL(text) {
		p := problem.New(problem.Project, "a URL is not of the form https://host/path")
		if r, ok := v.(*value.Record); ok {
			p = p.At(r.Pos)
		}
		return "", p
	}
	return text, nil
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func (s *Settings) secret(r *value.Record) (string, error) {
	f, ok := r.Get(map[string]string{"secret.env": "name", "secret.file": "path"}[r.Type])
	name, isText := f.Value.(value.String)
	if !ok || !isText {
		return "", problem.New(problem.Project, "%s is not a secret", r.Type).At(r.Pos)
	}
	if r.Type == "secret.env" {
		return s.secretEnv(r, string(name))
	}
	return s.secretFile(r, string(name))
}

func (s *Settings) secretEnv(r *value.Record, name string) (string, error) {
	val, ok := "", false
	if s.Env != nil {
		val, ok = s.Env(name)
	}
	switch {
	case !ok:
		return "", problem.New(problem.Project, "secret.env: the environment variable %s is not set", name).At(r.Pos).
			WithHint("set %s where runbook is started, or use secret.file", name)
	case val == "":
		return "", problem.New(problem.Project, "secret.env: the environment variable %s is empty", name).At(r.Pos)
	}
	return val, nil
}

func (s *Settings) secretFile(r *value.Record, name string) (string, error) {
	bad := func(format string, args ...any) *problem.Problem {
		return problem.New(problem.Project, "secret.file: "+format, args...).At(r.Pos)
	}
	full := name
	if !filepath.IsAbs(full) {
		full = filepath.Join(s.Root, filepath.FromSlash(name))
	}
	// A look before opening, because opening a named pipe waits for somebody to write.
	if info, err := os.Stat(full); err == nil && !info.Mode().IsRegular() {
		return "", bad("%s is not a regular file", name)
	}
	f, err := os.Open(full)
	if err != nil {
		return "", problem.Wrap(problem.Project, err, "secret.file").At(r.Pos)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", problem.Wrap(problem.Project, err, "secret.file").At(r.Pos)
	}
	// Windows has no such bits: Go makes them up.
	if others := info.Mode().Perm() & 0o007; others != 0 && runtime.GOOS != "windows" {
		return "", bad("%s can be read or written by everybody (mode %04o)", name, info.Mode().Perm()).WithHint("chmod o= %s", full)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", problem.Wrap(problem.Project, err, "secret.file").At(r.Pos)
	case int64(len(text)) > maxSecret:
		return "", bad("%s has more than %s", name, formatSize(maxSecret))
	case !utf8.Valid(text):
		return "", bad("%s is not text", name)
	}
	val := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if val == "" {
		return "", bad("%s is empty", name)
	}
	return val, nil
}
