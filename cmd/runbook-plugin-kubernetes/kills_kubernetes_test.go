//go:build kubernetes

package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

const webPath = "/apis/apps/v1/namespaces/shop/deployments/web"

// look is the part of a deployment that the effects are seen by.
func (c *cluster) look() (out struct {
	Metadata struct {
		Generation  int
		Annotations map[string]string
	}
	Spec struct {
		Replicas int
		Template struct {
			Spec struct {
				Containers []struct{ Image string }
			}
		}
	}
},
) {
	c.t.Helper()
	c.must(http.MethodGet, webPath, nil, &out)
	return out
}

// loose makes a pod that nothing makes anew, or on a node one of a set that does not exist.
func (c *cluster) loose(name, node string) {
	c.t.Helper()
	pod := dict{
		"metadata": dict{"name": name},
		"spec":     dict{"terminationGracePeriodSeconds": 0, "containers": []dict{{"name": "c", "image": "x:1"}}},
	}
	if node != "" {
		pod["spec"].(dict)["nodeName"] = node
		pod["metadata"].(dict)["ownerReferences"] = []dict{{"apiVersion": "example.com/v1", "kind": "Set", "name": "s", "uid": "00000000-0000-0000-0000-000000000001", "controller": true}}
	}
	c.must(http.MethodPost, "/api/v1/namespaces/shop/pods", pod, nil)
}

func (c *cluster) there(pod string) (uid string) {
	c.t.Helper()
	var p item
	if c.do(http.MethodGet, "/api/v1/namespaces/shop/pods/"+pod, nil, &p) == http.StatusNotFound || p.Metadata.DeletionTimestamp != "" {
		return ""
	}
	return p.Metadata.UID
}

func (c *cluster) cordoned(name string) bool {
	c.t.Helper()
	var n struct{ Spec struct{ Unschedulable bool } }
	c.must(http.MethodGet, "/api/v1/nodes/"+name, nil, &n)
	return n.Spec.Unschedulable
}

func (c *cluster) setCordon(name string, to bool) {
	c.t.Helper()
	c.must(http.MethodPatch, "/api/v1/nodes/"+name, dict{"spec": dict{"unschedulable": to}}, nil)
}

