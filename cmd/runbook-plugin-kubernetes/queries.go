package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// What one answer has at most.
const (
	maxPods   = 5000
	maxEvents = 500
)

type podsArgs struct {
	Namespace string `rb:"namespace,positional" doc:"the namespace; all if not given"`
	Selector  string `rb:"selector" doc:"of labels: app=web,tier!=cache"`
	Node      string `rb:"node" doc:"only on the node of this name"`
}

// podState is one pod.
type podState struct {
	Pod        string        `rb:"pod"` // its name for actions: NAMESPACE/NAME/UID
	Name       string        `rb:"name"`
	Namespace  string        `rb:"namespace"`
	Phase      string        `rb:"phase"` // Pending, Running, Succeeded, Failed, Unknown
	Ready      bool          `rb:"ready"`
	Restarts   int           `rb:"restarts"`    // of all of its containers
	Reason     string        `rb:"reason"`      // why a container waits, or the pod is not scheduled
	LastReason string        `rb:"last_reason"` // how a container ended last
	Node       string        `rb:"node"`
	Owner      string        `rb:"owner"`
	Age        time.Duration `rb:"age"`
	Leaving    bool          `rb:"leaving"` // it is being deleted
}

func (x *plugin) pods(ctx context.Context, a podsArgs) ([]podState, error) {
	opts := meta.ListOptions{LabelSelector: a.Selector, Limit: maxPods}
	if a.Node != "" {
		opts.FieldSelector = "spec.nodeName=" + a.Node
	}
	list, err := x.core.Pods(a.Namespace).List(ctx, opts)
	if err != nil {
		return nil, x.explain(err)
	}
	if list.Continue != "" {
		return nil, problem.New(problem.Argument, "more than %d pods fit", maxPods).WithHint("narrow it with namespace, selector or node")
	}
	out := make([]podState, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, statePod(&list.Items[i]))
	}
	return out, nil
}

func statePod(p *core.Pod) podState {
	s := podState{
		Pod: p.Namespace + "/" + p.Name + "/" + string(p.UID), Name: p.Name, Namespace: p.Namespace, Phase: string(p.Status.Phase), Node: p.Spec.NodeName,
		Owner: owner(p.ObjectMeta), Age: age(p.CreationTimestamp), Leaving: p.DeletionTimestamp != nil, Reason: p.Status.Reason,
	}
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == core.PodReady:
			s.Ready = c.Status == core.ConditionTrue
		case c.Type == core.PodScheduled && c.Status == core.ConditionFalse && s.Reason == "":
			s.Reason = c.Reason
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		s.Restarts += int(c.RestartCount)
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			s.Reason = w.Reason
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			s.LastReason = t.Reason
		}
	}
	return s
}

// owner is what made an object: a pod of a deployment is its replica set's, whose name is the deployment's and a hash.
func owner(m meta.ObjectMeta) string {
	o := meta.GetControllerOf(&m)
	if o == nil {
		return ""
	}
	if hash := m.Labels[apps.DefaultDeploymentUniqueLabelKey]; o.Kind == "ReplicaSet" && hash != "" {
		return "deployment/" + strings.TrimSuffix(o.Name, "-"+hash)
	}
	return strings.ToLower(o.Kind) + "/" + o.Name
}

func age(t meta.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return time.Since(t.Time).Truncate(time.Second)
}

type deploymentsArgs struct {
	Namespace string `rb:"namespace,positional" doc:"the namespace; all if not given"`
	Selector  string `rb:"selector" doc:"of labels: app=web"`
	Name      string `rb:"name" doc:"only the one of this name"`
}

// deploymentState is one deployment.
type deploymentState struct {
	Deployment string        `rb:"deployment"` // its name for actions: NAMESPACE/NAME/UID/GENERATION
	Name       string        `rb:"name"`
	Namespace  string        `rb:"namespace"`
	Wanted     int           `rb:"wanted"`
	Ready      int           `rb:"ready"`
	Updated    int           `rb:"updated"`
	Available  int           `rb:"available"`
	Revision   int           `rb:"revision"`
	Stuck      string        `rb:"stuck"` // ProgressDeadlineExceeded and the like; "" if it is not
	Paused     bool          `rb:"paused"`
	Since      time.Duration `rb:"since"` // since the pods of its revision were first made
}

