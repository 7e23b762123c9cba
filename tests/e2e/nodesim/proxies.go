package nodesim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"
)

// dataPlane holds a stream for every running pod with a proxy.
type dataPlane struct {
	find func(revision string) (addr string, ok bool)

	mu      sync.Mutex
	streams map[string]context.CancelFunc // by pod UID
}

// asked are the configurations that a proxy asks for and acknowledges.
var asked = []string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
}

// reconnect is how long a proxy waits for its istiod.
const reconnect = time.Second

func (d *dataPlane) see(ctx context.Context, p *corev1.Pod, gone bool) {
	c := proxyContainer(p)
	if c == nil {
		return
	}
	up := !gone && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && p.Status.PodIP != ""
	d.mu.Lock()
	defer d.mu.Unlock()
	stop := d.streams[string(p.UID)]
	switch {
	case up && stop == nil:
		inner, stop := context.WithCancel(ctx)
		d.streams[string(p.UID)] = stop
		go d.speak(inner, identity(p, c), p.Annotations["istio.io/rev"])
	case !up && stop != nil:
		stop()
		delete(d.streams, string(p.UID))
	}
}

func proxyContainer(p *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if list[i].Name == "istio-proxy" {
				return &list[i]
			}
		}
	}
	return nil
}

// identity is how a proxy introduces itself (istio.io/istio, pkg/bootstrap and
// pkg/model.NodeMetadata).
func identity(p *corev1.Pod, c *corev1.Container) *corepb.Node {
	kind := "sidecar"
	for _, k := range []string{"router", "waypoint"} {
		if slices.Contains(c.Args, k) {
			kind = k
		}
	}
	labels := map[string]any{}
	for k, v := range p.Labels {
		labels[k] = v
	}
	meta, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": p.Namespace, "NAME": p.Name, "SERVICE_ACCOUNT": p.Spec.ServiceAccountName, "NODE_NAME": p.Spec.NodeName,
		"ISTIO_VERSION": imageTag(c.Image), "ISTIO_REVISION": p.Annotations["istio.io/rev"], "CLUSTER_ID": "Kubernetes",
		"INSTANCE_IPS": p.Status.PodIP, "LABELS": labels, "PROXY_CONFIG": map[string]any{},
	})
	if err != nil {
		note("proxy of %s/%s: %v", p.Namespace, p.Name, err)
	}
	return &corepb.Node{
		Id:       fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", kind, p.Status.PodIP, p.Name, p.Namespace, p.Namespace),
		Metadata: meta, UserAgentName: "envoy",
	}
}

// speak keeps a stream to the pod's istiod until its context ends.
func (d *dataPlane) speak(ctx context.Context, self *corepb.Node, revision string) {
	if revision == "" {
		revision = "default"
	}
	for ctx.Err() == nil {
		if addr, ok := d.find(revision); ok {
			if err := stream(ctx, addr, self); err != nil && ctx.Err() == nil {
				note("proxy %s: %v", self.GetId(), err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

// stream asks for configurations and acknowledges what comes.
func stream(ctx context.Context, addr string, self *corepb.Node) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // its stream has ended
	s, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	for _, t := range asked {
		if err := s.Send(&discoverypb.DiscoveryRequest{Node: self, TypeUrl: t}); err != nil {
			return err
		}
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		err = s.Send(&discoverypb.DiscoveryRequest{TypeUrl: r.GetTypeUrl(), VersionInfo: r.GetVersionInfo(), ResponseNonce: r.GetNonce()})
		if err != nil {
			return err
		}
	}
}
