//go:build programs

package kubetest

import (
	_ "go.etcd.io/etcd/server/v3/etcdmain" // its main package is the module itself
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)