func (x *plugin) deployments(ctx context.Context, a deploymentsArgs) ([]deploymentState, error) {
	opts := meta.ListOptions{LabelSelector: a.Selector, Limit: maxPods}
	if a.Name != "" {
		opts.FieldSelector = "metadata.name=" + a.Name
	}
	list, err := x.apps.Deployments(a.Namespace).List(ctx, opts)
	if err != nil {
		return nil, x.explain(err)
	}
	sets, err := x.apps.ReplicaSets(a.Namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return nil, x.explain(err)
	}
	out := make([]deploymentState, 0, len(list.Items))
	for i := range list.Items {
		d := &list.Items[i]
		s := stateDeployment(d)
		for _, r := range sets.Items {
			if meta.IsControlledBy(&r, d) && r.Annotations[revision] == d.Annotations[revision] {
				s.Since = age(r.CreationTimestamp)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// revision is where the deployment controller writes down which rollout it was.
const revision = "deployment.kubernetes.io/revision"

func stateDeployment(d *apps.Deployment) deploymentState {
	s := deploymentState{
		Deployment: d.Namespace + "/" + d.Name + "/" + string(d.UID) + "/" + strconv.FormatInt(d.Generation, 10), Name: d.Name, Namespace: d.Namespace, Wanted: 1,
		Ready: int(d.Status.ReadyReplicas), Updated: int(d.Status.UpdatedReplicas), Available: int(d.Status.AvailableReplicas), Paused: d.Spec.Paused,
	}
	if d.Spec.Replicas != nil {
		s.Wanted = int(*d.Spec.Replicas)
	}
	s.Revision, _ = strconv.Atoi(d.Annotations[revision]) // none before its first rollout
	for _, c := range d.Status.Conditions {
		if c.Type == apps.DeploymentProgressing && c.Status == core.ConditionFalse {
			s.Stuck = c.Reason
		}
	}
	return s
}

type nodesArgs struct {
	Selector string `rb:"selector,positional" doc:"of labels: node-role.kubernetes.io/worker; all if not given"`
	Name     string `rb:"name" doc:"only the one of this name"`
}

// nodeState is one node.
type nodeState struct {
	Node     string        `rb:"node"` // its name for actions: NAME/UID
	Name     string        `rb:"name"`
	Ready    bool          `rb:"ready"`
	Reason   string        `rb:"reason"` // of its condition Ready
	Since    time.Duration `rb:"since"`  // since that last changed
	Cordoned bool          `rb:"cordoned"`
	Pressure []string      `rb:"pressure"`
	Age      time.Duration `rb:"age"`
}

func (x *plugin) nodes(ctx context.Context, a nodesArgs) ([]nodeState, error) {
	opts := meta.ListOptions{LabelSelector: a.Selector, Limit: maxPods}
	if a.Name != "" {
		opts.FieldSelector = "metadata.name=" + a.Name
	}
	list, err := x.core.Nodes().List(ctx, opts)
	if err != nil {
		return nil, x.explain(err)
	}
	out := make([]nodeState, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, stateNode(&list.Items[i]))
	}
	return out, nil
}

func stateNode(n *core.Node) nodeState {
	s := nodeState{Node: n.Name + "/" + string(n.UID), Name: n.Name, Cordoned: n.Spec.Unschedulable, Pressure: []string{}, Age: age(n.CreationTimestamp)}
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == core.NodeReady:
			s.Ready, s.Reason, s.Since = c.Status == core.ConditionTrue, c.Reason, age(c.LastTransitionTime)
		case strings.HasSuffix(string(c.Type), "Pressure") && c.Status == core.ConditionTrue:
			s.Pressure = append(s.Pressure, string(c.Type))
		}
	}
	return s
}

type eventsArgs struct {
	Namespace string `rb:"namespace,required,positional" doc:"the namespace"`
	Object    string `rb:"object" doc:"only of this object: pod/web-0"`
}

// event is one event.
type event struct {
	Object  string        `rb:"object"` // kind/name
	Type    string        `rb:"type"`   // Normal or Warning
	Reason  string        `rb:"reason"`
	Message string        `rb:"message"`
	Count   int           `rb:"count"`
	Age     time.Duration `rb:"age"` // since it was last seen
}

func (x *plugin) events(ctx context.Context, a eventsArgs) ([]event, error) {
	list, err := x.core.Events(a.Namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return nil, x.explain(err)
	}
	out := []event{}
	for _, e := range list.Items {
		last := e.LastTimestamp
		if last.IsZero() {
			last = meta.Time{Time: e.EventTime.Time}
		}
		v := event{
			Object: strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name, Type: e.Type, Reason: e.Reason, Message: e.Message, Count: max(1, int(e.Count)), Age: age(last),
		}
		if a.Object == "" || v.Object == a.Object {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(p, q event) int { return cmp.Compare(p.Age, q.Age) })
	return out[:min(len(out), maxEvents)], nil
}
