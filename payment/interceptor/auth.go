package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/policy"
)

// Proof is what a method asks of its callers.
type Proof int

const (
	// WorkloadAndUser asks which workload calls, whether a rule lets it in, and for which user it calls.
	WorkloadAndUser Proof = iota
	// Workload asks which workload calls, and whether a rule lets it in.
	Workload
	// Nothing asks nothing.
	Nothing
)

// HealthMethods are the methods of gRPC's health service, each with the same proof.
func HealthMethods(proof Proof) map[string]Proof {
	return map[string]Proof{
		healthv1.Health_Check_FullMethodName: proof, healthv1.Health_Watch_FullMethodName: proof, healthv1.Health_List_FullMethodName: proof,
	}
}

// Rules decide which workload may call which method.
type Rules interface {
	Decide(caller spiffeid.ID, fullMethod string) policy.Verdict
}

// Auth lets calls in that prove which workload sends them and for which user. A proof that is there and wrong refuses the
// call; none takes the place of the other.
type Auth struct {
	// Service is the process's own SPIFFE ID, for the log.
	Service string
	// Methods are the full names of the methods that may be called at all. Any other is refused.
	Methods map[string]Proof
	// Rules say which workload may call what; nil, workloads need no identity: in development only.
	Rules Rules
	// TrustXFCC takes a caller's SPIFFE ID from what a sidecar on loopback says, instead of its certificate.
	TrustXFCC bool
	// Tokens verifies the user's token; nil where no method asks for a user.
	Tokens *Tokens
	// Denied counts what is refused; nil, nothing does.
	Denied *Denials
	// Log says why calls are refused; the caller is told less.
	Log *slog.Logger
}

// Identity is who calls.
type Identity struct {
	// Workload is the process at the other end; zero in development.
	Workload spiffeid.ID
	// Rule is the name of the rule that let it in.
	Rule string
	// User is for whom it calls; zero where the method does not ask.
	User User
}

// User is an end user: a subject means something only together with who vouches for it.
type User struct{ Issuer, Subject string }

type identityKey struct{}

// IdentityOf is who calls, for a handler behind Auth.
func IdentityOf(ctx context.Context) (Identity, bool) {
	identity, found := ctx.Value(identityKey{}).(Identity)
	return identity, found
}

// Denials counts refused calls. Its labels are bounded: a server's methods and the reasons.
type Denials struct{ total *prometheus.CounterVec }

// The reasons beside those of a policy.
const (
	noWorkload    policy.Reason = "workload_unproved"
	noUser        policy.Reason = "user_unproved"
	methodUnknown policy.Reason = "method_unknown"
)

// NewDenials registers the metric.
func NewDenials(registerer prometheus.Registerer) (*Denials, error) {
	d := &Denials{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "grpc_server_denied_total", Help: "Calls that were refused before they reached their method, by the reason; the log names each caller.",
	}, []string{"service", "method", "reason"})}
	return d, registerer.Register(d.total)
}

func (d *Denials) count(fullMethod string, reason policy.Reason) {
	if d == nil {
		return
	}
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	d.total.WithLabelValues(service, method, string(reason)).Inc()
}

// Unary authenticates unary calls.
func (a *Auth) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := a.authenticate(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream authenticates streams, once: what begins goes on when its rule is taken away, until the server ends the connection
// for its age.
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

// authenticate takes one proof after the other. Who is not known to be let in learns nothing of the next.
func (a *Auth) authenticate(ctx context.Context, method string) (context.Context, error) {
	need, known := a.Methods[method] // the full name, to the letter: no prefix, no missing slash (CVE-2026-33186)
	if known && need == Nothing {
		return ctx, nil
	}
	var identity Identity
	headers, _ := metadata.FromIncomingContext(ctx)
	err := claims(headers)
	if err == nil && a.Rules != nil {
		identity.Workload, err = a.workload(ctx, headers)
	}
	if err != nil {
		return nil, a.deny(ctx, method, identity, policy.Verdict{Reason: noWorkload}, err.Error())
	}
	if !known {
		return nil, a.deny(ctx, method, identity, policy.Verdict{Reason: methodUnknown}, "the method is not on the list")
	}
	if a.Rules != nil {
		verdict := a.Rules.Decide(identity.Workload, method)
		if !verdict.Allowed {
			return nil, a.deny(ctx, method, identity, verdict, "no rule lets this workload call this method")
		}
		identity.Rule = verdict.Rule
	}
	if need == WorkloadAndUser {
		if identity.User, err = a.user(headers.Get("authorization")); err != nil {
			return nil, a.deny(ctx, method, identity, policy.Verdict{Reason: noUser}, err.Error())
		}
	}
	return context.WithValue(ctx, identityKey{}, identity), nil
}

// deny tells the operator all, and the caller only which kind of refusal it is.
func (a *Auth) deny(ctx context.Context, method string, identity Identity, verdict policy.Verdict, explanation string) error {
	a.Denied.count(method, verdict.Reason)
	line := []any{"service", a.Service, "method", method, "reason", string(verdict.Reason), "explanation", explanation}
	if !identity.Workload.IsZero() {
		line = append(line, "caller", identity.Workload.String())
	}
	if verdict.Nearest != "" {
		line = append(line, "nearest_rule", verdict.Nearest)
	}
	if from, found := peer.FromContext(ctx); found {
		line = append(line, "peer", from.Addr.String())
	}
	a.Log.WarnContext(ctx, "call denied", line...)
	if verdict.Reason == noWorkload || verdict.Reason == noUser {
		return status.Error(codes.Unauthenticated, "the call does not prove who sends it: the service's log says which proof failed")
	}
	return status.Error(codes.PermissionDenied, "the caller may not call this method: the service's log says why")
}

// claims refuses metadata that looks like an identity: an ID there is a claim of whoever typed it.
func claims(headers metadata.MD) error {
	for name := range headers {
		if strings.Contains(name, "spiffe") {
			return fmt.Errorf("the metadata key %q: an identity is proved, not sent", name)
		}
	}
	return nil
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

func (a *Auth) user(headers []string) (User, error) {
	if a.Tokens == nil {
		return User{}, errors.New("the service has no keys to verify a user's token with")
	}
	if len(headers) != 1 {
		return User{}, fmt.Errorf("%d headers authorization: want one", len(headers))
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return User{}, errors.New("the header authorization has no bearer token")
	}
	return a.Tokens.Verify(token)
}
