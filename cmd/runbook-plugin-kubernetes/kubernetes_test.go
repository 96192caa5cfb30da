package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// cluster is a tape with what the tests have in it: a namespace, two nodes, and the role of the docs for the plugin's user.
type cluster struct {
	*tape
	t *testing.T
	h *sdktest.Harness
}

type dict = map[string]any

func newCluster(t *testing.T, name string) *cluster {
	t.Helper()
	c := &cluster{tape: newTape(t, name), t: t}
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	role := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(docs)
	if role == nil {
		t.Fatal("docs/kubernetes.md has no role")
	}
	for text := range strings.SplitSeq(string(role[1]), "---\n") {
		var object dict
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		if object["subjects"] != nil { // in the docs the account of a pod, here a user
			object["subjects"] = []dict{{"kind": "User", "name": "runbook", "apiGroup": "rbac.authorization.k8s.io"}}
		}
		c.must(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/"+strings.ToLower(object["kind"].(string))+"s", object, nil)
	}
	c.must(http.MethodPost, "/api/v1/namespaces", dict{"metadata": dict{"name": "shop"}}, nil)
	c.node("node-1")
	c.node("node-2")
	c.h = sdktest.New(t, newPlugin())
	if err := c.h.Configure(c.config()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) config(more ...any) value.Dict {
	return sdktest.Dict(append([]any{
		"server", c.url, "token", c.user, "ca_file", c.ca, "namespaces", sdktest.Texts("shop"), "nodes", sdktest.Texts("node-*"), "least", 1, "most", 4,
	}, more...)...)
}

// node makes a node that is ready, as its kubelet would.
func (c *cluster) node(name string) {
	c.t.Helper()
	c.must(http.MethodPost, "/api/v1/nodes", dict{"metadata": dict{"name": name}}, nil)
	c.must(http.MethodPatch, "/api/v1/nodes/"+name+"/status", dict{"status": dict{"conditions": []dict{
		{"type": "Ready", "status": "True", "reason": "KubeletReady"}, {"type": "DiskPressure", "status": "True", "reason": "KubeletHasDiskPressure"},
	}}}, nil)
}

func labels(name string) dict { return dict{"app": name} }

// deploy makes a deployment, whose pods go at once when they are told to, and puts its pods onto a node.
func (c *cluster) deploy(name, node string, replicas int) {
	c.t.Helper()
	c.create(name, replicas)
	for _, pod := range c.podsOf(name, replicas) {
		c.place(pod, node)
	}
}

func (c *cluster) create(name string, replicas int) {
	c.t.Helper()
	c.must(http.MethodPost, "/apis/apps/v1/namespaces/shop/deployments", dict{
		"metadata": dict{"name": name},
		"spec": dict{
			"replicas": replicas, "selector": dict{"matchLabels": labels(name)},
			"template": dict{"metadata": dict{"labels": labels(name)}, "spec": dict{"terminationGracePeriodSeconds": 0, "containers": []dict{{"name": "c", "image": name + ":1"}}}},
		},
	}, nil)
}

type item struct {
	Metadata struct{ Name, UID, DeletionTimestamp string }
	Spec     struct{ NodeName string }
}

// podsOf are the names of so many pods, once they are there.
func (c *cluster) podsOf(name string, replicas int) []string {
	c.t.Helper()
	var names []string
	c.wait(fmt.Sprintf("%d pods of %s", replicas, name), func() bool {
		var list struct{ Items []item }
		c.must(http.MethodGet, "/api/v1/namespaces/shop/pods?labelSelector=app="+name, nil, &list)
		names = nil
		for _, p := range list.Items {
			names = append(names, p.Metadata.Name)
		}
		return len(names) == replicas
	})
	slices.Sort(names)
	return names
}

// place does what the scheduler and the kubelet would do.
func (c *cluster) place(pod, node string) {
	c.t.Helper()
	c.must(http.MethodPost, "/api/v1/namespaces/shop/pods/"+pod+"/binding", dict{"metadata": dict{"name": pod}, "target": dict{"kind": "Node", "name": node}}, nil)
	c.must(http.MethodPatch, "/api/v1/namespaces/shop/pods/"+pod+"/status", dict{"status": dict{
		"phase": "Running", "conditions": []dict{{"type": "Ready", "status": "True"}},
		"containerStatuses": []dict{{
			"name": "c", "image": "x", "imageID": "x", "ready": true, "restartCount": 3,
			"state": dict{"waiting": dict{"reason": "CrashLoopBackOff"}}, "lastState": dict{"terminated": dict{"exitCode": 137, "reason": "OOMKilled"}},
		}},
	}}, nil)
}

// wait polls. What was written down needs no time.
func (c *cluster) wait(what string, done func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if c.real != "" {
			time.Sleep(200 * time.Millisecond) //nolint:forbidigo // a poll
		}
		if time.Now().After(deadline) || c.t.Failed() {
			c.t.Fatalf("it does not come: %s", what)
		}
	}
}

// one is the only element of an answer, or the one with a name.
func (c *cluster) one(function, name string, args value.Dict) value.Value {
	c.t.Helper()
	for _, v := range c.h.Ask(function, args).(value.List) {
		if n := sdktest.Field(v, "name"); name == "" || n == value.String(name) {
			return v
		}
	}
	c.t.Fatalf("%s has no %q", function, name)
	return nil
}

func (c *cluster) deployment(name string) string {
	c.t.Helper()
	return string(sdktest.Field(c.one("deployments", name, sdktest.Dict("namespace", "shop")), "deployment").(value.String))
}

func (c *cluster) nodeNamed(name string) string {
	c.t.Helper()
	return string(sdktest.Field(c.one("nodes", name, nil), "node").(value.String))
}

func (c *cluster) podNamed(name string) string {
	c.t.Helper()
	return string(sdktest.Field(c.one("pods", name, sdktest.Dict("namespace", "shop")), "pod").(value.String))
}

func action(key, function string, args ...any) sdktest.Action {
	return sdktest.Action{Function: function, Args: sdktest.Dict(args...), Key: key, Target: sdk.Target{Key: "cluster=c1", Name: "c1"}, Timeout: 20 * time.Second}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "queries")
	c.deploy("web", "node-1", 2)
	c.wait("the deployment to be ready", func() bool {
		return sdktest.Field(c.one("deployments", "web", sdktest.Dict("namespace", "shop")), "ready") == value.Int(2)
	})
	is := func(v value.Value, fields ...any) {
		t.Helper()
		for _, e := range sdktest.Dict(fields...) {
			if got := sdktest.Field(v, string(e.Key.(value.String))); fmt.Sprint(got) != fmt.Sprint(e.Value) {
				t.Errorf("%s is %v, want %v", e.Key, got, e.Value)
			}
		}
	}
	is(c.one("deployments", "web", sdktest.Dict("selector", "")), "namespace", "shop", "wanted", 2, "updated", 2, "available", 2, "revision", 1, "stuck", "", "paused", false)
	is(c.one("pods", "", sdktest.Dict("selector", "app=web")), "namespace", "shop", "phase", "Running", "ready", true, "restarts", 3, "reason", "CrashLoopBackOff", "last_reason", "OOMKilled",
		"node", "node-1", "owner", "deployment/web", "leaving", false)
	is(c.one("nodes", "node-1", nil), "ready", true, "reason", "KubeletReady", "cordoned", false, "pressure", sdktest.Texts("DiskPressure"))
	if l := c.h.Ask("pods", sdktest.Dict("node", "node-2")).(value.List); len(l) != 0 {
		t.Errorf("pods on node-2: %v", l)
	}
	is(c.one("events", "", sdktest.Dict("namespace", "shop", "object", "deployment/web")), "type", "Normal", "reason", "ScalingReplicaSet")
	if _, err := c.h.Query(t.Context(), "pods", sdktest.Dict("selector", "===")); err == nil {
		t.Error("a selector that is none is accepted")
	}
}

