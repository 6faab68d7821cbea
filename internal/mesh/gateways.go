package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// gateway is a MeshGateway on its way into the Mesh. As with a service, only a missing identity keeps all of it out; a jwt
// without keys costs the exposures that name it.
type gateway struct {
	Gateway
	object     *meshv1alpha1.MeshGateway
	identified bool
	// keyless are the names of jwt whose keys cannot be had.
	keyless sets.Set[string]
}

func (b *builder) addGateways() {
	for i := range b.Gateways {
		b.gateways = append(b.gateways, b.newGateway(&b.Gateways[i]))
	}
	slices.SortFunc(b.gateways, func(x, y *gateway) int { return compareKeys(x.Key, y.Key) })
	for _, g := range b.gateways {
		b.gateway[g.Key] = g
	}
}

func (b *builder) newGateway(object *meshv1alpha1.MeshGateway) *gateway {
	spec := &object.Spec
	g := &gateway{object: object, keyless: sets.New[string](), Gateway: Gateway{
		Key: keyOf(object), NewServiceAccount: sourceOf(object).Name == "", Replicas: 1, Spec: spec,
	}}
	if spec.Replicas != nil {
		g.Replicas = *spec.Replicas
	}
	g.Listeners, g.Gone = listenersOf(object)
	p, problem := b.identify(applicant{ProxyKey: ProxyKey{Kind: KindMeshGateway, NamespacedName: g.Key}, object: object})
	b.report(problem)
	g.identified = problem == nil
	g.ID, g.Trusted, g.Identity, g.NewIdentity = p.id, p.trusted && g.identified, p.identity, p.newIdentity
	g.ServiceAccountName = p.serviceAccountName
	b.addProviders(g)
	return g
}

const (
	// maxKeySet is how large a set of keys may be: some hundred of them, where an issuer has a few.
	maxKeySet = 64 << 10
	// maxKeySets is for all of a gateway. Each of its listeners has all of them, and every manager several copies.
	maxKeySets = 256 << 10
)

// addProviders reads the keys of the gateway's token issuers.
func (b *builder) addProviders(g *gateway) {
	size := 0
	for _, provider := range g.object.Spec.JWT {
		name, field := string(provider.Name), item("spec.jwt", string(provider.Name))+".jwks"
		keys, err := b.file(g.object, provider.JWKS)
		if err == nil {
			err = checkSize(len(keys), size)
		}
		if err == nil {
			err = checkKeys(keys)
		}
		if err != nil {
			g.keyless.Insert(name)
			b.report(&Problem{
				Kind: KindMeshGateway, Object: g.Key, Condition: meshv1alpha1.ConditionAccepted, Reason: meshv1alpha1.ReasonKeysInvalid,
				Field: field, Message: fmt.Sprintf("%s: %v", field, err),
			})
			continue
		}
		size += len(keys)
		g.JWT = append(g.JWT, JWTProvider{
			Name: name, Issuer: provider.Issuer, Audiences: slices.Sorted(slices.Values(provider.Audiences)), JWKS: string(keys),
		})
	}
	slices.SortFunc(g.JWT, func(x, y JWTProvider) int { return cmp.Compare(x.Name, y.Name) })
}

// checkSize says whether a gateway has room for a set of keys of some bytes beside others.
func checkSize(bytes, others int) error {
	switch {
	case bytes > maxKeySet:
		return fmt.Errorf("the key set has %d bytes, and may have %d: leave out keys that the issuer signs with no more, and what is not a key", bytes, maxKeySet)
	case bytes+others > maxKeySets:
		return fmt.Errorf("with its %d bytes the key sets of this gateway would have %d, and it has room for %d: make them smaller, or have fewer jwt", bytes, bytes+others, maxKeySets)
	}
	return nil
}

// admits reports whether the gateway's routes let the namespace expose the host name.
func (g *gateway) admits(namespace, hostname string) bool {
	return slices.ContainsFunc(g.object.Spec.Routes, func(grant meshv1alpha1.RouteGrant) bool {
		return slices.Contains(grant.Namespaces, meshv1alpha1.NamespaceName(namespace)) &&
			slices.ContainsFunc(grant.Hostnames, func(pattern meshv1alpha1.HostnamePattern) bool { return matches(string(pattern), hostname) })
	})
}

// matches reports whether the pattern is the host name, or *. and what follows the host name's first label.
func matches(pattern, hostname string) bool {
	if pattern == hostname {
		return true
	}
	parent, wildcard := strings.CutPrefix(pattern, "*.")
	_, rest, found := strings.Cut(hostname, ".")
	return wildcard && found && rest == parent
}

// jwtNames are the names of the gateway's token issuers, for messages.
func (g *gateway) jwtNames() []string {
	var names []string
	for _, provider := range g.object.Spec.JWT {
		names = append(names, string(provider.Name))
	}
	slices.Sort(names)
	return names
}

// file is what a key of a ConfigMap holds that an object refers to. The error says what to do about it.
func (b *builder) file(of metav1.Object, ref meshv1alpha1.ConfigMapKey) ([]byte, error) {
	key := configMapOf(of, ref)
	object := b.configMaps[key]
	if object == nil {
		return nil, fmt.Errorf("there is no ConfigMap %s: create it, with the key %s", key, ref.Key)
	}
	if data, ok := object.BinaryData[string(ref.Key)]; ok {
		return data, nil
	}
	if data, ok := object.Data[string(ref.Key)]; ok {
		return []byte(data), nil
	}
	return nil, fmt.Errorf("ConfigMap %s has no key %s: add it, or choose another key", key, ref.Key)
}