func (c *cluster) suite() sdktest.Suite {
	program, err := filepath.Abs("../../bin/runbook-plugin-kubernetes")
	if err != nil {
		c.t.Fatal(err)
	}
	c.deploy("web", "node-2", 1)
	key := 0
	// Each try has a key of its own: under the same one nothing is done twice.
	newKey := func(a *sdktest.Action) {
		key++
		a.Key = fmt.Sprintf("key-%d", key)
	}
	generation, uid, image := 0, "", 1
	fresh := func(a *sdktest.Action, more ...any) {
		newKey(a)
		generation = c.look().Metadata.Generation
		a.Args = sdktest.Dict(append([]any{"deployment", c.deployment("web")}, more...)...)
	}
	name := "shop/x/00000000-0000-0000-0000-000000000000"
	pods := func(function string) sdktest.Effect {
		return sdktest.Effect{
			Action:   action("key", function, "pod", name),
			Happened: func() bool { return c.there("db-0") != uid },
			Undo: func() {
				c.do(http.MethodDelete, "/api/v1/namespaces/shop/pods/db-0", dict{"gracePeriodSeconds": 0}, nil)
				c.wait("the old pod to be gone", func() bool {
					return c.do(http.MethodGet, "/api/v1/namespaces/shop/pods/db-0", nil, nil) == http.StatusNotFound
				})
				c.loose("db-0", "")
				uid = c.there("db-0")
			},
			Fresh: func(a *sdktest.Action) {
				newKey(a)
				a.Args = sdktest.Dict("pod", c.podNamed("db-0"))
			},
		}
	}
	nodes := func(function string, happened func() bool, undo func()) sdktest.Effect {
		return sdktest.Effect{
			Action: action("key", function, "node", "node-1/00000000-0000-0000-0000-000000000000"), Happened: happened, Undo: undo,
			Fresh: func(a *sdktest.Action) {
				newKey(a)
				a.Args = sdktest.Dict("node", c.nodeNamed("node-1"))
			},
		}
	}
	return sdktest.Suite{
		Argv: []string{program}, Config: c.config(),
		Queries: []sdktest.Question{{Function: "pods"}, {Function: "deployments"}, {Function: "nodes"}, {Function: "events", Args: sdktest.Dict("namespace", "shop")}},
		Effects: []sdktest.Effect{
			{
				Action:   action("key", "scale", "deployment", name+"/1", "replicas", 3),
				Happened: func() bool { return c.look().Spec.Replicas == 3 },
				Undo:     func() { c.must(http.MethodPatch, webPath, dict{"spec": dict{"replicas": 1}}, nil) },
				Fresh:    func(a *sdktest.Action) { fresh(a, "replicas", 3) },
			},
			{
				Action:   action("key", "restart_rollout", "deployment", name+"/1"),
				Happened: func() bool { return c.look().Metadata.Generation != generation },
				Undo:     func() { generation = c.look().Metadata.Generation },
				Fresh:    func(a *sdktest.Action) { fresh(a) },
			},
			{
				Action:   action("key", "undo_rollout", "deployment", name+"/1"),
				Happened: func() bool { return c.look().Metadata.Generation != generation },
				Undo: func() {
					before := c.look().Metadata.Annotations[revision]
					image++
					c.must(http.MethodPatch, webPath, dict{"spec": dict{"template": dict{"spec": dict{"containers": []dict{{"name": "c", "image": fmt.Sprintf("web:%d", image)}}}}}}, nil)
					c.wait("a new revision", func() bool { return c.look().Metadata.Annotations[revision] != before })
					generation = c.look().Metadata.Generation
				},
				Fresh: func(a *sdktest.Action) { fresh(a) },
			},
			pods("delete_pod"),
			pods("evict_pod"),
			nodes("cordon", func() bool { return c.cordoned("node-1") }, func() { c.setCordon("node-1", false) }),
			nodes("uncordon", func() bool { return !c.cordoned("node-1") }, func() { c.setCordon("node-1", true) }),
			nodes("drain", func() bool { return c.cordoned("node-1") && c.there("on-1") == "" && c.there("on-2") == "" }, func() {
				c.setCordon("node-1", false)
				for _, pod := range []string{"on-1", "on-2"} {
					if c.there(pod) == "" {
						c.wait("the old pod to be gone", func() bool {
							return c.do(http.MethodGet, "/api/v1/namespaces/shop/pods/"+pod, nil, nil) == http.StatusNotFound
						})
						c.loose(pod, "node-1")
					}
				}
			}),
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sdktest.Conformance(t, newCluster(t, "").suite())
}

func TestKills(t *testing.T) {
	t.Parallel()
	sdktest.Kills(t, newCluster(t, "").suite(), 50, 20261130)
}

// A disruption budget holds a drain up until its time is over; what is left is said, and the node stays cordoned.
func TestDrainThatHasToWait(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.deploy("web", "node-1", 2)
	c.must(http.MethodPost, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", dict{"metadata": dict{"name": "web"}, "spec": dict{"minAvailable": 1, "selector": dict{"matchLabels": labels("web")}}}, nil)
	c.wait("the budget to let one go", func() bool {
		var b struct {
			Status struct{ DisruptionsAllowed int }
		}
		c.must(http.MethodGet, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web", nil, &b)
		return b.Status.DisruptionsAllowed == 1
	})
	drain := action("key-1", "drain", "node", c.nodeNamed("node-1"))
	drain.Timeout = 8 * time.Second
	out := c.h.Expect(drain, pluginpb.Outcome_OUTCOME_FAILED, "node node-1 is cordoned, 1 pods were evicted, and 1 are left: shop/web-")
	if !strings.Contains(out.Message, "the disruption budget of shop/web-") {
		t.Error(out.Message)
	}
	c.h.Probes(drain, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	if v := sdktest.Field(c.one("nodes", "node-1", nil), "cordoned"); v != value.Bool(true) {
		t.Errorf("cordoned: %v", v)
	}
	// Another one of the set is ready elsewhere: now it gets through.
	for _, pod := range c.podsOf("web", 2) {
		var p item
		c.must(http.MethodGet, "/api/v1/namespaces/shop/pods/"+pod, nil, &p)
		if p.Spec.NodeName == "" {
			c.place(pod, "node-2")
		}
	}
	again := action("key-2", "drain", "node", c.nodeNamed("node-1"))
	c.h.Expect(again, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
}
