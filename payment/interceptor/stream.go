package interceptor

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ServerStream counts the streams that this process answers, when they end.
func (c *Calls) ServerStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	start := time.Now()
	err := handler(server, stream)
	c.count(info.FullMethod, start, err)
	return err
}

// ClientStream counts the streams that this process opens, when they end: the caller reads to the end or cancels.
func (c *Calls) ClientStream(ctx context.Context, description *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	start := time.Now()
	return open(ctx, description, conn, method, append(opts, grpc.OnFinish(func(err error) { c.count(method, start, err) }))...)
}

// EndStreams ends the streams' contexts with a context of the server's: whoever watches has no end of its own to wait for.
func EndStreams(ending context.Context) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(ending, cancel)
		defer stop()
		return handler(server, &streamWith{stream, ctx})
	}
}

// LogStream writes one line a stream, when it ends, with as little in it as Log's.
func LogStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		start := time.Now()
		err := handler(server, stream)
		logCall(stream.Context(), log, info.FullMethod, start, err)
		return err
	}
}

// RecoverStream is Recover for streams.
func RecoverStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if recover() != nil {
				err = panicked(stream.Context(), log, info.FullMethod, debug.Stack())
			}
		}()
		return handler(server, stream)
	}
}

// ValidateStream is Validate for each message that a stream brings.
func ValidateStream(validator protovalidate.Validator) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(server, &validated{stream, validator})
	}
}

type validated struct {
	grpc.ServerStream
	validator protovalidate.Validator
}

func (v *validated) RecvMsg(message any) error {
	if err := v.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	return validate(v.validator, message)
}

func panicked(ctx context.Context, log *slog.Logger, method string, stack []byte) error {
	log.ErrorContext(ctx, "a handler panicked", "method", method, "stack", string(stack))
	return status.Error(codes.Internal, "the service failed; its log says where")
}

func logCall(ctx context.Context, log *slog.Logger, method string, start time.Time, err error) {
	line := []any{"method", method, "code", codeOf(err).String(), "seconds", time.Since(start).Seconds()}
	if identity, found := IdentityOf(ctx); found && !identity.Workload.IsZero() {
		line = append(line, "caller", identity.Workload.String(), "rule", identity.Rule)
	}
	log.InfoContext(ctx, "call", line...)
}
