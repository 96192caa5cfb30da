package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	apps "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// What an action leaves in the annotations of what it has changed.
const (
	keyAnnotation       = "runbook/key"
	restartedAnnotation = "runbook/restarted-at"
)

// tries is how often a change is tried anew because the status of its object was changed in the very moment.
const tries = 10

type deploymentArgs struct {
	Deployment string `rb:"deployment,required,positional" doc:"deployment of an answer of deployments()"`
}

type scaleArgs struct {
	Deployment string `rb:"deployment,required,positional" doc:"deployment of an answer of deployments()"`
	Replicas   int    `rb:"replicas,required" doc:"how many pods, from the connection's least to its most"`
}

// object names what is acted on.
type object struct {
	namespace, name string
	uid             types.UID
	generation      int64 // of a deployment
}

var (
	deploymentName = regexp.MustCompile(`^([a-z0-9.-]{1,63})/([a-z0-9.-]{1,253})/([0-9a-f-]{36})/(\d{1,18})$`)
	podName        = regexp.MustCompile(`^([a-z0-9.-]{1,63})/([a-z0-9.-]{1,253})/([0-9a-f-]{36})$`)
	nodeName       = regexp.MustCompile(`^()([a-z0-9.-]{1,253})/([0-9a-f-]{36})$`)
)

func parse(what, name string, form *regexp.Regexp) (object, error) {
	m := form.FindStringSubmatch(name)
	if m == nil {
		return object{}, problem.New(problem.Argument, "%s: %.300q is not the name of one", what, name).WithHint("it is the %q of an answer of %ss()", what, what)
	}
	o := object{namespace: m[1], name: m[2], uid: types.UID(m[3])}
	if len(m) > 4 {
		o.generation, _ = strconv.ParseInt(m[4], 10, 64) // its form was looked at
	}
	return o, nil
}

// change is one thing that is done to a deployment: the patch for it as it is now, or nothing if it is so already.
type change struct {
	what string
	of   func(ctx context.Context, d *apps.Deployment, key string) (patch, error)
}

// patch is what is sent. A nil body is nothing to do, and before says why.
type patch struct {
	kind          types.PatchType
	body          []byte
	before, after string
}

// deployment registers an action on one deployment.
func deployment(p *sdk.Plugin, x *plugin, name, doc string, of func(ctx context.Context, d *apps.Deployment, key string) (patch, error), opts []sdk.Option) {
	c := change{name, of}
	sdk.ActionFunc(p, name, doc, func(call *sdk.Call, a deploymentArgs) (deploymentState, error) {
		return x.changeDeployment(call, a.Deployment, c)
	}, opts...)
	sdk.PlanFunc(p, name, func(ctx context.Context, _ sdk.Target, a deploymentArgs) (sdk.Plan, error) {
		return x.planDeployment(ctx, a.Deployment, c)
	})
	sdk.ProbeFunc(p, name, func(ctx context.Context, pr sdk.Probe, a deploymentArgs) (sdk.ProbeAnswer, error) {
		return x.probeDeployment(ctx, pr, a.Deployment)
	})
}

// findDeployment reads a deployment, which has to be the very one, and as it was when it was looked at, unless this action has changed it.
func (x *plugin) findDeployment(ctx context.Context, full, key string) (*apps.Deployment, error) {
	o, err := parse("deployment", full, deploymentName)
	if err != nil {
		return nil, err
	}
	if err := allow.Check("namespaces", x.config.Namespaces, "namespace ", o.namespace); err != nil {
		return nil, err
	}
	d, err := x.apps.Deployments(o.namespace).Get(ctx, o.name, meta.GetOptions{})
	switch {
	case err != nil:
		return nil, x.explain(err)
	case d.UID != o.uid:
		return nil, problem.New(problem.ActionFailed, "deployment %s/%s was made anew since it was looked at", o.namespace, o.name)
	case d.Generation != o.generation && d.Annotations[keyAnnotation] != key:
		return nil, problem.New(problem.ActionFailed, "deployment %s/%s was changed since it was looked at: it is of generation %d, not %d", o.namespace, o.name, d.Generation, o.generation).
			WithHint("somebody may be working on it; look again in the next run")
	}
	return d, nil
}

