package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// How often a drain looks, and how long before its time is over it says what is left.
const (
	drainLook = time.Second
	drainSays = 2 * time.Second
)

type nodeArgs struct {
	Node string `rb:"node,required,positional" doc:"node of an answer of nodes()"`
}

type drainArgs struct {
	Node      string `rb:"node,required,positional" doc:"node of an answer of nodes()"`
	Unmanaged bool   `rb:"unmanaged" default:"false" doc:"also pods that nothing would make anew"`
	LocalData bool   `rb:"local_data" default:"false" doc:"also pods with data in an emptyDir, which is lost"`
}

// node registers an action that cordons a node, or lifts that.
func node(p *sdk.Plugin, x *plugin, name, doc string, cordoned bool, opts []sdk.Option) {
	sdk.ActionFunc(p, name, doc, func(call *sdk.Call, a nodeArgs) (nodeState, error) {
		n, err := x.findNode(call, a.Node)
		if err != nil {
			return nodeState{}, err
		}
		if n.Spec.Unschedulable == cordoned {
			return stateNode(n), sdk.NoChange("node %s is so already: cordoned %v", n.Name, cordoned)
		}
		if err := x.begin(call, a.Node, n.ObjectMeta); err != nil {
			return nodeState{}, err
		}
		if n, err = x.setCordon(call, n, call.Key, cordoned, false); err != nil {
			return nodeState{}, x.sent(err)
		}
		return stateNode(n), nil
	}, opts...)
	sdk.PlanFunc(p, name, func(ctx context.Context, _ sdk.Target, a nodeArgs) (sdk.Plan, error) {
		n, err := x.findNode(ctx, a.Node)
		if err != nil {
			return sdk.Plan{}, err
		}
		if n.Spec.Unschedulable == cordoned {
			return sdk.Plan{NoChange: true}, nil
		}
		if _, err := x.setCordon(ctx, n, "dry-run", cordoned, true); err != nil {
			return sdk.Plan{}, x.explain(err)
		}
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: name + " " + n.Name, Before: fmt.Sprintf("cordoned %v", !cordoned), After: fmt.Sprintf("cordoned %v", cordoned)}}}, nil
	})
	sdk.ProbeFunc(p, name, func(ctx context.Context, pr sdk.Probe, a nodeArgs) (sdk.ProbeAnswer, error) {
		o, err := parse("node", a.Node, nodeName)
		if err != nil {
			return sdk.ProbeAnswer{}, err
		}
		return x.probe(ctx, pr, a.Node, func() (meta.Object, error) { return x.core.Nodes().Get(ctx, o.name, meta.GetOptions{}) }, o.uid)
	})
}

func (x *plugin) findNode(ctx context.Context, full string) (*core.Node, error) {
	o, err := parse("node", full, nodeName)
	if err != nil {
		return nil, err
	}
	if err := allow.Check("nodes", x.config.Nodes, "node ", o.name); err != nil {
		return nil, err
	}
	n, err := x.core.Nodes().Get(ctx, o.name, meta.GetOptions{})
	switch {
	case err != nil:
		return nil, x.explain(err)
	case n.UID != o.uid:
		return nil, problem.New(problem.ActionFailed, "node %s is another one than the one that was looked at", o.name)
	}
	return n, nil
}

// begin asks for leave to act on an object.
func (x *plugin) begin(call *sdk.Call, full string, m meta.ObjectMeta) error {
	before, err := json.Marshal(receipt{full, m.ResourceVersion, m.Annotations[keyAnnotation]})
	if err != nil {
		return err
	}
	return call.Begin(before)
}

// setCordon changes this version of a node, and the next one if only its status was changed meanwhile, as its kubelet does all the time.
func (x *plugin) setCordon(ctx context.Context, n *core.Node, key string, cordoned, dry bool) (*core.Node, error) {
	opts := meta.PatchOptions{FieldManager: "runbook"}
	if dry {
		opts.DryRun = []string{meta.DryRunAll}
	}
	for i := 0; ; i++ {
		body, err := json.Marshal(map[string]any{"metadata": fence(n.ObjectMeta, key), "spec": map[string]any{"unschedulable": cordoned}})
		if err != nil {
			return nil, err
		}
		done, err := x.core.Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, body, opts)
		if err == nil || !apierrors.IsConflict(err) || i == tries {
			return done, err
		}
		now, gerr := x.core.Nodes().Get(ctx, n.Name, meta.GetOptions{})
		if gerr != nil || now.UID != n.UID || now.Spec.Unschedulable != n.Spec.Unschedulable {
			return nil, err
		}
		n = now
	}
}

// leaving are the pods of a node that a drain evicts, and why it must not.
func (x *plugin) leaving(ctx context.Context, a drainArgs, name string) (pods []core.Pod, err error) {
	list, err := x.core.Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return nil, x.explain(err)
	}
	var unmanaged, local []string
	for _, p := range list.Items {
		owner := meta.GetControllerOf(&p)
		_, static := p.Annotations[core.MirrorPodAnnotationKey]
		over := p.Status.Phase == core.PodSucceeded || p.Status.Phase == core.PodFailed
		switch {
		case static || owner != nil && owner.Kind == "DaemonSet":
			continue
		case owner == nil && !over && !a.Unmanaged:
			unmanaged = append(unmanaged, p.Namespace+"/"+p.Name)
		}
		for _, v := range p.Spec.Volumes {
			if v.EmptyDir != nil && !over && !a.LocalData {
				local = append(local, p.Namespace+"/"+p.Name)
				break
			}
		}
		pods = append(pods, p)
	}
	switch {
	case len(unmanaged) > 0:
		return nil, problem.New(problem.ActionFailed, "nothing would make these pods anew: %s", strings.Join(unmanaged, ", ")).WithHint("unmanaged = True evicts them all the same")
	case len(local) > 0:
		return nil, problem.New(problem.ActionFailed, "these pods have data on the node: %s", strings.Join(local, ", ")).WithHint("local_data = True evicts them all the same")
	}
	return pods, nil
}

