// Command runbook-plugin-kubernetes is the plugin that looks at a Kubernetes cluster, and restarts, rolls back, scales and moves what runs there. It is a program
// of its own, and a module of its own, because of the client library.
//
// Promise: what is acted on is the very object that was looked at: pods, nodes and deployments are named with their uid, a deployment with its generation besides, and each change
// carries the version of the object that it was decided on, so that one that was changed or made anew meanwhile is left alone. Each change carries the
// action's key into an annotation, by which a probe knows it again. Disruption budgets decide about every eviction. What the API server did not answer is unknown,
// never failed.
package main

func main() { newPlugin().Main() }
