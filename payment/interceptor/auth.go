package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/store"
)

// Auth lets calls in that prove which workload sends them and for which user. A proof that is there and wrong refuses the
// call; none takes the place of the other.
type Auth struct {
	// Methods are the full names of the methods that authenticated callers may call. Any other is refused, except the health
	// service's.
	Methods []string
	// Callers are the workloads that may call; nil, they need no identity: in development only.
	Callers []spiffeid.ID
	// TrustXFCC takes a caller's SPIFFE ID from what a sidecar on loopback says, instead of its certificate.
	TrustXFCC bool
	// Tokens verifies the user's token.
	Tokens *Tokens
	// Log says why calls are refused; the caller is told less.
	Log *slog.Logger
}

// Identity is who calls.
type Identity struct {
	// Workload is the process at the other end; zero in development.
	Workload spiffeid.ID
	// User is for whom it calls, and who vouches for that.
	User store.Caller
}

type identityKey struct{}

// IdentityOf is who calls, for a handler behind Auth.
func IdentityOf(ctx context.Context) (Identity, bool) {
	identity, found := ctx.Value(identityKey{}).(Identity)
	return identity, found
}

// Unary authenticates unary calls.
func (a *Auth) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := a.authenticate(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream authenticates streams.
func (a *Auth) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := a.authenticate(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(server, &streamWith{stream, ctx})
}

type streamWith struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream has one
}

func (s *streamWith) Context() context.Context { return s.ctx }

func (a *Auth) authenticate(ctx context.Context, method string) (context.Context, error) {
	if method == healthv1.Health_Check_FullMethodName || method == healthv1.Health_Watch_FullMethodName {
		return ctx, nil
	}
	identity, err := a.identify(ctx)
	if err != nil {
		a.Log.WarnContext(ctx, "call refused", "method", method, "reason", err.Error())
		return nil, status.Error(codes.Unauthenticated, "the call does not prove who sends it: the service's log says which proof failed")
	}
	if reason := a.forbids(method, identity); reason != "" {
		a.Log.WarnContext(ctx, "call refused", "method", method, "workload", identity.Workload.String(), "reason", reason)
		return nil, status.Error(codes.PermissionDenied, "the caller may not call this method")
	}
	return context.WithValue(ctx, identityKey{}, identity), nil
}

func (a *Auth) forbids(method string, identity Identity) string {
	known := false
	for _, name := range a.Methods { // the full name, to the letter: no prefix, no missing slash (CVE-2026-33186)
		known = known || name == method
	}
	if !known {
		return "the method is not on the list"
	}
	if a.Callers == nil {
		return ""
	}
	for _, id := range a.Callers {
		if id == identity.Workload {
			return ""
		}
	}
	return "the workload is not in auth.allowed_spiffe_ids"
}

func (a *Auth) identify(ctx context.Context) (identity Identity, err error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	for name := range headers {
		if strings.Contains(name, "spiffe") { // an ID in metadata is a claim of whoever typed it
			return identity, fmt.Errorf("the metadata key %q: an identity is proved, not sent", name)
		}
	}
	if a.Callers != nil {
		if identity.Workload, err = a.workload(ctx, headers); err != nil {
			return identity, err
		}
	}
	identity.User, err = a.user(headers.Get("authorization"))
	return identity, err
}

func (a *Auth) workload(ctx context.Context, headers metadata.MD) (spiffeid.ID, error) {
	from, found := peer.FromContext(ctx)
	if !found {
		return spiffeid.ID{}, errors.New("the connection is unknown")
	}
	if a.TrustXFCC {
		if !isLoopback(from.Addr) {
			return spiffeid.ID{}, errors.New("the connection is not the sidecar's: it does not come from loopback")
		}
		return peerOfXFCC(headers.Get(xfccHeader))
	}
	if len(headers.Get(xfccHeader)) > 0 {
		return spiffeid.ID{}, fmt.Errorf("the header %s: there is no sidecar that sets it", xfccHeader)
	}
	return peerOfTLS(from.AuthInfo)
}

// peerOfTLS is the SPIFFE ID of the certificate that the handshake verified.
func peerOfTLS(info credentials.AuthInfo) (spiffeid.ID, error) {
	tls, is := info.(credentials.TLSInfo)
	if !is || tls.SPIFFEID == nil {
		return spiffeid.ID{}, errors.New("the connection has no certificate with a SPIFFE ID")
	}
	return spiffeid.FromURI(tls.SPIFFEID)
}

func isLoopback(address net.Addr) bool {
	port, err := netip.ParseAddrPort(address.String())
	return err == nil && port.Addr().Unmap().IsLoopback()
}

func (a *Auth) user(headers []string) (store.Caller, error) {
	if len(headers) != 1 {
		return store.Caller{}, fmt.Errorf("%d headers authorization: want one", len(headers))
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return store.Caller{}, errors.New("the header authorization has no bearer token")
	}
	return a.Tokens.Verify(token)
}
