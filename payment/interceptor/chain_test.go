package interceptor

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestACallIsCountedByTheCodeThatItsCallerGets(t *testing.T) {
	calls, err := NewCalls("server", prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[codes.Code]error{
		codes.OK: nil, codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded, codes.NotFound: status.Error(codes.NotFound, ""), codes.Unknown: errors.New("a bug"),
	} {
		_, _ = calls.Server(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/p.S/M"}, func(context.Context, any) (any, error) { return nil, err })
		if n := testutil.ToFloat64(calls.total.WithLabelValues("p.S", "M", want.String())); n != 1 {
			t.Errorf("%s is counted %v times", want, n)
		}
	}
	if n := testutil.CollectAndCount(calls.failed); n != 4 {
		t.Errorf("%d kinds of failures are counted, want 4", n)
	}
}

func TestAPanicIsAnErrorThatSaysNothing(t *testing.T) {
	_, err := Recover(slog.New(slog.DiscardHandler))(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("canary") })
	if status.Code(err) != codes.Internal || status.Convert(err).Message() != "the service failed; its log says where" {
		t.Errorf("got %v", err)
	}
}

func TestACallIsBoundedUnlessItsContextEndsEarlier(t *testing.T) {
	now := time.Now()
	short, cancel := context.WithDeadline(t.Context(), now.Add(time.Minute))
	defer cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		want time.Duration
	}{"no deadline": {t.Context(), time.Hour}, "an earlier one": {short, time.Minute}} {
		_ = Timeout(time.Hour)(c.ctx, "", nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if deadline, _ := ctx.Deadline(); deadline.Sub(now).Round(time.Minute) != c.want {
				t.Errorf("%s: the call ends in %s, want %s", name, deadline.Sub(now), c.want)
			}
			return nil
		})
	}
}
