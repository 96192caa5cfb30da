package main

import (
	"context"
	"encoding/json"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

type podArgs struct {
	Pod string `rb:"pod,required,positional" doc:"pod of an answer of pods()"`
}

// pod registers an action that makes one pod go.
func pod(p *sdk.Plugin, x *plugin, name, doc string, do func(ctx context.Context, o object, dry bool) error, opts []sdk.Option) {
	sdk.ActionFunc(p, name, doc, func(call *sdk.Call, a podArgs) (podState, error) { return x.endPod(call, a.Pod, do) }, opts...)
	sdk.PlanFunc(p, name, func(ctx context.Context, _ sdk.Target, a podArgs) (sdk.Plan, error) {
		o, now, err := x.findPod(ctx, a.Pod)
		if err != nil {
			return sdk.Plan{}, err
		}
		if now == nil {
			return sdk.Plan{NoChange: true}, nil
		}
		if err := do(ctx, o, true); err != nil {
			return sdk.Plan{}, x.explain(err)
		}
		s := statePod(now)
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: name + " " + o.namespace + "/" + o.name, Before: s.Phase + " on " + s.Node + ", of " + s.Owner}}}, nil
	})
	sdk.ProbeFunc(p, name, x.probePod)
}

// findPod reads a pod. nil: the very one that is meant is gone, or going.
func (x *plugin) findPod(ctx context.Context, full string) (object, *core.Pod, error) {
	o, err := parse("pod", full, podName)
	if err != nil {
		return o, nil, err
	}
	if err := allow.Check("namespaces", x.config.Namespaces, "namespace ", o.namespace); err != nil {
		return o, nil, err
	}
	p, err := x.core.Pods(o.namespace).Get(ctx, o.name, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return o, nil, nil
	case err != nil:
		return o, nil, x.explain(err)
	case p.UID != o.uid || p.DeletionTimestamp != nil:
		return o, nil, nil
	}
	return o, p, nil
}

// preconditions make a deletion one of the very object.
func (o object) preconditions(dry bool) meta.DeleteOptions {
	d := meta.DeleteOptions{Preconditions: &meta.Preconditions{UID: &o.uid}}
	if dry {
		d.DryRun = []string{meta.DryRunAll}
	}
	return d
}

func (x *plugin) deletePod(ctx context.Context, o object, dry bool) error {
	return x.core.Pods(o.namespace).Delete(ctx, o.name, o.preconditions(dry))
}

func (x *plugin) evictPod(ctx context.Context, o object, dry bool) error {
	d := o.preconditions(dry)
	err := x.policy.Evictions(o.namespace).Evict(ctx, &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: o.name, Namespace: o.namespace}, DeleteOptions: &d})
	if apierrors.IsTooManyRequests(err) {
		return problem.New(problem.ActionFailed, "the disruption budget of %s/%s does not let it go now: %v", o.namespace, o.name, err).Because(err)
	}
	return err
}

func (x *plugin) endPod(call *sdk.Call, full string, do func(ctx context.Context, o object, dry bool) error) (podState, error) {
	o, p, err := x.findPod(call, full)
	if err != nil {
		return podState{}, err
	}
	if p == nil {
		return podState{}, sdk.NoChange("pod %s/%s is gone, or going", o.namespace, o.name)
	}
	before, err := json.Marshal(receipt{Object: full, Version: p.ResourceVersion})
	if err != nil {
		return podState{}, err
	}
	if err := call.Begin(before); err != nil {
		return podState{}, err
	}
	switch err := do(call, o, false); {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // the very pod is not there any more
		return statePod(p), sdk.NoChange("pod %s/%s went by itself", o.namespace, o.name)
	case err != nil:
		return statePod(p), x.sent(err)
	}
	return statePod(p), nil
}

// probePod tells whether the very pod is there and stays. That it went by itself cannot be told apart, and need not be.
func (x *plugin) probePod(ctx context.Context, pr sdk.Probe, a podArgs) (sdk.ProbeAnswer, error) {
	var before receipt
	if err := json.Unmarshal(pr.Receipt, &before); err != nil || before.Object != a.Pod {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this pod"}, nil
	}
	return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
		_, p, err := x.findPod(ctx, a.Pod)
		switch {
		case err != nil:
			return sdk.ProbeAnswer{}, err
		case p == nil:
			return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: "it is gone, or going"}, nil
		}
		return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: "it is there, " + string(p.Status.Phase)}, nil
	})
}
