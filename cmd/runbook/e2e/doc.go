// Package e2e tests the real binary against a real Prometheus, which scrapes a service that really gets stuck:
//
//	make test-e2e
package e2e
