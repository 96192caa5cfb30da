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
	"github.com/seed1de3961f/runbook/plugins/sdk/sshlogin"
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

// remote is how the other machine is logged in to.
func (c config) remote() sshlogin.Config {
	return sshlogin.Config{Host: c.Host, User: c.User, Key: c.Key, Agent: c.Agent, HostKey: c.HostKey}
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
		client, err := x.config.remote().Login(ctx)
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
