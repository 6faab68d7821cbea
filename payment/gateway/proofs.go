package gateway

import (
	"context"

	"github.com/jia-app/paymesh/payment/config"
)

// keyHeader is where the API key goes.
const keyHeader = "x-api-key"

type tokenKey struct{}

// WithToken has calls made with the context carry an end user's token (RFC 6750). Only what is put here is sent: the token
// of a call that a process answers is not passed on by itself.
func WithToken(ctx context.Context, token config.Secret) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// proofs are a call's API key and token. gRPC sends them over TLS only, and fails the call otherwise.
type proofs struct{ key, token config.Secret }

func (c *Client) proofs(ctx context.Context) proofs {
	token, _ := ctx.Value(tokenKey{}).(config.Secret)
	return proofs{key: c.config.APIKey, token: token}
}

// GetRequestMetadata is for gRPC.
func (p proofs) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	headers := map[string]string{}
	if !p.key.IsZero() {
		headers[keyHeader] = p.key.Reveal()
	}
	if !p.token.IsZero() {
		headers["authorization"] = "Bearer " + p.token.Reveal()
	}
	return headers, nil
}

// RequireTransportSecurity is for gRPC: without a proof there is nothing to protect.
func (p proofs) RequireTransportSecurity() bool { return !p.key.IsZero() || !p.token.IsZero() }
