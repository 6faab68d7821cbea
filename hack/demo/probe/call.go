package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/jia-app/paymesh/payment/contactv1" // the methods that can be called
	_ "github.com/jia-app/paymesh/payment/paymentv1"
)

const (
	// identityTimeout is for the pod's SVID.
	identityTimeout = 30 * time.Second
	callTimeout     = 10 * time.Second
)

// request is a call to make.
type request struct {
	address, method, body string
	plaintext, anonymous  bool
	peer                  string
	wait                  time.Duration
	headers               []string
}

// call makes one gRPC call, and prints the answer as JSON or the status.
func call(ctx context.Context, args []string, out io.Writer) error {
	var r request
	set := flag.NewFlagSet("probe call", flag.ContinueOnError)
	set.BoolVar(&r.plaintext, "plaintext", false, "No TLS.")
	set.BoolVar(&r.anonymous, "anonymous", false, "TLS without a certificate of one's own.")
	set.StringVar(&r.peer, "peer", "", "The SPIFFE ID that must answer; without it, anybody of the trust domain.")
	set.DurationVar(&r.wait, "wait", callTimeout, "How long to try again while the port is not open.")
	set.Func("header", "KEY=VALUE to send; can be given again.", func(text string) error {
		key, value, found := strings.Cut(text, "=")
		if !found {
			return errors.New("want KEY=VALUE")
		}
		r.headers = append(r.headers, key, value)
		return nil
	})
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 3 {
		return errors.New("call: want HOST:PORT PACKAGE.SERVICE/METHOD JSON")
	}
	r.address, r.method, r.body = set.Arg(0), set.Arg(1), set.Arg(2)
	input, output, err := messages(r.method, r.body)
	if err != nil {
		return err
	}
	creds, who, err := r.credentials(ctx)
	if err != nil {
		return err
	}
	if state, err := reach(ctx, r.address, r.wait); err != nil {
		return err
	} else if state != "open" {
		fmt.Fprintf(out, "call %s as %s: %s is %s\n", r.method, who, r.address, state)
		return nil
	}
	fmt.Fprintf(out, "call %s as %s: ", r.method, who)
	return r.invoke(ctx, creds, input, output, out)
}

func (r request) invoke(ctx context.Context, creds credentials.TransportCredentials, input, output proto.Message, out io.Writer) error {
	conn, err := grpc.NewClient("dns:///"+r.address, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is there
	limited, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, r.headers...), callTimeout)
	defer cancel()
	if err := conn.Invoke(limited, "/"+r.method, input, output); err != nil {
		s := status.Convert(err)
		_, err = fmt.Fprintf(out, "%s: %s\n", s.Code(), s.Message())
		return err
	}
	text, err := protojson.Marshal(output)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "OK %s\n", text)
	return err
}

// credentials are what the call is made with, and a name for it.
func (r request) credentials(ctx context.Context) (credentials.TransportCredentials, string, error) {
	switch {
	case r.plaintext:
		return insecure.NewCredentials(), "nobody, in plaintext", nil
	case r.anonymous:
		return credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), "nobody, without a certificate", nil
	}
	limited, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	source, err := workloadapi.NewX509Source(limited)
	if err != nil {
		return nil, "", fmt.Errorf("wait for an SVID: %w", err)
	}
	svid, err := source.GetX509SVID()
	if err != nil {
		return nil, "", err
	}
	authorize := tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain())
	if r.peer != "" {
		peer, err := spiffeid.FromString(r.peer)
		if err != nil {
			return nil, "", fmt.Errorf("--peer: %w", err)
		}
		authorize = tlsconfig.AuthorizeID(peer)
	}
	return credentials.NewTLS(tlsconfig.MTLSClientConfig(source, source, authorize)), svid.ID.String(), nil
}

// messages are the request that JSON describes, and an empty answer.
func messages(method, body string) (input, output proto.Message, err error) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method, "/", ".")))
	if err != nil {
		return nil, nil, fmt.Errorf("method %s: %w", method, err)
	}
	descriptor, is := found.(protoreflect.MethodDescriptor)
	if !is || descriptor.IsStreamingClient() || descriptor.IsStreamingServer() {
		return nil, nil, fmt.Errorf("%s is no unary method", method)
	}
	made := make([]proto.Message, 2)
	for i, message := range []protoreflect.MessageDescriptor{descriptor.Input(), descriptor.Output()} {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
		if err != nil {
			return nil, nil, err
		}
		made[i] = kind.New().Interface()
	}
	if err := protojson.Unmarshal([]byte(body), made[0]); err != nil {
		return nil, nil, fmt.Errorf("the request of %s: %w", method, err)
	}
	return made[0], made[1], nil
}