// drained is how far a drain came.
type drained struct {
	Node    string   `rb:"node"`
	Evicted int      `rb:"evicted"`
	Left    []string `rb:"left"`
}

func (x *plugin) drain(call *sdk.Call, a drainArgs) (drained, error) {
	n, err := x.findNode(call, a.Node)
	if err != nil {
		return drained{}, err
	}
	out := drained{Node: n.Name, Left: []string{}}
	pods, err := x.leaving(call, a, n.Name)
	if err != nil {
		return out, err
	}
	if n.Spec.Unschedulable && len(pods) == 0 {
		return out, sdk.NoChange("node %s is cordoned, and has no pod that would be evicted", n.Name)
	}
	if err := x.begin(call, a.Node, n.ObjectMeta); err != nil {
		return out, err
	}
	if _, err := x.setCordon(call, n, call.Key, true, false); err != nil {
		return out, x.sent(err)
	}
	asked := map[types.UID]bool{}
	why := ""
	for {
		out.Left = out.Left[:0]
		for _, p := range pods {
			out.Left = append(out.Left, p.Namespace+"/"+p.Name)
			if p.DeletionTimestamp != nil || asked[p.UID] {
				continue
			}
			err := x.evictPod(call, object{namespace: p.Namespace, name: p.Name, uid: p.UID}, false)
			var said *problem.Problem
			switch {
			case err == nil:
				asked[p.UID] = true
				out.Evicted++
			case apierrors.IsNotFound(err), apierrors.IsConflict(err): // it went by itself
			case errors.As(err, &said):
				why = said.Message
			default:
				return out, x.sent(err)
			}
		}
		if len(pods) == 0 {
			return out, nil
		}
		call.Progress("%d evicted, %d left: %s", out.Evicted, len(out.Left), strings.Join(out.Left, ", "))
		if end, ok := call.Deadline(); ok && time.Until(end) < drainSays+drainLook {
			return out, problem.New(problem.ActionFailed, "node %s is cordoned, %d pods were evicted, and %d are left: %s; %s", n.Name, out.Evicted, len(out.Left), strings.Join(out.Left, ", "), why).
				WithHint("run it again to go on, or uncordon the node")
		}
		select {
		case <-call.Done():
			return out, sdk.Unknown(context.Cause(call))
		case <-time.After(drainLook):
		}
		if pods, err = x.leaving(call, drainArgs{a.Node, true, true}, n.Name); err != nil {
			return out, sdk.Unknown(err)
		}
	}
}

func (x *plugin) planDrain(ctx context.Context, _ sdk.Target, a drainArgs) (sdk.Plan, error) {
	n, err := x.findNode(ctx, a.Node)
	if err != nil {
		return sdk.Plan{}, err
	}
	pods, err := x.leaving(ctx, a, n.Name)
	if err != nil {
		return sdk.Plan{}, err
	}
	plan := sdk.Plan{NoChange: n.Spec.Unschedulable && len(pods) == 0}
	if !n.Spec.Unschedulable {
		if _, err := x.setCordon(ctx, n, "dry-run", true, true); err != nil {
			return sdk.Plan{}, x.explain(err)
		}
		plan.Changes = append(plan.Changes, sdk.PlannedChange{What: "cordon " + n.Name})
	}
	for _, p := range pods {
		what := "evict " + p.Namespace + "/" + p.Name
		var said *problem.Problem
		switch err := x.evictPod(ctx, object{namespace: p.Namespace, name: p.Name, uid: p.UID}, true); {
		case errors.As(err, &said):
			what += ", which has to wait: " + said.Message
		case err != nil && !apierrors.IsNotFound(err):
			return sdk.Plan{}, x.explain(err)
		}
		plan.Changes = append(plan.Changes, sdk.PlannedChange{What: what, Before: owner(p.ObjectMeta)})
	}
	return plan, nil
}

// probeDrain tells done from not begun. In between a person is asked: a drain that is begun again goes on where it was.
func (x *plugin) probeDrain(ctx context.Context, p sdk.Probe, a drainArgs) (sdk.ProbeAnswer, error) {
	o, err := parse("node", a.Node, nodeName)
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	cordoned, err := x.probe(ctx, p, a.Node, func() (meta.Object, error) { return x.core.Nodes().Get(ctx, o.name, meta.GetOptions{}) }, o.uid)
	if err != nil || cordoned.State != sdk.ProbeDone {
		return cordoned, err
	}
	pods, err := x.leaving(ctx, drainArgs{a.Node, true, true}, o.name)
	switch {
	case err != nil:
		return sdk.ProbeAnswer{}, err
	case len(pods) == 0:
		return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: "it is cordoned, and no pod is left"}, nil
	}
	return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: fmt.Sprintf("it is cordoned, and %d pods are left", len(pods))}, nil
}
