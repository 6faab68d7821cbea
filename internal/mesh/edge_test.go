package mesh_test

import (
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
)

// edge is a gateway and the services that are exposed at it, all of one namespace, which it admits.
type edge struct {
	mesh.Objects
}

const publicKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

var publicGateway = types.NamespacedName{Namespace: "edge", Name: "public"}

func newEdge(t testing.TB) *edge {
	t.Helper()
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{mesh.Objects{Cluster: cluster, Descriptors: &descriptor.Cache{}}}
	g := meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: publicGateway.Namespace, Name: publicGateway.Name}}
	g.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443}}
	g.Spec.JWT = []meshv1alpha1.JWTProvider{{Name: "users", Issuer: "i", Audiences: []string{"a"}, JWKS: meshv1alpha1.ConfigMapKey{ConfigMap: "jwks", Key: "k"}}}
	g.Spec.Routes = []meshv1alpha1.RouteGrant{{Name: "all", Namespaces: []meshv1alpha1.NamespaceName{"pay"}, Hostnames: []meshv1alpha1.HostnamePattern{"*.example.com"}}}
	e.Gateways = append(e.Gateways, g)
	e.ConfigMaps = append(e.ConfigMaps, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "jwks"}, Data: map[string]string{"k": publicKeys}})
	e.identify(publicGateway, meshv1alpha1.LabelGateway)
	return e
}

// addGateway adds a gateway as the first is.
func (e *edge) addGateway(name string) {
	g := *e.Gateways[0].DeepCopy()
	g.Name = name
	e.Gateways = append(e.Gateways, g)
	e.identify(types.NamespacedName{Namespace: g.Namespace, Name: name}, meshv1alpha1.LabelGateway)
}

func (e *edge) identify(key types.NamespacedName, label string) {
	identity := meshv1alpha1.ServiceIdentity{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	identity.Spec.ServiceAccountName, identity.Spec.PodLabels = key.Name, map[string]meshv1alpha1.LabelValue{label: meshv1alpha1.LabelValue(key.Name)}
	identity.Status.Conditions = []metav1.Condition{{Type: meshv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}
	e.Identities = append(e.Identities, identity)
}

// add adds a service of the namespace that exposes at the host name, as JSON, what its descriptor set has.
func (e *edge) add(namespace, name string, created int64, hostname string, descriptors []byte) *meshv1alpha1.MeshService {
	s := meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.Unix(created, 0)}}
	s.Spec.Workload.Image = "i"
	s.Spec.Ports = []meshv1alpha1.ServicePort{{Name: "grpc", Port: 8081, Protocol: meshv1alpha1.ProtocolGRPC}}
	s.Spec.API = &meshv1alpha1.API{DescriptorSet: meshv1alpha1.ConfigMapKey{ConfigMap: meshv1alpha1.ResourceName(name), Key: "k"}}
	s.Spec.Expose = []meshv1alpha1.Exposure{{
		Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public", Namespace: "edge"}, Hostnames: []meshv1alpha1.Hostname{meshv1alpha1.Hostname(hostname)},
		Methods: []meshv1alpha1.ExactMethod{"t.S/*"}, Transcode: true, Auth: meshv1alpha1.ExposureAuth{JWT: "users"},
	}}
	e.Services = append(e.Services, s)
	e.ConfigMaps = append(e.ConfigMaps, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, BinaryData: map[string][]byte{"k": descriptors}})
	e.identify(types.NamespacedName{Namespace: namespace, Name: name}, meshv1alpha1.LabelService)
	return e.service(name)
}

func (e *edge) service(name string) *meshv1alpha1.MeshService {
	for i := range e.Services {
		if e.Services[i].Name == name {
			return &e.Services[i]
		}
	}
	return nil
}

// publish has a service serve these paths instead.
func (e *edge) publish(name string, paths ...string) {
	for i := range e.ConfigMaps {
		if e.ConfigMaps[i].Name == name {
			e.ConfigMaps[i].BinaryData = map[string][]byte{"k": descriptorsWith(0, paths...)}
		}
	}
}

// descriptorsWith is a descriptor set of the service t.S, with a method for each path, and padding messages beside.
func descriptorsWith(padding int, paths ...string) []byte {
	text := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"), Dependency: []string{"google/api/annotations.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M"), Field: []*descriptorpb.FieldDescriptorProto{text("id", 1)}}},
	}
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String("S")}
	for i, path := range paths {
		options := &descriptorpb.MethodOptions{}
		proto.SetExtension(options, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}})
		service.Method = append(service.Method, &descriptorpb.MethodDescriptorProto{Name: proto.String(fmt.Sprintf("M%d", i)), InputType: proto.String(".t.M"), OutputType: proto.String(".t.M"), Options: options})
	}
	file.Service = append(file.Service, service)
	internal := &descriptorpb.ServiceDescriptorProto{Name: proto.String("Internal")} // as a large API has, of which this exposes a part
	for i := range padding {
		message := &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprintf("Padding%d", i))}
		of := proto.String(".t." + message.GetName())
		internal.Method = append(internal.Method, &descriptorpb.MethodDescriptorProto{Name: message.Name, InputType: of, OutputType: of})
		for number := int32(1); number <= 20; number++ {
			message.Field = append(message.Field, text(fmt.Sprintf("field_number_%d", number), number))
		}
		file.MessageType = append(file.MessageType, message)
	}
	if padding > 0 {
		file.Service = append(file.Service, internal)
	}
	raw, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto),
		protodesc.ToFileDescriptorProto(annotations.File_google_api_http_proto),
		protodesc.ToFileDescriptorProto(annotations.File_google_api_annotations_proto), file,
	}})
	if err != nil {
		panic(err)
	}
	return raw
}
