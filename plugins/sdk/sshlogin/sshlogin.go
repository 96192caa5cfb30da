// Package sshlogin logs in on another machine, for plugins that work there.
//
// Promise: the machine has proved that it has the very key that was pinned before anything is told to it; the own key is a secret of the connection, or stays in an
// agent. Nothing of the user's own ssh configuration counts.
package sshlogin

import (
	"context"
	"net"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Config is where and how, as in the settings of a connection that have these names.
type Config struct {
	Host    string // name or name:port
	User    string
	Key     string // private, in PEM, without a passphrase
	Agent   string // or the socket of an agent
	HostKey string // as in known_hosts, without the name
}

// Check checks the settings. Errors name them.
func (c Config) Check() error {
	switch {
	case c.Host == "":
		return problem.New(problem.Project, "key, agent and host_key are for another machine").WithHint("add host, or leave them out")
	case c.HostKey == "" || c.Key == "" && c.Agent == "":
		return problem.New(problem.Project, "host: to log in on %s, key and host_key are needed", c.Host).
			WithHint(`"key": secret.file("/etc/runbook/id_ed25519"), and "host_key" from: ssh-keyscan %s`, c.Host)
	case c.Key != "" && c.Agent != "":
		return problem.New(problem.Project, "key and agent are two ways to log in").WithHint("leave one of them out")
	case c.Agent != "" && !path.IsAbs(c.Agent):
		return problem.New(problem.Project, "agent: %q is not an absolute path", c.Agent)
	}
	if c.Key != "" {
		if _, err := ssh.ParsePrivateKey([]byte(c.Key)); err != nil {
			return problem.New(problem.Project, "key: it is not a private key without a passphrase: %v", err)
		}
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey)); err != nil {
		return problem.New(problem.Project, "host_key: it is not a public key").WithHint("write it as in known_hosts, without the name: ssh-ed25519 AAAA...")
	}
	return nil
}

// signers are the keys to log in with. end is called when they are not needed any more.
func (c Config) signers(ctx context.Context) (auth ssh.AuthMethod, end func(), err error) {
	if c.Agent == "" {
		signer, err := ssh.ParsePrivateKey([]byte(c.Key))
		return ssh.PublicKeys(signer), func() {}, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Agent)
	if err != nil {
		return nil, nil, problem.Wrap(problem.PluginFailed, err, "ssh-agent %s", c.Agent)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return ssh.PublicKeysCallback(agent.NewClient(conn).Signers), func() { stop(); _ = conn.Close() }, nil
}

// Login logs in on the other machine, whose key must be the one that was pinned.
func (c Config) Login(ctx context.Context) (*ssh.Client, error) {
	auth, end, err := c.signers(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey))
	if err != nil {
		return nil, err
	}
	address := c.Host
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, "22")
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(raw, address, &ssh.ClientConfig{
		User: c.User, Auth: []ssh.AuthMethod{auth},
		HostKeyCallback: ssh.FixedHostKey(pinned), HostKeyAlgorithms: algorithms(pinned.Type()),
	})
	if err != nil {
		_ = raw.Close()
		switch {
		case strings.Contains(err.Error(), "host key mismatch"):
			return nil, problem.New(problem.PluginFailed, "%s: it has another host key than the one in host_key: somebody else may be answering", c.Host).
				WithHint("if the machine was made anew, look at its console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
		case strings.Contains(err.Error(), "unable to authenticate"):
			return nil, problem.New(problem.PluginFailed, "%s: it does not let %s log in with this key", c.Host, c.User).
				WithHint("add the public key to ~%s/.ssh/authorized_keys there", c.User)
		}
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// algorithms are those by which a host can prove that it has a key of a type.
func algorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}
