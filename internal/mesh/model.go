package mesh

import (
	"cmp"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// The kinds, as problems and proxies name them.
const (
	KindServiceIdentity = "ServiceIdentity"
	KindMeshService     = "MeshService"
	KindMeshGateway     = "MeshGateway"
)

// DefaultTimeout bounds a call of a dependency that says nothing else; in seconds.
const DefaultTimeout = 15

// Service is an accepted MeshService.
type Service struct {
	Key types.NamespacedName `json:"key"`
	// ID is the SPIFFE ID that the service asks for. Its own proxy asks for it by this name; what peers rely on is Trusted.
	ID spiffeid.ID `json:"id"`
	// Trusted says that the ID is known to be this service's: its ServiceIdentity exists and is accepted. Peers name no other.
	Trusted bool `json:"trusted,omitempty"`
	// Identity is the ServiceIdentity that the service uses.
	Identity types.NamespacedName `json:"identity"`
	// NewIdentity is the spec of the ServiceIdentity to create; nil where one is referred to.
	NewIdentity *meshv1alpha1.ServiceIdentitySpec `json:"newIdentity,omitempty"`
	// ServiceAccountName is that of the pods; NewServiceAccount says that it is to be created.
	ServiceAccountName string                 `json:"serviceAccountName"`
	NewServiceAccount  bool                   `json:"newServiceAccount,omitempty"`
	DataPlane          meshv1alpha1.DataPlane `json:"dataPlane"`
	Ports              []Port                 `json:"ports,omitempty"` // sorted by MeshPort
	Workload           meshv1alpha1.Workload  `json:"workload"`
	// Dependencies are all of dependsOn, sorted by name, whether the callee consents or not: what the process is told of them
	// must not change, and so roll its pods, because somebody else's allow did.
	Dependencies []Dependency `json:"dependencies,omitempty"`
	Upstreams    []Upstream   `json:"upstreams,omitempty"` // sorted by name
	Rules        []Rule       `json:"rules,omitempty"`     // sorted by name and port
	// Foreign are rules for callers of other trust domains, whom a sidecar does not take: see BesideLibrary.
	Foreign []Rule `json:"foreign,omitempty"` // sorted as Rules
	// UnusedAllows are the names of the allow rules whose MeshService does not call this one: either it does not exist, or it
	// has no dependency on this one that resolves, or it is not accepted. Sorted; to be reported, and nothing else.
	UnusedAllows []string                  `json:"unusedAllows,omitempty"`
	Egress       []meshv1alpha1.EgressRule `json:"egress,omitempty"` // sorted by name
	// Exposures are what is to be recorded, in the object's status, of where the service is served: sorted by name.
	Exposures []meshv1alpha1.ExposureRecord `json:"exposures,omitempty"`
}

// BesideLibrary is the service as it is to be rendered for its pods without a sidecar, which run until the last has been
// replaced when dataPlane becomes Sidecar: they still take whom they took.
func (s Service) BesideLibrary() Service {
	s.Rules = slices.SortedFunc(slices.Values(slices.Concat(s.Rules, s.Foreign)), compareRules)
	return s
}

func compareRules(x, y Rule) int {
	return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.PortName, y.PortName))
}

// Port is a port of a service.
type Port struct {
	Name string `json:"name"`
	// Port is where the process listens on loopback.
	Port int32 `json:"port"`
	// MeshPort is where peers reach it with mTLS: of the proxy, or of the process with dataPlane Library.
	MeshPort int32                 `json:"meshPort"`
	Protocol meshv1alpha1.Protocol `json:"protocol"`
}

// Dependency is what a process is told of a service that it calls.
type Dependency struct {
	Name      string               `json:"name"`
	Service   types.NamespacedName `json:"service"`
	LocalPort int32                `json:"localPort"`
	// Timeout is zero where the spec says nothing.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// ID and MeshPort are the callee's; zero while there is no such service or port, or its ID is not known to be its own.
	ID       spiffeid.ID `json:"id,omitzero"`
	MeshPort int32       `json:"meshPort,omitempty"`
}

// Upstream is a dependency that may be called: the callee is there, trusted, and allows it.
type Upstream struct {
	Name      string               `json:"name"`
	Service   types.NamespacedName `json:"service"`
	ID        spiffeid.ID          `json:"id"` // who must answer
	PortName  string               `json:"portName"`
	MeshPort  int32                `json:"meshPort"`
	LocalPort int32                `json:"localPort"`
	Timeout   metav1.Duration      `json:"timeout"`
}

