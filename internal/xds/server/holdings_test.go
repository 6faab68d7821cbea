package server

import (
	"slices"
	"strings"
	"testing"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// want is one cluster, one listener with routes, and endpoints.
func want() wanted {
	return wanted{
		resource.ClusterType: {"c": "1"}, resource.ListenerType: {"l": "1"}, resource.RouteType: {"r": "1"}, resource.EndpointType: {"e": "1"},
	}
}

func TestAProxyIsSyncedWithJustWhatIsWanted(t *testing.T) {
	for name, test := range map[string]struct {
		change func(holdings)
		want   Proxy
	}{
		"all accepted":             {func(holdings) {}, Proxy{Synced: true}},
		"an older route":           {func(h holdings) { h[resource.RouteType].accepted["r"] = "0" }, Proxy{}},
		"no listener":              {func(h holdings) { delete(h[resource.ListenerType].accepted, "l") }, Proxy{}},
		"nothing":                  {func(h holdings) { clear(h) }, Proxy{}},
		"a cluster too many":       {func(h holdings) { h[resource.ClusterType].accepted["x"] = "1" }, Proxy{}},
		"routes of a gone service": {func(h holdings) { h[resource.RouteType].accepted["x"] = "1" }, Proxy{Synced: true}},
		"other endpoints":          {func(h holdings) { h[resource.EndpointType].accepted["e"] = "0" }, Proxy{Synced: true}},
		"rejected": {
			func(h holdings) { h[resource.ListenerType].reject(map[string]string{"l": "1"}, "no") },
			Proxy{NACK: &NACK{TypeURL: resource.ListenerType, Message: "no", Resources: []string{"l"}}},
		},
		"rejected in another version": {
			func(h holdings) { h[resource.ListenerType].reject(map[string]string{"l": "0"}, "no") },
			Proxy{Synced: true},
		},
		"rejected, and no longer wanted": {
			func(h holdings) { h[resource.ListenerType].reject(map[string]string{"x": "1"}, "no") },
			Proxy{Synced: true},
		},
		"rejected endpoints": {
			func(h holdings) { h[resource.EndpointType].reject(map[string]string{"e": "1"}, "no") },
			Proxy{Synced: true, NACK: &NACK{TypeURL: resource.EndpointType, Message: "no", Resources: []string{"e"}}},
		},
		"two types rejected: the first in order is told": {
			func(h holdings) {
				h[resource.ListenerType].reject(map[string]string{"l": "1"}, "no cluster c")
				h[resource.ClusterType].reject(map[string]string{"c": "1"}, "no")
			},
			Proxy{NACK: &NACK{TypeURL: resource.ClusterType, Message: "no", Resources: []string{"c"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := holdings{}
			for typeURL, versions := range want() {
				h[typeURL] = newHeld(versions)
			}
			test.change(h)
			if diff := cmp.Diff(test.want, h.proxy("", want())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			all := toStatus(h, want())
			body, err := proto.Marshal(&statusv3.ClientConfig{GenericXdsConfigs: all})
			if err != nil {
				t.Fatal(err)
			}
			sent := &statusv3.ClientConfig{}
			if err := proto.Unmarshal(body, sent); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, fromStatus(sent.GetGenericXdsConfigs()).proxy("", want())); diff != "" {
				t.Errorf("told to another replica (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnAcceptedVersionEndsARejection(t *testing.T) {
	h := newHeld(map[string]string{"a": "1"})
	h.reject(map[string]string{"a": "2"}, strings.Repeat("é", maxMessageBytes))
	if h.accepted["a"] != "1" || len(h.rejected["a"].message) > maxMessageBytes+len(" ...") || !strings.HasSuffix(h.rejected["a"].message, "é ...") {
		t.Errorf("after the rejection: %v", h)
	}
	h.accept(map[string]string{"a": "3"}, []string{"b"})
	if h.accepted["a"] != "3" || len(h.rejected) > 0 {
		t.Errorf("after the acceptance: %v", h)
	}
	h.accept(nil, []string{"a"})
	if len(h.accepted) > 0 {
		t.Errorf("after the removal: %v", h)
	}
}

func TestAnswersAreMatchedByNonce(t *testing.T) {
	s := &subscription{held: newHeld(nil)}
	s.sent(response{nonce: "1", versions: map[string]string{"a": "1"}})
	s.sent(response{nonce: "2", versions: map[string]string{"b": "1", "c": "1", "d": "1"}})
	for _, nonce := range []string{"", "7"} {
		if known, _, _ := s.answered(nonce, nil); known {
			t.Errorf("nonce %q is known", nonce)
		}
	}
	if _, nack, names := s.answered("2", &rpcstatus.Status{Message: "no"}); !nack || !slices.Equal(names, []string{"b", "c", "d"}) {
		t.Errorf("rejected: %t %v", nack, names)
	}
	if diff := cmp.Diff([][]string{{"b"}, {"c", "d"}}, s.suspects); diff != "" {
		t.Errorf("to be sent apart (-want +got):\n%s", diff)
	}
	if known, nack, _ := s.answered("1", nil); !known || nack || s.held.accepted["a"] != "1" {
		t.Error("the earlier response is not accepted")
	}
	if known, _, _ := s.answered("2", nil); known {
		t.Error("one response is answered twice")
	}
	for range 3 * maxUnanswered {
		s.sent(response{nonce: "x"})
	}
	if len(s.unanswered) > maxUnanswered {
		t.Errorf("%d unanswered responses are remembered", len(s.unanswered))
	}
}
