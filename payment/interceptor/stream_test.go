package interceptor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/paymentv1"
)

// The payments that the stream is asked for.
const (
	good   = "pay_0b7f3c1a-0000-4000-8000-000000000000"
	panics = "pay_0b7f3c1a-0000-4000-8000-000000000001"
	gone   = "pay_0b7f3c1a-0000-4000-8000-000000000002"
)

// echo is a service with a stream, which a real gRPC server serves: it answers each message, but for two.
var echo = grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
	StreamName: "Chat", ClientStreams: true, ServerStreams: true,
	Handler: func(_ any, stream grpc.ServerStream) error {
		for {
			message := &paymentv1.GetPaymentRequest{}
			if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			switch message.GetPaymentId() {
			case panics:
				panic("canary")
			case gone:
				return context.Canceled
			}
			if err := stream.SendMsg(message); err != nil {
				return err
			}
		}
	},
}}}

type chat struct {
	client, server *Calls
	log            *logtest.Log
	conn           *grpc.ClientConn
}

func newChat(t *testing.T) *chat {
	t.Helper()
	c := &chat{log: &logtest.Log{}}
	log := slog.New(slog.NewJSONHandler(c.log, nil))
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	if c.server, err = NewCalls("server", registry); err != nil {
		t.Fatal(err)
	}
	if c.client, err = NewCalls("client", registry); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ChainStreamInterceptor(c.server.ServerStream, LogStream(log), RecoverStream(log), ValidateStream(validator)))
	server.RegisterService(&echo, nil)
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	c.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainStreamInterceptor(c.client.ClientStream))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// say sends these, one after the other, and then nothing more. It returns how many were answered, and how it ended.
func (c *chat) say(t *testing.T, ids ...string) (answers int, err error) {
	t.Helper()
	stream, err := c.conn.NewStream(t.Context(), &echo.Streams[0], "/test.Echo/Chat")
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := stream.SendMsg(&paymentv1.GetPaymentRequest{PaymentId: id}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&paymentv1.GetPaymentRequest{}); err != nil {
			return answers, err
		}
		answers++
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&paymentv1.GetPaymentRequest{}); !errors.Is(err, io.EOF) {
		return answers, err
	}
	return answers, nil
}

func TestStreamsAreCountedLoggedValidatedAndSurvived(t *testing.T) {
	for name, c := range map[string]struct {
		ids     []string
		answers int
		code    codes.Code
	}{
		"a stream to its end":       {[]string{good, good}, 2, codes.OK},
		"a message breaks a rule":   {[]string{good, ""}, 1, codes.InvalidArgument},
		"a handler panics":          {[]string{panics}, 0, codes.Internal},
		"a handler's context ended": {[]string{gone}, 0, codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			chat := newChat(t)
			answers, err := chat.say(t, c.ids...)
			if answers != c.answers || status.Code(err) != c.code {
				t.Fatalf("%d answers and %v, want %d and %s", answers, err, c.answers, c.code)
			}
			logtest.Eventually(t, func() bool { return strings.Contains(chat.log.String(), `"code":"`+c.code.String()+`"`) })
			for side, calls := range map[string]*Calls{"client": chat.client, "server": chat.server} {
				logtest.Eventually(t, func() bool {
					return testutil.ToFloat64(calls.total.WithLabelValues("test.Echo", "Chat", c.code.String())) == 1
				})
				if n := testutil.CollectAndCount(calls.failed); (n == 1) != (c.code != codes.OK) {
					t.Errorf("the %s counts %d kinds of failures", side, n)
				}
			}
			if strings.Contains(chat.log.String(), "canary") || strings.Contains(status.Convert(err).Message(), "canary") {
				t.Errorf("shown: %v, %s", err, chat.log)
			}
		})
	}
}

func TestAStreamThatTheCallerLeavesIsCounted(t *testing.T) {
	chat := newChat(t)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := chat.conn.NewStream(ctx, &echo.Streams[0], "/test.Echo/Chat"); err != nil {
		t.Fatal(err)
	}
	cancel()
	for _, calls := range []*Calls{chat.client, chat.server} {
		logtest.Eventually(t, func() bool {
			return testutil.ToFloat64(calls.total.WithLabelValues("test.Echo", "Chat", "Canceled")) == 1
		})
	}
	_ = chat.conn.Close()
	if _, err := chat.conn.NewStream(t.Context(), &echo.Streams[0], "/test.Echo/Chat"); err == nil {
		t.Fatal("a stream on a closed connection")
	}
	if testutil.CollectAndCount(chat.client.failed) != 1 { // Canceled, as gRPC says of a closed connection
		t.Error("a stream that cannot be opened is counted as something else")
	}
	if n := testutil.ToFloat64(chat.client.total.WithLabelValues("test.Echo", "Chat", "Canceled")); n != 2 {
		t.Errorf("%v streams are counted, want 2: one that cannot be opened is one, too", n)
	}
}