func TestDeployments(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "deployments")
	c.deploy("web", "node-1", 2)
	web := c.deployment("web")

	// Scale: a dry run, a no, the thing itself; once, and within bounds.
	scale := action("key-1", "scale", "deployment", web, "replicas", 3)
	plan, err := c.h.Plan(scale)
	if err != nil || plan.GetChanges()[0].GetBefore() != "2 replicas" || plan.GetChanges()[0].GetAfter() != "3 replicas" {
		t.Errorf("plan: %v %v", plan, err)
	}
	no := scale
	no.Decline = true
	if out := c.h.Act(no); !out.Declined {
		t.Errorf("%+v", out)
	}
	out := c.h.Expect(scale, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	c.podsOf("web", 3)
	c.h.Probes(scale, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	c.h.Expect(scale, pluginpb.Outcome_OUTCOME_NO_CHANGE, "has been done to it under this key")
	c.h.Expect(action("key-2", "scale", "deployment", web, "replicas", 2), pluginpb.Outcome_OUTCOME_NOT_STARTED, "was changed since it was looked at")
	web = c.deployment("web")
	c.h.Expect(action("key-2", "scale", "deployment", web, "replicas", 3), pluginpb.Outcome_OUTCOME_NO_CHANGE, "it has 3 replicas")
	c.h.Expect(action("key-2", "scale", "deployment", web, "replicas", 5), pluginpb.Outcome_OUTCOME_NOT_STARTED, "5 is not from 1 to 4")
	c.h.Expect(action("key-2", "scale", "deployment", web, "replicas", 0), pluginpb.Outcome_OUTCOME_NOT_STARTED, "0 is not from 1 to 4")
	// A receipt of before an action that was never sent: what has the key of before was not changed.
	var r receipt
	if err := json.Unmarshal(out.Receipt, &r); err != nil || r.Key != "" {
		t.Errorf("receipt %s: %v", out.Receipt, err)
	}
	unsent := []byte(fmt.Sprintf(`{"object":%q,"version":"1","key":"key-1"}`, web))
	c.h.Probes(action("key-2", "scale", "deployment", web, "replicas", 2), unsent, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	c.h.Probes(action("key-2", "scale", "deployment", web, "replicas", 2), []byte(strings.Replace(string(unsent), "key-1", "key-0", 1)), pluginpb.ProbeState_PROBE_STATE_UNKNOWN)

	// Restart and undo: each is a rollout.
	rollout := func(want int) {
		t.Helper()
		c.wait(fmt.Sprintf("revision %d", want), func() bool {
			return sdktest.Field(c.one("deployments", "web", sdktest.Dict("namespace", "shop")), "revision") == value.Int(want)
		})
		web = c.deployment("web")
	}
	c.h.Expect(action("key-3", "undo_rollout", "deployment", web), pluginpb.Outcome_OUTCOME_NOT_STARTED, "has no revision before 1")
	restart := action("key-3", "restart_rollout", "deployment", web)
	if plan, err = c.h.Plan(restart); err != nil || !strings.HasPrefix(plan.GetChanges()[0].GetBefore(), "revision 1") {
		t.Errorf("plan: %v %v", plan, err)
	}
	out = c.h.Expect(restart, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	rollout(2)
	c.h.Probes(restart, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	c.h.Expect(restart, pluginpb.Outcome_OUTCOME_NO_CHANGE, "has been done to it under this key")
	undo := action("key-4", "undo_rollout", "deployment", web)
	if plan, err = c.h.Plan(undo); err != nil || plan.GetChanges()[0].GetAfter() != "the pods of revision 1" {
		t.Errorf("plan: %v %v", plan, err)
	}
	out = c.h.Expect(undo, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	rollout(3)
	c.h.Probes(undo, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)

	// Only where the connection allows it, and only the very one.
	other := strings.Replace(web, "shop/", "kube-system/", 1)
	c.h.Expect(action("key-5", "restart_rollout", "deployment", other), pluginpb.Outcome_OUTCOME_NOT_STARTED, "does not allow to act on namespace kube-system")
	c.must(http.MethodDelete, "/apis/apps/v1/namespaces/shop/deployments/web", nil, nil)
	c.create("web", 1)
	c.h.Expect(action("key-5", "restart_rollout", "deployment", web), pluginpb.Outcome_OUTCOME_NOT_STARTED, "was made anew since it was looked at")
	c.h.Probes(undo, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
}

func TestPods(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "pods")
	c.deploy("web", "node-1", 2)
	first, second := c.podsOf("web", 2)[0], c.podsOf("web", 2)[1]

	one := c.podNamed(first)
	del := action("key-1", "delete_pod", "pod", one)
	plan, err := c.h.Plan(del)
	if err != nil || plan.GetChanges()[0].GetBefore() != "Running on node-1, of deployment/web" {
		t.Errorf("plan: %v %v", plan, err)
	}
	out := c.h.Expect(del, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	c.h.Probes(del, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	c.h.Expect(del, pluginpb.Outcome_OUTCOME_NO_CHANGE, "is gone, or going")
	c.podsOf("web", 2) // another one was made

	// The disruption budget decides about an eviction, and not about a deletion.
	c.must(http.MethodPost, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", dict{"metadata": dict{"name": "web"}, "spec": dict{"minAvailable": 2, "selector": dict{"matchLabels": labels("web")}}}, nil)
	c.wait("the budget to be known", func() bool {
		var b struct{ Status struct{ ExpectedPods int } }
		c.must(http.MethodGet, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web", nil, &b)
		return b.Status.ExpectedPods == 2
	})
	two := c.podNamed(second)
	evict := action("key-2", "evict_pod", "pod", two)
	if _, err := c.h.Plan(evict); err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("plan: %v", err)
	}
	out = c.h.Expect(evict, pluginpb.Outcome_OUTCOME_FAILED, "the disruption budget of shop/"+second+" does not let it go now")
	c.h.Probes(evict, out.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	c.must(http.MethodDelete, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web", nil, nil)
	out = c.h.Expect(evict, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	c.h.Probes(evict, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)

	// Another pod of the same name, as a stateful set makes them, is another pod.
	db := func() {
		c.must(http.MethodPost, "/api/v1/namespaces/shop/pods", dict{"metadata": dict{"name": "db-0"}, "spec": dict{"terminationGracePeriodSeconds": 0, "containers": []dict{{"name": "c", "image": "db:1"}}}}, nil)
	}
	db()
	old := c.podNamed("db-0")
	c.must(http.MethodDelete, "/api/v1/namespaces/shop/pods/db-0", dict{"gracePeriodSeconds": 0}, nil)
	db()
	for _, function := range []string{"delete_pod", "evict_pod"} {
		c.h.Expect(action("key-3", function, "pod", old), pluginpb.Outcome_OUTCOME_NO_CHANGE, "pod shop/db-0 is gone, or going")
	}
	if now := c.podNamed("db-0"); now == old {
		t.Error("the pod that was made anew is the old one")
	}
	c.h.Expect(action("key-3", "delete_pod", "pod", "shop/db-0"), pluginpb.Outcome_OUTCOME_NOT_STARTED, `pod: "shop/db-0" is not the name of one`)
}

func TestNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "nodes")
	c.deploy("web", "node-1", 2)
	node := c.nodeNamed("node-1")

	cordon := action("key-1", "cordon", "node", node)
	plan, err := c.h.Plan(cordon)
	if err != nil || plan.GetChanges()[0].GetAfter() != "cordoned true" {
		t.Errorf("plan: %v %v", plan, err)
	}
	out := c.h.Expect(cordon, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	c.h.Probes(cordon, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	c.h.Expect(cordon, pluginpb.Outcome_OUTCOME_NO_CHANGE, "is so already")
	uncordon := action("key-2", "uncordon", "node", node)
	out = c.h.Expect(uncordon, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	c.h.Probes(uncordon, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	if v := sdktest.Field(c.one("nodes", "node-1", nil), "cordoned"); v != value.Bool(false) {
		t.Errorf("cordoned: %v", v)
	}

	// A drain does not begin where something would be lost that nothing makes anew.
	c.must(http.MethodPost, "/api/v1/namespaces/shop/pods", dict{"metadata": dict{"name": "lone"}, "spec": dict{"nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": []dict{{"name": "c", "image": "lone:1"}}}}, nil)
	drain := action("key-3", "drain", "node", node)
	c.h.Expect(drain, pluginpb.Outcome_OUTCOME_NOT_STARTED, "nothing would make these pods anew: shop/lone")
	c.must(http.MethodDelete, "/api/v1/namespaces/shop/pods/lone", dict{"gracePeriodSeconds": 0}, nil)
	if plan, err = c.h.Plan(drain); err != nil || len(plan.GetChanges()) != 3 || !strings.HasPrefix(plan.GetChanges()[1].GetWhat(), "evict shop/web-") {
		t.Errorf("plan: %v %v", plan, err)
	}
	out = c.h.Expect(drain, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if n := sdktest.Field(out.Value, "evicted"); n != value.Int(2) {
		t.Errorf("%v", out.Value)
	}
	if l := c.h.Ask("pods", sdktest.Dict("node", "node-1")).(value.List); len(l) != 0 {
		t.Errorf("left on the node: %v", l)
	}
	c.h.Probes(drain, out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	c.h.Expect(drain, pluginpb.Outcome_OUTCOME_NO_CHANGE, "has no pod that would be evicted")

	c.h.Expect(action("key-4", "cordon", "node", strings.Replace(node, "node-1", "master", 1)), pluginpb.Outcome_OUTCOME_NOT_STARTED, "does not allow to act on node master")
	// A machine that was replaced has the same name, and is another node.
	c.must(http.MethodDelete, "/api/v1/nodes/node-1", nil, nil)
	c.node("node-1")
	for _, function := range []string{"cordon", "uncordon", "drain"} {
		c.h.Expect(action("key-5", function, "node", node), pluginpb.Outcome_OUTCOME_NOT_STARTED, "is another one than the one that was looked at")
	}
	c.h.Probes(drain, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
}

// Who may not is told, with what is missing.
func TestWithoutLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "leave")
	c.deploy("web", "node-1", 1)
	web := c.deployment("web")
	c.must(http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/runbook", nil, nil)
	c.wait("the role to be gone", func() bool {
		_, err := c.h.Query(t.Context(), "pods", nil)
		return err != nil && strings.Contains(err.Error(), `pods is forbidden: User "runbook" cannot list resource "pods"`)
	})
	c.h.Expect(action("key-1", "restart_rollout", "deployment", web), pluginpb.Outcome_OUTCOME_NOT_STARTED, "is forbidden")
}

// The CronJob of docs/schedule.md is one that the API server takes, with every field known to it.
func TestCronJob(t *testing.T) {
	t.Parallel()
	c := &cluster{tape: newTape(t, "cronjob"), t: t}
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "schedule.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile("(?s)```yaml\n(apiVersion: batch/v1\n.*?)```").FindSubmatch(docs)
	if text == nil {
		t.Fatal("docs/schedule.md has no CronJob")
	}
	var job dict
	if err := yaml.Unmarshal(text[1], &job); err != nil {
		t.Fatal(err)
	}
	var made struct {
		Spec struct {
			Schedule, ConcurrencyPolicy string
			JobTemplate                 struct{ Spec struct{ BackoffLimit int } }
		}
	}
	c.must(http.MethodPost, "/apis/batch/v1/namespaces/default/cronjobs?fieldValidation=Strict", job, &made)
	if made.Spec.Schedule != "* * * * *" || made.Spec.ConcurrencyPolicy != "Forbid" || made.Spec.JobTemplate.Spec.BackoffLimit != 0 {
		t.Errorf("%+v", made)
	}
}
