package sdk

import (
	"fmt"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// ProtocolVersion is the major version of the plugin protocol.
const ProtocolVersion = 1

// ServiceName is the name under which go-plugin knows the service.
const ServiceName = "runbook"

// Handshake is the cookie by which a plugin knows that it was started by runbook. It protects nothing: it words an error.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{
		ProtocolVersion: ProtocolVersion, MagicCookieKey: "RUNBOOK_PLUGIN", MagicCookieValue: "c1f0a9be-runbook-plugin",
	}
}

// The environment of a plugin process, besides go-plugin's own variables.
const (
	// EnvLifeline set to 1 says that standard input is a pipe that the host holds: its end is the host's end.
	EnvLifeline = "RUNBOOK_PLUGIN_LIFELINE"
	// EnvHost is the process id that may connect. Without it, it is the parent.
	EnvHost = "RUNBOOK_PLUGIN_HOST"
)

// EncodeManifest is the wire form of m.
func EncodeManifest(m Manifest) (*pluginpb.Manifest, error) {
	config, err := encodeParams(m.Config)
	if err != nil {
		return nil, err
	}
	p := &pluginpb.Manifest{Name: m.Name, Version: m.Version, Doc: m.Doc, Config: config}
	for _, f := range m.Functions {
		params, err := encodeParams(f.Params)
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", f.Name, err)
		}
		p.Functions = append(p.Functions, &pluginpb.Function{
			Name: f.Name, Kind: kinds[f.Kind], Doc: f.Doc, Params: params, Positional: int32(f.Positional), Returns: f.Returns,
			DefaultTimeoutNs: int64(f.DefaultTimeout), MaxTimeoutNs: int64(f.MaxTimeout), DefaultCooldownNs: int64(f.DefaultCooldown),
			SettleNs: int64(f.Settle), CanPlan: f.CanPlan, CanProbe: f.CanProbe, EndsTarget: f.EndsTarget,
			BlastRadius: f.BlastRadius, Capabilities: f.Capabilities,
		})
	}
	return p, nil
}

var kinds = map[Kind]pluginpb.Kind{
	Query: pluginpb.Kind_KIND_QUERY, Analysis: pluginpb.Kind_KIND_ANALYSIS, Action: pluginpb.Kind_KIND_ACTION,
}

// DecodeManifest reads the wire form. An unset or unknown kind is an action, a negative duration the default.
func DecodeManifest(p *pluginpb.Manifest) (Manifest, error) {
	config, err := decodeParams(p.GetConfig())
	if err != nil {
		return Manifest{}, fmt.Errorf("config: %w", err)
	}
	m := Manifest{Name: p.GetName(), Version: p.GetVersion(), Doc: p.GetDoc(), Config: config}
	for _, f := range p.GetFunctions() {
		params, err := decodeParams(f.GetParams())
		if err != nil {
			return Manifest{}, fmt.Errorf("function %s: %w", f.GetName(), err)
		}
		kind := Action
		for k, pk := range kinds {
			if pk == f.GetKind() {
				kind = k
			}
		}
		m.Functions = append(m.Functions, Function{
			Name: f.GetName(), Kind: kind, Doc: f.GetDoc(), Params: params, Positional: int(f.GetPositional()), Returns: f.GetReturns(),
			DefaultTimeout: duration(f.GetDefaultTimeoutNs()), MaxTimeout: duration(f.GetMaxTimeoutNs()),
			DefaultCooldown: duration(f.GetDefaultCooldownNs()), Settle: duration(f.GetSettleNs()),
			CanPlan: f.GetCanPlan(), CanProbe: f.GetCanProbe(), EndsTarget: f.GetEndsTarget(),
			BlastRadius: f.GetBlastRadius(), Capabilities: f.GetCapabilities(),
		})
	}
	return m, nil
}

func duration(ns int64) time.Duration { return max(0, time.Duration(ns)) }

func encodeParams(params []Param) ([]*pluginpb.Param, error) {
	var out []*pluginpb.Param
	for _, pa := range params {
		p := &pluginpb.Param{Name: pa.Name, Type: pa.Type, Doc: pa.Doc, Required: pa.Required, Sensitive: pa.Sensitive}
		if pa.Default != nil {
			def, err := pluginpb.Encode(pa.Default)
			if err != nil {
				return nil, fmt.Errorf("default of %s: %w", pa.Name, err)
			}
			p.Default = def
		}
		out = append(out, p)
	}
	return out, nil
}

func decodeParams(params []*pluginpb.Param) ([]Param, error) {
	var out []Param
	for _, p := range params {
		pa := Param{Name: p.GetName(), Type: p.GetType(), Doc: p.GetDoc(), Required: p.GetRequired(), Sensitive: p.GetSensitive()}
		if p.GetDefault() != nil {
			def, err := pluginpb.Decode(p.GetDefault())
			if err != nil {
				return nil, fmt.Errorf("default of %s: %w", p.GetName(), err)
			}
			pa.Default = def
		}
		out = append(out, pa)
	}
	return out, nil
}