// receipt is an object as it was before an action.
type receipt struct {
	Object  string `json:"object"`
	Version string `json:"version"`
	Key     string `json:"key"` // in its annotations, from an action before
}

func (x *plugin) changeDeployment(call *sdk.Call, full string, c change) (deploymentState, error) {
	d, err := x.findDeployment(call, full, call.Key)
	if err != nil {
		return deploymentState{}, err
	}
	if d.Annotations[keyAnnotation] == call.Key {
		return stateDeployment(d), sdk.NoChange("%s has been done to it under this key", c.what)
	}
	p, err := c.of(call, d, call.Key)
	if err != nil {
		return deploymentState{}, x.explain(err)
	}
	if p.body == nil {
		return stateDeployment(d), sdk.NoChange("%s", p.before)
	}
	before, err := json.Marshal(receipt{full, d.ResourceVersion, d.Annotations[keyAnnotation]})
	if err != nil {
		return deploymentState{}, err
	}
	if err := call.Begin(before); err != nil {
		return deploymentState{}, err
	}
	for range tries {
		var done *apps.Deployment
		if done, err = x.apps.Deployments(d.Namespace).Patch(call, d.Name, p.kind, p.body, meta.PatchOptions{FieldManager: "runbook"}); err == nil {
			return stateDeployment(done), nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) { // a test of a JSON patch that does not hold is invalid
			break
		}
		// Its status has changed in that moment, or more than that: refused, so nothing was done, and it is looked at again.
		if d, err = x.findDeployment(call, full, call.Key); err != nil {
			return deploymentState{}, err
		}
		if p, err = c.of(call, d, call.Key); err != nil {
			return deploymentState{}, x.explain(err)
		}
		if p.body == nil {
			return stateDeployment(d), sdk.NoChange("%s", p.before)
		}
	}
	return deploymentState{}, x.sent(err)
}

func (x *plugin) planDeployment(ctx context.Context, full string, c change) (sdk.Plan, error) {
	d, err := x.findDeployment(ctx, full, "")
	if err != nil {
		return sdk.Plan{}, err
	}
	p, err := c.of(ctx, d, "dry-run")
	if err != nil {
		return sdk.Plan{}, x.explain(err)
	}
	if p.body == nil {
		return sdk.Plan{NoChange: true}, nil
	}
	if _, err := x.apps.Deployments(d.Namespace).Patch(ctx, d.Name, p.kind, p.body, meta.PatchOptions{DryRun: []string{meta.DryRunAll}}); err != nil {
		return sdk.Plan{}, x.explain(err)
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: c.what + " " + d.Namespace + "/" + d.Name, Before: p.before, After: p.after}}}, nil
}

// probeDeployment looks for the action's key. Where it is, it was done; where the key of before is, it was not, and what is still on its way carries a version
// that has passed or will be seen at the second look.
func (x *plugin) probeDeployment(ctx context.Context, p sdk.Probe, full string) (sdk.ProbeAnswer, error) {
	o, err := parse("deployment", full, deploymentName)
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	return x.probe(ctx, p, full, func() (meta.Object, error) {
		return x.apps.Deployments(o.namespace).Get(ctx, o.name, meta.GetOptions{})
	}, o.uid)
}

// probe compares the key in the annotations of an object with the action's, and with that of before.
func (x *plugin) probe(ctx context.Context, p sdk.Probe, full string, get func() (meta.Object, error), uid types.UID) (sdk.ProbeAnswer, error) {
	var before receipt
	if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Object != full {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this object"}, nil
	}
	return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
		now, err := get()
		switch {
		case apierrors.IsNotFound(err):
			return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "it is gone"}, nil
		case err != nil:
			return sdk.ProbeAnswer{}, x.explain(err)
		case now.GetUID() != uid:
			return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "it was made anew since"}, nil
		}
		switch key := now.GetAnnotations()[keyAnnotation]; key {
		case p.Key:
			return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: "it carries the action's key"}, nil
		case before.Key:
			return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: "it carries no key of this action"}, nil
		}
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "it carries the key of another action, which came after or before"}, nil
	})
}

// fence is the part of a merge patch that makes it one of this version of an object, and leaves the key.
func fence(m meta.ObjectMeta, key string) map[string]any {
	return map[string]any{"uid": m.UID, "resourceVersion": m.ResourceVersion, "annotations": map[string]any{keyAnnotation: key}}
}