// Rule lets one caller call methods of a service.
type Rule struct {
	// Name is that of the allow, or expose:<name> for the gateway of an exposure.
	Name string      `json:"name"`
	ID   spiffeid.ID `json:"id"`
	// Caller are the pods that have the ID; zero for a caller outside the cluster, to whom the network is open.
	Caller Caller `json:"caller,omitzero"`
	// Methods are package.Service/Method, package.Service/* or *; sorted.
	Methods []string `json:"methods"`
	// PortName limits the rule to one port; empty, it is for all. A caller that depends on several ports has one rule each,
	// all of them with the name of the allow.
	PortName string `json:"portName,omitempty"`
}

// Caller is the object whose pods call.
type Caller struct {
	Kind string               `json:"kind,omitempty"` // KindMeshService or KindMeshGateway
	Key  types.NamespacedName `json:"key,omitzero"`
}

// Gateway is an accepted MeshGateway.
type Gateway struct {
	Key         types.NamespacedName              `json:"key"`
	ID          spiffeid.ID                       `json:"id"`
	Trusted     bool                              `json:"trusted,omitempty"`
	Identity    types.NamespacedName              `json:"identity"`
	NewIdentity *meshv1alpha1.ServiceIdentitySpec `json:"newIdentity,omitempty"`
	// ServiceAccountName is that of the pods. It is created for the gateway, except where spec.identity.name refers to a
	// ServiceIdentity: whoever made that one has the ServiceAccount, too.
	ServiceAccountName string            `json:"serviceAccountName"`
	NewServiceAccount  bool              `json:"newServiceAccount,omitempty"`
	Listeners          []GatewayListener `json:"listeners"`        // sorted by TargetPort
	JWT                []JWTProvider     `json:"jwt,omitempty"`    // sorted by name
	Routes             []Route           `json:"routes,omitempty"` // sorted by service and name
	// Gone are the records of listeners that are not there any more, and whose target ports no other has got.
	Gone     []meshv1alpha1.ListenerRecord `json:"gone,omitempty"`
	Replicas int32                         `json:"replicas"`
	Spec     *meshv1alpha1.MeshGatewaySpec `json:"-"` // resources and service type, which renderers take as they are
}

// GatewayListener is a port with TLS of a gateway.
type GatewayListener struct {
	Name string `json:"name"`
	// Port is that of the Service, TargetPort the proxy's.
	Port       int32  `json:"port"`
	TargetPort int32  `json:"targetPort"`
	SecretName string `json:"secretName"`
}

// JWTProvider is an issuer of tokens.
type JWTProvider struct {
	Name      string   `json:"name"`
	Issuer    string   `json:"issuer"`
	Audiences []string `json:"audiences"` // sorted
	JWKS      string   `json:"jwks"`      // its public keys (RFC 7517)
}

// Route is an exposure that a gateway serves.
type Route struct {
	Service types.NamespacedName `json:"service"`
	Name    string               `json:"name"` // of the exposure
	// ID is who must answer; PortName and MeshPort are where.
	ID        spiffeid.ID `json:"id"`
	PortName  string      `json:"portName"`
	MeshPort  int32       `json:"meshPort"`
	Hostnames []string    `json:"hostnames"` // sorted
	Methods   []Method    `json:"methods"`   // sorted by name
	JWT       string      `json:"jwt"`       // the name of the JWTProvider
	Transcode bool        `json:"transcode,omitempty"`
	GRPC      bool        `json:"grpc,omitempty"` // native gRPC passes, too
	// Descriptors are the FileDescriptorSet that transcoding needs: with these methods and no others.
	Descriptors []byte `json:"-"`
}

// Method is a gRPC method.
type Method struct {
	// Service and Name make the path /Service/Name, as in payment.v1.PaymentService and CreatePayment. Name is * for all
	// methods of a service of which no descriptor set tells; then it has no Bindings.
	Service  string               `json:"service"`
	Name     string               `json:"name"`
	Bindings []descriptor.Binding `json:"bindings,omitempty"`
	// Idempotency is the method's idempotency_level: NO_SIDE_EFFECTS, IDEMPOTENT, or empty where nothing is declared.
	Idempotency string `json:"idempotency,omitempty"`
	// Descriptors are those of the method alone, where its exposure shares a host name with others that are transcoded: the
	// paths of exposures can overlap, and which of them is meant the routes say.
	Descriptors []byte `json:"-"`
}

// FullName is package.Service/Method.
func (m Method) FullName() string { return m.Service + "/" + m.Name }

func (r Route) methodNames() []string {
	var names []string
	for _, method := range r.Methods {
		names = append(names, method.FullName())
	}
	return names
}
