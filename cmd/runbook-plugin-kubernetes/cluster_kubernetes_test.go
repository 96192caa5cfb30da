//go:build kubernetes

package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
)

var startCluster = realCluster

// realCluster starts etcd, the API server and the controllers of deployments and disruption budgets, as make test-kubernetes has built them, and returns the address of the API
// server and the tokens of its administrator and of a user called runbook. There is no scheduler and no kubelet: the test does what they would.
func realCluster(t *testing.T) (url, admin, user string) {
	t.Helper()
	bin := os.Getenv("RUNBOOK_TEST_KUBERNETES")
	if bin == "" {
		t.Fatal("RUNBOOK_TEST_KUBERNETES names no directory with the programs of Kubernetes: make test-kubernetes builds them")
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	accounts := file("accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	client, peer, port := sdktest.FreePort(t), sdktest.FreePort(t), sdktest.FreePort(t)
	etcd := "http://127.0.0.1:" + client
	sdktest.Server(t, sdktest.Listens("tcp", "127.0.0.1:"+client), filepath.Join(bin, "etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer,
		"--initial-cluster", "default=http://127.0.0.1:"+peer)
	url, admin, user = "https://127.0.0.1:"+port, "token-of-the-administrator", "token-of-runbook"
	tokens := file("tokens.csv", admin+",admin,1,system:masters\n"+user+",runbook,2\n")
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // it has just been started, on loopback
	sdktest.Server(t, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		resp, err := insecure.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it is not ready: %s", resp.Status)
		}
		return nil
	}, filepath.Join(bin, "kube-apiserver"), "--etcd-servers", etcd, "--cert-dir", filepath.Join(dir, "certs"), "--bind-address", "127.0.0.1", "--secure-port", port,
		"--token-auth-file", tokens, "--authorization-mode", "RBAC", "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", accounts,
		"--service-account-signing-key-file", accounts, "--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "ServiceAccount")
	config := file("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, url, admin))
	sdktest.Server(t, func() error { return nil }, filepath.Join(bin, "kube-controller-manager"), "--kubeconfig", config, "--leader-elect=false",
		"--controllers", "deployment-controller,replicaset-controller,disruption-controller", "--secure-port", "0")
	return url, admin, user
}
