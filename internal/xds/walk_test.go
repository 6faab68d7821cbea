package xds_test

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
)

func (p proxy) messages() []proto.Message {
	var all []proto.Message
	for _, l := range p.resources.Listeners {
		all = append(all, l)
	}
	for _, r := range p.resources.Routes {
		all = append(all, r)
	}
	for _, c := range p.resources.Clusters {
		all = append(all, c)
	}
	return all
}

// walk visits a message, whatever is in it, and what is packed in it.
func walk(t *testing.T, m proto.Message, visit func(proto.Message)) {
	t.Helper()
	visit(m)
	if packed, ok := m.(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		walk(t, inner, visit)
		return
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				walk(t, value.Message().Interface(), visit)
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				walk(t, value.List().Get(i).Message().Interface(), visit)
			}
		case !field.IsMap() && !field.IsList() && field.Message() != nil:
			walk(t, value.Message().Interface(), visit)
		}
		return true
	})
}

// each visits the messages of a type.
func each[T proto.Message](t *testing.T, m proto.Message, visit func(T)) {
	t.Helper()
	walk(t, m, func(m proto.Message) {
		if of, ok := m.(T); ok {
			visit(of)
		}
	})
}

func unpack[T proto.Message](t *testing.T, packed *anypb.Any, into T) T {
	t.Helper()
	if err := packed.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
	return into
}

// chains visits the filter chains that take calls.
func (p proxy) chains(t *testing.T, visit func(l *listenerv3.Listener, c *listenerv3.FilterChain, m *hcmv3.HttpConnectionManager)) {
	t.Helper()
	for _, l := range p.resources.Listeners {
		for _, c := range l.GetFilterChains() {
			m := unpack(t, c.GetFilters()[0].GetTypedConfig(), &hcmv3.HttpConnectionManager{})
			if len(c.GetFilters()) != 1 {
				t.Errorf("%s: %s has %d filters", p.key, c.GetName(), len(c.GetFilters()))
			}
			if c.GetFilterChainMatch().GetDestinationPort().GetValue() != mesh.ReadyPort {
				visit(l, c, m)
			}
		}
	}
}

func filterNames(m *hcmv3.HttpConnectionManager) []string {
	var names []string
	for _, f := range m.GetHttpFilters() {
		names = append(names, f.GetName())
	}
	return names
}
