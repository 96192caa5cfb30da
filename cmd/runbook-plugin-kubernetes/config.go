package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	policyv1 "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

type config struct {
	Kubeconfig string        `rb:"kubeconfig" doc:"path of a kubeconfig file; without it and without server, what the pod is given that this runs in"`
	Context    string        `rb:"context" doc:"the context in it; its current one if not given"`
	Server     string        `rb:"server" doc:"instead of kubeconfig, the address of the API server: https://10.0.0.1:6443"`
	Token      string        `rb:"token,sensitive" doc:"with server: the token to log in with"`
	CAFile     string        `rb:"ca_file" doc:"with server: PEM file with the authority that signed its certificate; the system's authorities if not given"`
	Namespaces []string      `rb:"namespaces" doc:"the namespaces in which may be acted, each a name or a pattern: shop-*; none if not given"`
	Nodes      []string      `rb:"nodes" doc:"the nodes that may be acted on, each a name or a pattern: worker-*; none if not given"`
	Least      int           `rb:"least" default:"1" doc:"the least replicas to which scale may go"`
	Most       int           `rb:"most" default:"0" doc:"the most replicas to which scale may go; it may not at all if not given"`
	Timeout    time.Duration `rb:"timeout" default:"10s" doc:"how long one answer may take"`
}

func newPlugin() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("kubernetes", "1", "Look at a Kubernetes cluster, and restart, roll back, scale and move what runs there.")
	sdk.ConfigFunc(p, x.configure)
	asked := []sdk.Option{sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net")}
	sdk.QueryFunc(p, "pods", "Pods, as a list of {pod, name, namespace, phase, ready, restarts, reason, last_reason, node, owner, age, leaving}; at most 5,000. reason is why a container waits, such as "+
		"CrashLoopBackOff; last_reason is how one ended last, such as OOMKilled; owner is deployment/NAME and the like.", x.pods, asked...)
	sdk.QueryFunc(p, "deployments", "Deployments, as a list of {deployment, name, namespace, wanted, ready, updated, available, revision, stuck, paused, since}. stuck is why a rollout does not get on; "+
		"since is how long ago the last one began.", x.deployments, asked...)
	sdk.QueryFunc(p, "nodes", "Nodes, as a list of {node, name, ready, reason, since, cordoned, pressure, age}. pressure lists MemoryPressure, DiskPressure and PIDPressure where they hold.", x.nodes, asked...)
	sdk.QueryFunc(p, "events", "Events of a namespace, the latest first, as a list of {object, type, reason, message, count, age}; at most 500.", x.events, asked...)

	acts := func(radius string, most time.Duration) []sdk.Option {
		return []sdk.Option{sdk.Timeout(time.Minute, most), sdk.BlastRadius(radius), sdk.Capabilities("net")}
	}
	deployment(p, x, "restart_rollout", "Restart the pods of a deployment one after the other, as its strategy says.", x.restart, acts("service", 10*time.Minute))
	deployment(p, x, "undo_rollout", "Take a deployment back to the pods that it had before the last rollout.", x.undo, acts("service", 10*time.Minute))
	sdk.ActionFunc(p, "scale", "Set how many pods a deployment has, between the connection's least and most.", x.scale, acts("service", 10*time.Minute)...)
	sdk.PlanFunc(p, "scale", x.planScale)
	sdk.ProbeFunc(p, "scale", x.probeScale)
	pod(p, x, "delete_pod", "Delete a pod, whatever the disruption budgets say. What owns it makes another one.", x.deletePod, acts("process", 10*time.Minute))
	pod(p, x, "evict_pod", "Evict a pod, if the disruption budgets let it. What owns it makes another one.", x.evictPod, acts("process", 10*time.Minute))
	node(p, x, "cordon", "Let no new pods onto a node.", true, acts("host", 10*time.Minute))
	node(p, x, "uncordon", "Let new pods onto a node again.", false, acts("host", 10*time.Minute))
	sdk.ActionFunc(p, "drain", "Cordon a node, and evict its pods as the disruption budgets let it. Those of daemon sets and static ones stay.", x.drain,
		sdk.Timeout(10*time.Minute, 2*time.Hour), sdk.BlastRadius("host"), sdk.Capabilities("net"))
	sdk.PlanFunc(p, "drain", x.planDrain)
	sdk.ProbeFunc(p, "drain", x.probeDrain)
	return p
}

