package systemd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/crypto/ssh"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// noAnswer are the errors of D-Bus after which nobody knows whether the request was carried out.
var noAnswer = []string{"NoReply", "Timeout", "TimedOut", "Disconnected"}

// refused says that systemd itself answered that it will not: then nothing has happened.
func refused(err error) bool {
	var said dbus.Error
	if !errors.As(err, &said) {
		return false
	}
	return !slices.Contains(noAnswer, strings.TrimPrefix(said.Name, "org.freedesktop.DBus.Error."))
}

// checkRemote checks the settings for another machine.
func (c config) checkRemote() error {
	if c.Host == "" {
		if c.Key != "" || c.HostKey != "" {
			return problem.New(problem.Project, "key and host_key are for another machine").WithHint("add host, or leave them out")
		}
		return nil
	}
	if c.Key == "" || c.HostKey == "" {
		return problem.New(problem.Project, "host: to log in on %s, key and host_key are needed", c.Host).
			WithHint(`"key": secret.file("/etc/runbook/id_ed25519"), and "host_key" from: ssh-keyscan %s`, c.Host)
	}
	if _, err := ssh.ParsePrivateKey([]byte(c.Key)); err != nil {
		return problem.New(problem.Project, "key: it is not a private key without a passphrase: %v", err)
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey)); err != nil {
		return problem.New(problem.Project, "host_key: it is not a public key").WithHint("write it as in known_hosts, without the name: ssh-ed25519 AAAA...")
	}
	return nil
}

// where names the machine for people.
func (c config) where() string {
	if c.Host == "" {
		return "this machine"
	}
	return c.Host
}

// dial connects to systemd. end closes everything.
func (x *plugin) dial(ctx context.Context) (conn *systemd.Conn, end func(), err error) {
	open := func() (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", x.config.Socket)
	}
	uid := os.Getuid()
	hangUp := func() {}
	if x.config.Host != "" {
		client, err := x.login(ctx)
		if err != nil {
			return nil, nil, err
		}
		hangUp = func() { _ = client.Close() }
		uid = 0
		open = func() (io.ReadWriteCloser, error) { return client.DialContext(ctx, "unix", x.config.Socket) }
	}
	// The connection must end with the context, also while it says who it is.
	var opened []io.Closer
	stop := context.AfterFunc(ctx, func() { hangUp() })
	defer stop()
	conn, err = systemd.NewConnection(func() (*dbus.Conn, error) {
		raw, err := open()
		if err != nil {
			return nil, err
		}
		opened = append(opened, raw)
		done := context.AfterFunc(ctx, func() { _ = raw.Close() })
		defer done()
		c, err := dbus.NewConn(raw)
		if err != nil {
			return nil, err
		}
		// By number, as its own tools do: a name would need the C library.
		if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
			return nil, err
		}
		if x.config.Bus {
			if err := c.Hello(); err != nil {
				return nil, err
			}
		}
		return c, nil
	})
	if err != nil {
		for _, c := range opened {
			_ = c.Close()
		}
		hangUp()
		return nil, nil, x.cannotReach(err)
	}
	return conn, func() { conn.Close(); hangUp() }, nil
}

func (x *plugin) cannotReach(err error) error {
	var refused *ssh.OpenChannelError
	switch {
	case errors.Is(err, os.ErrPermission):
		return problem.New(problem.PluginFailed, "%s on %s: permission denied", x.config.Socket, x.config.where()).
			WithHint(`only root may use systemd's own socket; for others: "socket": "/run/dbus/system_bus_socket", "bus": True, and a rule of polkit`)
	case errors.Is(err, os.ErrNotExist):
		return problem.New(problem.PluginFailed, "%s on %s: there is no such socket", x.config.Socket, x.config.where()).
			WithHint("is systemd what runs this machine? set socket if it is elsewhere")
	case errors.As(err, &refused):
		return problem.New(problem.PluginFailed, "%s on %s: its sshd does not pass the socket on: %s", x.config.Socket, x.config.where(), refused.Message).
			WithHint("AllowStreamLocalForwarding must not be off for this user, and the user must be root for systemd's own socket")
	}
	return err
}

// login logs in on the other machine, whose key must be the one that was pinned.
func (x *plugin) login(ctx context.Context) (*ssh.Client, error) {
	signer, err := ssh.ParsePrivateKey([]byte(x.config.Key))
	if err != nil {
		return nil, err
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(x.config.HostKey))
	if err != nil {
		return nil, err
	}
	address := x.config.Host
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
	c, channels, requests, err := ssh.NewClientConn(raw, address, &ssh.ClientConfig{
		User: x.config.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(pinned), HostKeyAlgorithms: algorithms(pinned.Type()),
	})
	if err != nil {
		_ = raw.Close()
		switch {
		case strings.Contains(err.Error(), "host key mismatch"):
			return nil, problem.New(problem.PluginFailed, "%s: it has another host key than the one in host_key: somebody else may be answering", x.config.Host).
				WithHint("if the machine was made anew, look at its console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
		case strings.Contains(err.Error(), "unable to authenticate"):
			return nil, problem.New(problem.PluginFailed, "%s: it does not let %s log in with this key", x.config.Host, x.config.User).
				WithHint("add the public key to ~%s/.ssh/authorized_keys there", x.config.User)
		}
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// algorithms are those by which a host can prove that it has a key of a type.
func algorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}