// restart changes an annotation of the pods' template, as kubectl rollout restart does.
func (x *plugin) restart(_ context.Context, d *apps.Deployment, key string) (patch, error) {
	if d.Spec.Paused {
		return patch{}, problem.New(problem.ActionFailed, "deployment %s/%s is paused: a restart would do nothing", d.Namespace, d.Name).WithHint("kubectl rollout resume, if that is meant")
	}
	at := time.Now().UTC().Format(time.RFC3339)
	body, err := json.Marshal(map[string]any{
		"metadata": fence(d.ObjectMeta, key),
		"spec":     map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{restartedAnnotation: at, keyAnnotation: key}}}},
	})
	return patch{types.StrategicMergePatchType, body, fmt.Sprintf("revision %s, %d of %d ready", d.Annotations[revision], d.Status.ReadyReplicas, d.Status.Replicas), "a new revision"}, err
}

// undo takes the template of the revision before, as kubectl rollout undo does.
func (x *plugin) undo(ctx context.Context, d *apps.Deployment, key string) (patch, error) {
	sets, err := x.apps.ReplicaSets(d.Namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return patch{}, err
	}
	now, err := strconv.Atoi(d.Annotations[revision])
	if err != nil {
		return patch{}, problem.New(problem.ActionFailed, "deployment %s/%s has had no rollout", d.Namespace, d.Name)
	}
	var last *apps.ReplicaSet
	before := 0
	for i := range sets.Items {
		r := &sets.Items[i]
		n, err := strconv.Atoi(r.Annotations[revision])
		if err == nil && meta.IsControlledBy(r, d) && n < now && n > before {
			last, before = r, n
		}
	}
	if last == nil {
		return patch{}, problem.New(problem.ActionFailed, "deployment %s/%s has no revision before %d", d.Namespace, d.Name, now)
	}
	template := last.Spec.Template.DeepCopy()
	delete(template.Labels, apps.DefaultDeploymentUniqueLabelKey)
	body, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": d.UID},
		{"op": "test", "path": "/metadata/resourceVersion", "value": d.ResourceVersion},
		{"op": "replace", "path": "/spec/template", "value": template},
		{"op": "add", "path": "/metadata/annotations/runbook~1key", "value": key},
	})
	return patch{types.JSONPatchType, body, fmt.Sprintf("revision %d", now), fmt.Sprintf("the pods of revision %d", before)}, err
}

// scaling sets the number of pods.
func (x *plugin) scaling(a scaleArgs) change {
	return change{"scale", func(_ context.Context, d *apps.Deployment, key string) (patch, error) {
		switch {
		case x.config.Most == 0:
			return patch{}, problem.New(problem.Argument, "the connection does not allow to scale").WithHint(`say how far in project.star: config = {"least": 2, "most": 10}`)
		case a.Replicas < x.config.Least || a.Replicas > x.config.Most:
			return patch{}, problem.New(problem.Argument, "replicas: %d is not from %d to %d, as the connection's least and most allow", a.Replicas, x.config.Least, x.config.Most)
		}
		now := stateDeployment(d).Wanted
		if now == a.Replicas {
			return patch{before: fmt.Sprintf("it has %d replicas", now)}, nil
		}
		body, err := json.Marshal(map[string]any{"metadata": fence(d.ObjectMeta, key), "spec": map[string]any{"replicas": a.Replicas}})
		return patch{types.StrategicMergePatchType, body, fmt.Sprintf("%d replicas", now), fmt.Sprintf("%d replicas", a.Replicas)}, err
	}}
}

func (x *plugin) scale(call *sdk.Call, a scaleArgs) (deploymentState, error) {
	return x.changeDeployment(call, a.Deployment, x.scaling(a))
}

func (x *plugin) planScale(ctx context.Context, _ sdk.Target, a scaleArgs) (sdk.Plan, error) {
	return x.planDeployment(ctx, a.Deployment, x.scaling(a))
}

func (x *plugin) probeScale(ctx context.Context, p sdk.Probe, a scaleArgs) (sdk.ProbeAnswer, error) {
	return x.probeDeployment(ctx, p, a.Deployment)
}
