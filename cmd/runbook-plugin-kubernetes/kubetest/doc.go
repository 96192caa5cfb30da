// Package kubetest pins the programs of a cluster that make test-kubernetes builds: etcd, the API server and the controllers. It is a module of its own, because it is all of
// Kubernetes.
package kubetest
