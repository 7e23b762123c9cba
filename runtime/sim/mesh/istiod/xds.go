package istiod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	admin "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	status "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"rutter.dev/rutter/runtime/sim/mesh"
)

// typeSyncz asks for the synchronization of all proxies
// (pilot/pkg/xds/statusgen.go, TypeDebugSyncronization).
const typeSyncz = "istio.io/debug/syncz"

// xds is the aggregated discovery service, for the debug types.
type xds struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	pods          *Pods
	authenticated bool // clients bring a token
}

// StreamAggregatedResources implements the service.
func (x *xds) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	to := address{}
	if p, ok := peer.FromContext(stream.Context()); ok {
		to, _ = p.Addr.(address)
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	sent := map[string]bool{}
	token := strings.TrimPrefix(strings.Join(md.Get("authorization"), ""), "Bearer ")
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if sent[req.ResponseNonce] {
			continue // an acknowledgement; istioctl's first request has a nonce too, of its own making
		}
		if !x.authenticated || token == "" {
			return grpcstatus.Error(codes.Unauthenticated, "authentication required")
		}
		res, err := x.answer(to, req)
		if err != nil {
			return err
		}
		res.Nonce = fmt.Sprintf("%s-%d", to.name, len(sent)+1)
		sent[res.Nonce] = true
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

func (x *xds) answer(to address, req *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	pod, proxies, now := x.pods.self(to)
	if pod == nil {
		return nil, grpcstatus.Error(codes.Unavailable, "server is not ready to serve discovery information")
	}
	out := &discovery.DiscoveryResponse{TypeUrl: req.TypeUrl, VersionInfo: "1"}
	if req.TypeUrl != typeSyncz {
		return out, nil
	}
	// pilot/pkg/xds/xdsgen.go, IstioControlPlaneInstance
	id, err := json.Marshal(struct {
		Component, ID string
		Info          build
	}{"istiod", pod.GetName(), version(pod)})
	if err != nil {
		return nil, err
	}
	out.ControlPlane = &core.ControlPlane{Identifier: string(id)}
	for _, p := range proxies {
		one, err := clientConfig(p, time.Since(now))
		if err != nil {
			return nil, err
		}
		out.Resources = append(out.Resources, one)
	}
	return out, nil
}

// clientConfig is one proxy in the answer (debugSyncz in
// pilot/pkg/xds/statusgen.go). Clients compare its times with their own clock,
// which is ahead of the virtual one by some time.
func clientConfig(p mesh.Proxy, ahead time.Duration) (*anypb.Any, error) {
	meta, err := structpb.NewStruct(map[string]any{"CLUSTER_ID": clusterID, "NAMESPACE": p.Namespace, "ISTIO_VERSION": p.Version})
	if err != nil {
		return nil, err
	}
	cc := &status.ClientConfig{Node: &core.Node{Id: p.ID, Metadata: meta}}
	states := map[mesh.SyncState]status.ConfigStatus{
		mesh.Synced: status.ConfigStatus_SYNCED, mesh.Stale: status.ConfigStatus_STALE,
		mesh.NotSent: status.ConfigStatus_NOT_SENT, mesh.Refused: status.ConfigStatus_ERROR,
	}
	for _, r := range p.Resources {
		g := &status.ClientConfig_GenericXdsConfig{TypeUrl: r.TypeURL, ConfigStatus: states[r.State], LastUpdated: timestamppb.New(r.SentAt.Add(ahead))}
		if r.Error != "" {
			g.ErrorState = &admin.UpdateFailureState{LastUpdateAttempt: timestamppb.New(r.SentAt.Add(ahead)), Details: r.Error}
		}
		cc.GenericXdsConfigs = append(cc.GenericXdsConfigs, g)
	}
	return anypb.New(cc)
}
