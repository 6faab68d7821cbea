package mesh

import "k8s.io/apimachinery/pkg/types"

// What a proxy may have of one type, clusters for example. A proxy that comes to another replica names all that it has in one
// request, with a version each, and what it asks for: the server reads no request that is longer, so that who has more could
// never come again.
const (
	MaxNamed      = 2000
	MaxNamedBytes = 160 << 10
)

// VersionBytes are how much of a SHA-256 is the version of a resource, and the hash that the name of endpoints ends in: enough
// to tell apart what one proxy ever gets.
const VersionBytes = 8

const (
	// versionChars are those of a version, in hexadecimal digits.
	versionChars = 2 * VersionBytes
	// fieldBytes are what the encoding adds to a name and its version.
	fieldBytes = 16
)

// NamedSize is what one resource takes of MaxNamedBytes, by the length of its name.
func NamedSize(name int) int { return 2*name + versionChars + fieldBytes }

// EndpointKey names a port of a service, whose addresses peers are told.
type EndpointKey struct {
	Service  types.NamespacedName
	PortName string
}

// Cluster is the name that every caller's proxy has for the port.
func (k EndpointKey) Cluster() string {
	return k.Service.Namespace + "/" + k.Service.Name + "/" + k.PortName
}

// Endpoints is the name of its addresses, with the hash of the cluster.
func (k EndpointKey) Endpoints(hash string) string { return k.Cluster() + "@" + hash }

// namedSize is what the longer of both names takes.
func (k EndpointKey) namedSize() int { return NamedSize(len(k.Endpoints("")) + versionChars) }
