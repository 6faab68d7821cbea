package server

import (
	"context"
	"maps"
	"slices"
	"strconv"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
)

// csds tells the manager's replicas what the proxies hold that are connected here (Envoy's client status discovery
// service): names and versions, no contents.
type csds struct {
	statusv3.UnimplementedClientStatusDiscoveryServiceServer
	server *Server
}

// Another replica says with its question what it has been told already (sinceHeader), and is told in one answer a page of
// the objects that have changed since, with all of their proxies, up to which moment that is, and whether there is more
// (moreHeader). A question without it is answered at once with all proxies, as the protocol has it.
const (
	sinceHeader = "paymesh-status-since"
	moreHeader  = "paymesh-status-more"
)

func (c csds) FetchClientStatus(ctx context.Context, request *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	if err := c.authorize(ctx); err != nil {
		return nil, err
	}
	since := metadata.ValueFromIncomingContext(ctx, sinceHeader)
	if len(since) == 0 {
		return c.answer(request)
	}
	p, err := c.server.page(parseMoment(since[0]))
	if err != nil {
		return nil, err
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs(sinceHeader, p.upTo.String(), moreHeader, strconv.FormatBool(p.more))); err != nil {
		return nil, err
	}
	response := &statusv3.ClientStatusResponse{}
	for _, o := range p.objects {
		if len(o.proxies) == 0 { // by its name alone, for what was told of it before
			response.Config = append(response.Config, &statusv3.ClientConfig{Node: &corev3.Node{Id: o.key.String()}})
		}
		response.Config = append(response.Config, o.status()...)
	}
	return response, nil
}

func (c csds) StreamClientStatus(stream statusv3.ClientStatusDiscoveryService_StreamClientStatusServer) error {
	if err := c.authorize(stream.Context()); err != nil {
		return err
	}
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the peer has gone
		}
		response, err := c.answer(request)
		if err != nil {
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// authorize lets in nobody but the manager: what proxies hold tells who calls whom.
func (c csds) authorize(ctx context.Context) error {
	p, err := peerOf(ctx)
	if err != nil {
		return err
	}
	if p.id != c.server.options.Cluster.OperatorID() {
		return (&stream{server: c.server, peer: p.id, remote: p.address}).refuse(reasonNotOperator, codes.PermissionDenied, "the status of proxies is for the manager alone")
	}
	return nil
}

func (c csds) answer(request *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	if len(request.GetNodeMatchers()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "node_matchers are not supported: leave them out, the answer has all proxies")
	}
	response := &statusv3.ClientStatusResponse{}
	objects, since := map[mesh.ProxyKey]object{}, moment{}
	for more := true; more; {
		p, err := c.server.page(since)
		if err != nil {
			return nil, err
		}
		if p.upTo.epoch != since.epoch {
			clear(objects)
		}
		for _, o := range p.objects {
			objects[o.key] = o // it may have changed meanwhile
		}
		since, more = p.upTo, p.more
	}
	for _, o := range objects {
		response.Config = append(response.Config, o.status()...)
	}
	return response, nil
}

func (o object) status() (all []*statusv3.ClientConfig) {
	for pod, h := range o.proxies {
		all = append(all, &statusv3.ClientConfig{Node: &corev3.Node{Id: o.key.NodeID(pod)}, GenericXdsConfigs: toStatus(h, o.wanted)})
	}
	return all
}

// toStatus says what a proxy holds: version_info is the version in force, also beside a rejected one. What is wanted and
// neither accepted nor rejected is REQUESTED. Endpoints are there only where they are rejected.
func toStatus(h holdings, want wanted) []*statusv3.ClientConfig_GenericXdsConfig {
	var all []*statusv3.ClientConfig_GenericXdsConfig
	for _, typeURL := range order {
		names := map[string]struct{}{}
		for name := range h[typeURL].rejected {
			names[name] = struct{}{}
		}
		if slices.Contains(judged, typeURL) {
			for _, of := range []map[string]string{h[typeURL].accepted, want[typeURL]} {
				for name := range of {
					names[name] = struct{}{}
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			version, accepted := h[typeURL].accepted[name]
			one := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: typeURL, Name: name, VersionInfo: version, ClientStatus: adminv3.ClientResourceStatus_REQUESTED}
			if accepted {
				one.ClientStatus = adminv3.ClientResourceStatus_ACKED
			}
			if r, rejected := h[typeURL].rejected[name]; rejected {
				one.ClientStatus = adminv3.ClientResourceStatus_NACKED
				one.ErrorState = &adminv3.UpdateFailureState{Details: r.message, VersionInfo: r.version}
			}
			all = append(all, one)
		}
	}
	return all
}

// fromStatus is the reverse of toStatus.
func fromStatus(all []*statusv3.ClientConfig_GenericXdsConfig) holdings {
	h := holdings{}
	for _, one := range all {
		of, has := h[one.GetTypeUrl()]
		if !has {
			of = newHeld(nil)
			h[one.GetTypeUrl()] = of
		}
		if one.GetVersionInfo() != "" {
			of.accepted[one.GetName()] = one.GetVersionInfo()
		}
		if one.GetClientStatus() == adminv3.ClientResourceStatus_NACKED {
			of.rejected[one.GetName()] = rejection{version: one.GetErrorState().GetVersionInfo(), message: one.GetErrorState().GetDetails()}
		}
	}
	return h
}

// reportsOf sorts a replica's answer by object and pod. An object may have no pods; what has no node ID of ours is left out.
func reportsOf(response *statusv3.ClientStatusResponse) map[mesh.ProxyKey]map[string]holdings {
	reports := map[mesh.ProxyKey]map[string]holdings{}
	for _, of := range response.GetConfig() {
		key, pod, err := mesh.ParseNodeID(of.GetNode().GetId())
		gone := err != nil
		if gone {
			key, _, err = mesh.ParseNodeID(of.GetNode().GetId() + "/none")
		}
		if err != nil {
			continue
		}
		if reports[key] == nil {
			reports[key] = map[string]holdings{}
		}
		if !gone {
			reports[key][pod] = fromStatus(of.GetGenericXdsConfigs())
		}
	}
	return reports
}
