package sdk

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// onlyPID accepts connections from one process. It adds nothing to the bytes on the socket, so that a host in any language
// connects as without it.
func onlyPID(pid int) credentials.TransportCredentials { return peerCreds{pid} }

type peerCreds struct{ pid int }

type peerInfo struct{ credentials.CommonAuthInfo }

func (peerInfo) AuthType() string { return "peercred" }

var errStranger = errors.New("only the process that started this plugin may connect")

func (p peerCreds) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !fromPID(c, p.pid) {
		return nil, nil, errStranger
	}
	return c, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (peerCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("for servers only")
}

func (peerCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}
func (p peerCreds) Clone() credentials.TransportCredentials { return p }
func (peerCreds) OverrideServerName(string) error           { return nil }
