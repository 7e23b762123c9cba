package lib

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"istio.io/istio/pilot/pkg/xds"
	"istio.io/istio/pkg/kube"
)

// ProxySync is one proxy as the istiod that it is connected to sees it.
type ProxySync struct {
	Proxy   string // "pod.namespace"
	Istiod  string // pod
	Version string // of the proxy
	// Types maps each xDS type to SYNCED, STALE (sent, not acknowledged), NOT
	// SENT, or REJECTED with the proxy's own words after it.
	Types map[string]string
}

// ErrNoForward is wrapped by SyncStatus's error where the connection cannot
// carry a port forward: that of a simulated cluster in this process, and of a
// rehearsal.
var ErrNoForward = errors.New("this connection forwards no ports")

// SyncStatus asks every running istiod of a namespace for the proxies that are
// connected to it and what they acknowledged (istioctl proxy-status), through a
// port forward: istiod answers its own host without a token. rc may be one that
// only reads. ctx bounds the wait.
func SyncStatus(ctx context.Context, rc *rest.Config, namespace string) ([]ProxySync, error) {
	if rc.Transport != nil || rc.Dial != nil {
		return nil, ErrNoForward
	}
	client, err := kube.NewClient(kube.NewClientConfigForRestConfig(rest.CopyConfig(rc)), "")
	if err != nil {
		return nil, fmt.Errorf("istio client: %w", err)
	}
	cli, ok := client.(kube.CLIClient)
	if !ok {
		return nil, fmt.Errorf("istio client: %T is no CLI client", client)
	}
	type answer struct {
		by  map[string][]byte
		err error
	}
	got := make(chan answer, 1) // the library's port forward takes no context
	go func() {
		by, err := cli.AllDiscoveryDo(ctx, namespace, "debug/syncz")
		got <- answer{by, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case a := <-got:
		if a.err != nil {
			return nil, a.err
		}
		return readSyncz(a.by)
	}
}

// readSyncz reads what istiods answered, by their pods.
func readSyncz(by map[string][]byte) ([]ProxySync, error) {
	var out []ProxySync
	for _, pod := range slices.Sorted(maps.Keys(by)) {
		var list []xds.SyncStatus
		if err := json.Unmarshal(by[pod], &list); err != nil {
			return nil, fmt.Errorf("istiod %s: debug/syncz: %w", pod, err)
		}
		for _, s := range list {
			p := ProxySync{Proxy: s.ProxyID, Istiod: pod, Version: s.IstioVersion, Types: map[string]string{}}
			for _, t := range []struct{ name, sent, acked string }{
				{"CDS", s.ClusterSent, s.ClusterAcked},
				{"LDS", s.ListenerSent, s.ListenerAcked},
				{"RDS", s.RouteSent, s.RouteAcked},
				{"EDS", s.EndpointSent, s.EndpointAcked},
				{"ECDS", s.ExtensionConfigSent, s.ExtensionConfigAcked},
			} {
				p.Types[t.name] = syncWord(t.sent, t.acked, "")
			}
			for name, r := range s.Resources {
				p.Types[name] = syncWord(r.Sent, r.Acked, r.LastError)
			}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b ProxySync) int {
		if a.Proxy < b.Proxy {
			return -1
		}
		return 1
	})
	return out, nil
}

// syncWord is what istioctl calls a state (istioctl/pkg/writer/pilot).
func syncWord(sent, acked, lastError string) string {
	switch {
	case lastError != "":
		return "REJECTED: " + lastError
	case sent == "":
		return "NOT SENT"
	case sent == acked:
		return "SYNCED"
	}
	return "STALE"
}

// SyncTimeout is how long SyncStatus is worth waiting for before the pods are
// counted instead.
const SyncTimeout = 15 * time.Second
