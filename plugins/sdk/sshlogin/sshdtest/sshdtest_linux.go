// Package sshdtest starts a real sshd on loopback, for tests. It takes root, and the package openssh-server.
package sshdtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
)

// NewKey is a private key in PEM and its public key as in known_hosts.
func NewKey(t testing.TB) (private, public string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	out, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(out)))
}

// Start starts one into which one key may log in as root, to run commands or to be led on.
func Start(t testing.TB) (key, hostKey, port string) {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: install the package openssh-server", err)
	}
	// Not in the test's directory: sshd wants every directory above to be root's alone.
	dir, err := os.MkdirTemp("/root", "runbook-sshd-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	key, public := NewKey(t)
	private, hostKey := NewKey(t)
	port = sdktest.FreePort(t)
	for name, text := range map[string]string{
		"host": private, "allowed": "restrict,port-forwarding " + public + "\n",
		"config": "Port " + port + "\nListenAddress 127.0.0.1\nHostKey " + dir + "/host\nAuthorizedKeysFile " + dir + "/allowed\nPermitRootLogin prohibit-password\nUsePAM no\nPidFile none\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sdktest.Server(t, sdktest.Listens("tcp", "127.0.0.1:"+port), program, "-D", "-e", "-f", filepath.Join(dir, "config"))
	return key, hostKey, port
}
