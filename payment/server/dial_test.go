package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contactv1"
)

// serveNames has this process's resolver answer every name with these addresses, as the DNS of a cluster does for a headless
// Service.
func serveNames(t *testing.T, addresses ...netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return // closed
			}
			var query dnsmessage.Message
			if err := query.Unpack(buffer[:n]); err != nil {
				continue
			}
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true}, Questions: query.Questions}
			for _, address := range addresses {
				if query.Questions[0].Type == dnsmessage.TypeA {
					answer.Answers = append(answer.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: query.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 5},
						Body:   &dnsmessage.AResource{A: address.As4()},
					})
				}
			}
			packed, err := answer.Pack()
			if err != nil {
				continue
			}
			_, _ = conn.WriteTo(packed, from)
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		serving.Wait()
	})
}

// replica is a contact service that counts what it is asked.
type replica struct {
	contactv1.UnimplementedContactServiceServer
	*grpc.Server
	mu    sync.Mutex
	calls int
}

func (r *replica) GetUserInfo(_ context.Context, request *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	r.mu.Lock()
	r.calls++
	r.mu.Unlock()
	if request.GetUserId() == "user_broken" {
		return nil, status.Error(codes.Unavailable, "broken")
	}
	return &contactv1.GetUserInfoResponse{}, nil
}

func (r *replica) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

func startReplica(t *testing.T, address string) (*replica, string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{Server: grpc.NewServer()}
	contactv1.RegisterContactServiceServer(r, r)
	go r.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(r.Stop)
	_, port, _ := strings.Cut(listener.Addr().String(), ":")
	return r, port
}

func TestCallsGoToAllAddressesOfANameInTurnAndNoneIsRepeated(t *testing.T) {
	one, port := startReplica(t, "127.0.0.2:0")
	two, _ := startReplica(t, "127.0.0.3:"+port)
	serveNames(t, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"))
	conn, err := dial(config.ExternalService{Address: "contact-service.people.svc:" + port, TimeoutSeconds: 2}, insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	client := contactv1.NewContactServiceClient(conn)
	ask := func(user string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := client.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: user})
		return err
	}
	asked := 0
	eventually(t, func() bool { // the second connection takes a moment longer than the first
		if err := ask("user_1"); err != nil {
			t.Fatal(err)
		}
		asked++
		return one.count() > 0 && two.count() > 0
	})
	before := [2]int{one.count(), two.count()}
	for range 10 {
		if err := ask("user_broken"); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	if got := [2]int{one.count() - before[0], two.count() - before[1]}; got != [2]int{5, 5} {
		t.Errorf("10 calls that fail reached the two %v times, want 5 and 5: in turn, and none twice", got)
	}
	one.Stop()
	failed := ""
	for range 20 { // those that were sent as it stopped may fail; all others go to the other
		if err := ask("user_1"); err != nil {
			failed += fmt.Sprintln(err)
		}
	}
	if strings.Count(failed, "\n") > 1 {
		t.Errorf("after one of two is gone:\n%s", failed)
	}
}