type plugin struct {
	config config
	core   corev1.CoreV1Interface
	apps   appsv1.AppsV1Interface
	policy policyv1.PolicyV1Interface
	server string
}

func (x *plugin) configure(_ context.Context, c config) error {
	if err := errors.Join(allow.Patterns("namespaces", c.Namespaces), allow.Patterns("nodes", c.Nodes)); err != nil {
		return err
	}
	switch {
	case c.Timeout <= 0:
		return problem.New(problem.Project, "timeout: it must be positive")
	case c.Least < 0 || c.Most < 0 || c.Most > 0 && c.Least > c.Most:
		return problem.New(problem.Project, "least: %d to %d is no range of replicas", c.Least, c.Most)
	case c.Server != "" && (c.Kubeconfig != "" || c.Context != ""):
		return problem.New(problem.Project, "server and kubeconfig are two ways to say where the cluster is").WithHint("leave one of them out")
	case c.Server == "" && (c.Token != "" || c.CAFile != ""):
		return problem.New(problem.Project, "token and ca_file belong to server").WithHint("add server, or leave them to the kubeconfig file")
	case c.Server != "" && !strings.HasPrefix(c.Server, "https://"):
		return problem.New(problem.Project, "server: %.80q is not an https address", c.Server)
	case c.Context != "" && c.Kubeconfig == "":
		return problem.New(problem.Project, "context belongs to kubeconfig")
	}
	r, err := c.rest()
	if err != nil {
		return problem.New(problem.Project, "%v", err).WithHint(`say where the cluster is: "kubeconfig": "/etc/runbook/kubeconfig", or "server" and "token"`)
	}
	r.Timeout, r.QPS, r.Burst, r.UserAgent = c.Timeout, 50, 100, "runbook-plugin-kubernetes"
	r.ContentType, r.AcceptContentTypes = "application/json", "application/json" // which a person can read on the wire, and a proxy in an audit log
	r.Wrap(func(next http.RoundTripper) http.RoundTripper { return once{next} })
	core, err := corev1.NewForConfig(r)
	if err != nil {
		return problem.New(problem.Project, "%v", err)
	}
	apps, err := appsv1.NewForConfig(r)
	if err != nil {
		return problem.New(problem.Project, "%v", err)
	}
	policy, err := policyv1.NewForConfig(r)
	if err != nil {
		return problem.New(problem.Project, "%v", err)
	}
	x.config, x.core, x.apps, x.policy, x.server = c, core, apps, policy, r.Host
	return nil
}

func (c config) rest() (*rest.Config, error) {
	switch {
	case c.Server != "":
		return &rest.Config{Host: c.Server, BearerToken: c.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile}}, nil
	case c.Kubeconfig != "":
		return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig},
			&clientcmd.ConfigOverrides{CurrentContext: c.Context}).ClientConfig()
	}
	return rest.InClusterConfig()
}

// once keeps the client library from sending anything again by itself: it does so where an answer says after how long, as that of an eviction which a
// disruption budget refuses.
type once struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if resp != nil {
		resp.Header.Del("Retry-After")
	}
	return resp, err
}

// refused says that the API server answered that it will not: then nothing has happened.
func refused(err error) bool {
	var said apierrors.APIStatus
	return errors.As(err, &said) && said.Status().Code >= 400 && said.Status().Code < 500
}

// explain words an error, and keeps what kind it is.
func (x *plugin) explain(err error) error {
	var known *problem.Problem
	switch {
	case errors.As(err, &known):
		return err
	case apierrors.IsNotFound(err):
		return problem.New(problem.NotFound, "kubernetes %s: %v", x.server, err).Because(err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return problem.New(problem.PluginFailed, "kubernetes %s: %v", x.server, err).Because(err).
			WithHint("docs/kubernetes.md has the role that the plugin needs")
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), strings.Contains(err.Error(), "Client.Timeout"):
		return problem.New(problem.PluginTimeout, "kubernetes %s: no answer within %s", x.server, x.config.Timeout)
	}
	return problem.Wrap(problem.PluginFailed, err, "kubernetes %s", x.server)
}

// sent judges the error of a request that changes something, after Begin.
func (x *plugin) sent(err error) error {
	if err == nil {
		return nil
	}
	if refused(err) {
		return x.explain(err)
	}
	return sdk.Unknown(x.explain(err))
}
