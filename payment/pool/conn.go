package pool

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
)

const healthMethod = healthv1.Health_Check_FullMethodName

const closed = "closed"

// Conn is the connection to one service; generated clients are made on it.
type Conn struct {
	*grpc.ClientConn
	service config.ExternalService
	breaker atomic.Value // its state
	failing atomic.Bool
}

// Service is what it is connected to.
func (c *Conn) Service() config.ExternalService { return c.service }

// Breaker is the circuit breaker's state: closed, half-open or open; empty where there is none.
func (c *Conn) Breaker() string {
	state, _ := c.breaker.Load().(string)
	return state
}

// Failing says that the last call was not answered.
func (c *Conn) Failing() bool { return c.failing.Load() }

// note remembers whether the service answered.
func (c *Conn) note(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := call(ctx, method, request, answer, conn, opts...)
	if err == nil || ctx.Err() == nil { // a caller that gave up says nothing of the service
		code := status.Code(err)
		c.failing.Store(code == codes.Unavailable || code == codes.DeadlineExceeded)
	}
	return err
}

// Check asks the service itself whether it serves (grpc.health.v1), all the way through sidecars. told is false, without an
// error, where it answers and does not say: it has no such service, or does not let this caller call it. So much is then
// known that whoever has its SPIFFE ID is there.
func (c *Conn) Check(ctx context.Context) (told bool, err error) {
	answer, err := healthv1.NewHealthClient(c).Check(ctx, &healthv1.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.OK:
		if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			return true, fmt.Errorf("%s says that it is %s", c.service.Name, answer.GetStatus())
		}
		return true, nil
	case codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return false, nil
	}
	return false, fmt.Errorf("%s does not answer: %w", c.service.Name, err)
}
