// Package interceptor has what every call to the payment service passes, unary or a stream: the call goes in, and comes out
// counted, logged, authenticated and validated, or refused.
package interceptor

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// Calls counts the calls of one side, server or client, under grpc_<side>_requests_total and so on. Its labels are bounded
// by what is registered: service, method and code.
type Calls struct {
	total, failed *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
}

// NewCalls registers the metrics of a side.
func NewCalls(side string, registerer prometheus.Registerer) (*Calls, error) {
	name := "grpc_" + side + "_"
	c := &Calls{
		total:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "requests_total", Help: "Requests, by their status code."}, []string{"service", "method", "code"}),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "requests_failed_total", Help: "Requests with another status code than OK."}, []string{"service", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "request_duration_seconds", Help: "How long requests took."}, []string{"service", "method"}),
	}
	return c, errors.Join(registerer.Register(c.total), registerer.Register(c.failed), registerer.Register(c.seconds))
}

func (c *Calls) count(fullMethod string, start time.Time, err error) {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	code := codeOf(err).String()
	c.total.WithLabelValues(service, method, code).Inc()
	if err != nil {
		c.failed.WithLabelValues(service, method, code).Inc()
	}
	c.seconds.WithLabelValues(service, method).Observe(time.Since(start).Seconds())
}

// codeOf is the code that the caller gets: gRPC makes a status of what a handler returns of a context.
func codeOf(err error) codes.Code {
	if s, is := status.FromError(err); is {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// Client counts the calls that this process makes.
func (c *Calls) Client(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	err := call(ctx, method, request, answer, conn, opts...)
	c.count(method, start, err)
	return err
}

// Server counts the calls that this process answers.
func (c *Calls) Server(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	answer, err := handler(ctx, request)
	c.count(info.FullMethod, start, err)
	return answer, err
}

// Log writes one line a call, without requests, answers and metadata: no amount, no token, no key, no user. Behind Auth, it
// says which workload called, and by which rule; what Auth denies has Auth's own line.
func Log(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		answer, err := handler(ctx, request)
		logCall(ctx, log, info.FullMethod, start, err)
		return answer, err
	}
}

// Recover answers INTERNAL where what is behind it panics; the log has the stack, the caller does not.
func Recover(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
		defer func() {
			if recover() != nil {
				answer, err = nil, panicked(ctx, log, info.FullMethod, debug.Stack())
			}
		}()
		return handler(ctx, request)
	}
}

// Validate refuses requests that break the rules of their proto, with google.rpc.BadRequest, which names the fields.
func Validate(validator protovalidate.Validator) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := validate(validator, request); err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

func validate(validator protovalidate.Validator, request any) error {
	message, is := request.(proto.Message)
	if !is {
		return status.Error(codes.Internal, "the request is no message")
	}
	err := validator.Validate(message)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return status.Error(codes.Internal, "the request cannot be checked")
	}
	details := &errdetails.BadRequest{}
	for _, violation := range invalid.Violations {
		details.FieldViolations = append(details.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: protovalidate.FieldPathString(violation.Proto.GetField()), Description: violation.Proto.GetMessage(),
		})
	}
	return WithDetails(codes.InvalidArgument, "the request breaks a rule: see the details", details)
}

// Timeout bounds each call that this process makes, where its context has no earlier deadline.
func Timeout(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		limited, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return call(limited, method, request, answer, conn, opts...)
	}
}

// WithDetails makes a status error with details, which clients branch on instead of the text.
func WithDetails(code codes.Code, message string, details ...proto.Message) error {
	plain := status.New(code, message)
	for _, detail := range details {
		with, err := plain.WithDetails(protoadapt.MessageV1Of(detail))
		if err != nil {
			return status.Error(codes.Internal, "the error cannot be described")
		}
		plain = with
	}
	return plain.Err()
}
