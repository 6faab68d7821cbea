package xds

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	jwtName = "envoy.filters.http.jwt_authn"
	// jwtFailure and jwtPayload are where the filter notes why it refused, and what the token says.
	jwtFailure = "failure"
	jwtPayload = "payload"
	// clockSkew is how far the clocks of issuer and gateway may be apart.
	clockSkew = 30 * time.Second
	// nobody is an issuer of no tokens: it judges whatever has no issuer of its own, so that a route without one is closed.
	// No issuer of a gateway can have this name.
	nobody = "(nobody)"
	// nobodysKey is there because Envoy refuses an issuer without one. Its x is the SHA-256 of "paymesh: nobody has this
	// key 1", the first of the series that is a point of the curve: nobody knows the private half of that.
	nobodysKey = `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","x":"Jkda2Db7BaYUU6rOY0DbeHbjVQmWjRlb7sjcfYyfIJI","y":"SwSCt9dzEZUojiMhEWVNKdLJutp5ELjQsFPFnd6z9fs"}]}`
)

// jwtFilter checks tokens by the requirement that each route names.
func jwtFilter(g mesh.Gateway) *hcmv3.HttpFilter {
	config := &jwtv3.JwtAuthentication{
		Providers:      map[string]*jwtv3.JwtProvider{nobody: provider(mesh.JWTProvider{Issuer: nobody, JWKS: nobodysKey})},
		RequirementMap: map[string]*jwtv3.JwtRequirement{},
		Rules: []*jwtv3.RequirementRule{{
			Match: everything(), RequirementType: &jwtv3.RequirementRule_Requires{Requires: requires(nobody)},
		}},
	}
	for _, p := range g.JWT {
		config.Providers[p.Name] = provider(p)
		config.RequirementMap[p.Name] = requires(p.Name)
	}
	return httpFilter(jwtName, config)
}

// provider takes tokens from the Authorization header alone: one in a URL ends up in logs. The token goes on to the
// service, which checks it again.
func provider(p mesh.JWTProvider) *jwtv3.JwtProvider {
	return &jwtv3.JwtProvider{
		Issuer:    p.Issuer,
		Audiences: p.Audiences,
		JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: strings.ToValidUTF8(p.JWKS, "\uFFFD")},
		}},
		FromHeaders:            []*jwtv3.JwtHeader{{Name: "Authorization", ValuePrefix: "Bearer "}},
		Forward:                true,
		RequireExpiration:      true,
		ClockSkewSeconds:       uint32(clockSkew.Seconds()),
		PayloadInMetadata:      jwtPayload,
		FailedStatusInMetadata: jwtFailure,
	}
}

func requires(provider string) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: provider}}
}

// tokenOf has a route require a token of an issuer.
func tokenOf(provider string) *anypb.Any {
	return pack(&jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: provider}})
}

// noToken is for routes that lead nowhere.
func noToken() *anypb.Any {
	return pack(&jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_Disabled{Disabled: true}})
}
