package spire_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/svid"
	"github.com/jia-app/paymesh/test/lab"
)

func TestEachEntryOfAPlanHasItsOwnResult(t *testing.T) {
	c := admin(t, server)
	mustCreate(t, server, manual("client-foreign", "/client-results/taken"))
	good, bad, last := entry(t, "client-results", "good"), entry(t, "client-results", "bad"), entry(t, "client-results", "last")
	bad.FederatesWith = []string{"nobody.org"}
	clash := entry(t, "client-results", "clash")
	clash.SPIFFEID, clash.ParentID, clash.Selectors = "spiffe://jia.app/client-results/taken", "spiffe://jia.app/spire/server", []string{"k8s:ns:manual"}

	results := apply(t, c, spire.Plan{Create: []spire.Entry{good, bad, clash, last}})
	type line struct {
		ID       string
		Code     spire.Code
		Conflict string
	}
	var got []line
	for _, r := range results {
		l := line{ID: r.ID, Code: r.Code}
		if r.Conflict != nil {
			l.Conflict = r.Conflict.ID
		}
		if r.OK() != (r.Entry != nil) || r.OK() == (r.Message != "") {
			t.Errorf("%s: %s with entry %v and message %q", r.ID, r.Code, r.Entry, r.Message)
		}
		got = append(got, l)
	}
	want := []line{{ID: good.ID}, {ID: bad.ID, Code: "Internal"}, {ID: clash.ID, Code: spire.CodeAlreadyExists, Conflict: "client-foreign"}, {ID: last.ID}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPlansThatComeAtOnceAreWrittenByFewCalls(t *testing.T) {
	const plans = 100
	calls := prometheus.NewRegistry()
	sweep(t, server)
	c, err := client.NewUnix(server.Socket, calls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	batcher := client.NewBatcher(c)
	var running sync.WaitGroup
	for i := range plans {
		running.Go(func() {
			want := entry(t, "client-batches", fmt.Sprintf("a-%d", i))
			refused := i%10 == 0 // one among the others
			if refused {
				want.FederatesWith = []string{"nobody.org"}
			}
			results, err := batcher.Apply(t.Context(), spire.Plan{Create: []spire.Entry{want}})
			if err != nil || len(results) != 1 || results[0].ID != want.ID || results[0].OK() == refused {
				t.Errorf("%s, to be refused %t: got %+v and %v", want.ID, refused, results, err)
			}
		})
	}
	running.Wait()
	families, err := calls.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "paymesh_spire_rpcs_total" {
			if n := family.GetMetric()[0].GetCounter().GetValue(); n > plans/4 {
				t.Errorf("%v calls for %d plans", n, plans)
			}
		}
	}
}

func TestAPlanMayBeAppliedTwice(t *testing.T) {
	c := admin(t, server)
	one, two := entry(t, "client-twice", "one"), entry(t, "client-twice", "two")
	var before []spire.Held
	for round := range 2 {
		var held []spire.Held
		for _, r := range apply(t, c, spire.Plan{Create: []spire.Entry{one, two}, Delete: []string{"pm1.client-twice.node.9"}}) {
			if !r.OK() {
				t.Errorf("round %d: %s %s: %s %s", round, r.Op, r.ID, r.Code, r.Message)
			}
			if r.Entry != nil {
				held = append(held, *r.Entry)
			}
		}
		if plan := spire.Diff([]spire.Entry{one, two}, held); !plan.Empty() {
			t.Errorf("round %d: what the server answered differs from what was written: %+v", round, plan)
		}
		if round == 1 {
			if diff := cmp.Diff(before, held); diff != "" {
				t.Errorf("the second time wrote something:\n%s", diff)
			}
		}
		before = held
	}
	for _, e := range []spire.Entry{one, two} {
		held, found, err := c.Get(t.Context(), e.ID)
		if err != nil || !found || !held.Equal(e) {
			t.Errorf("the server holds %+v (%v, %v), want %+v", held, found, err, e)
		}
	}
}

// Else the audit, which compares both, asks for each entry by itself in each of its passes.
func TestAPageOfRevisionsSaysOfAnEntryWhatTheAnswerToItsWriteSaid(t *testing.T) {
	c := admin(t, server)
	want := entry(t, "client-revisions", "a")
	made := apply(t, c, spire.Plan{Create: []spire.Entry{want}})[0].Entry
	for token, more := "", true; more; {
		page, err := c.List(t.Context(), client.Query{RevisionsOnly: true, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range page.Entries {
			if listed.ID != want.ID {
				continue
			}
			if listed.Revision != made.Revision || listed.CreatedAt != made.CreatedAt || made.CreatedAt == 0 {
				t.Errorf("revision %d, created at %d; its write was answered with revision %d, created at %d", listed.Revision, listed.CreatedAt, made.Revision, made.CreatedAt)
			}
			return
		}
		token, more = page.Next, page.Next != ""
	}
	t.Errorf("no page has %s", want.ID)
}

func TestSelectorsInAnotherOrderAreTheSame(t *testing.T) {
	want := entry(t, "client-order", "a")
	there := manual(want.ID, "/client-order/a")
	there.ParentId.Path, there.Selectors = "/paymesh/client-order/node/1", nil
	for _, selector := range slices.Backward(want.Selectors) {
		kind, value, _ := strings.Cut(selector, ":")
		there.Selectors = append(there.Selectors, &types.Selector{Type: kind, Value: value})
	}
	there.DnsNames, there.Hint, there.X509SvidTtl = want.DNSNames, want.Hint, want.X509SVIDTTL
	mustCreate(t, server, there)
	held, _, err := admin(t, server).Get(t.Context(), want.ID)
	if plan := spire.Diff([]spire.Entry{want}, []spire.Held{held}); err != nil || !plan.Empty() {
		t.Errorf("it would write %+v (%v)", plan, err)
	}
}

func TestAnEntryToCreateWhoseIDIsThereIsPutRightInPlace(t *testing.T) {
	c := admin(t, server)
	for name, change := range map[string]func(e *spire.Entry){
		"same tuple, other fields": func(e *spire.Entry) { e.Hint, e.Admin = "by hand", true },
		"other tuple":              func(e *spire.Entry) { e.Selectors = []string{"k8s:ns:by-hand"} },
	} {
		t.Run(name, func(t *testing.T) {
			want := entry(t, "client-place", strings.ReplaceAll(strings.Fields(name)[0], ",", ""))
			there := want
			change(&there)
			apply(t, c, spire.Plan{Create: []spire.Entry{there}})
			results := apply(t, c, spire.Plan{Create: []spire.Entry{want}})
			if len(results) != 1 || !results[0].OK() || results[0].Op != spire.OpCreate || results[0].Entry == nil {
				t.Fatalf("got %+v", results)
			}
			held, _, err := c.Get(t.Context(), want.ID)
			if err != nil || !held.Equal(want) || held.Revision != 1 {
				t.Errorf("the server holds %+v (%v)", held, err)
			}
		})
	}
}

func TestAnEntryToUpdateThatIsNotThereIsNotFound(t *testing.T) {
	results := apply(t, admin(t, server), spire.Plan{Update: []spire.Entry{entry(t, "client-none", "none")}})
	if len(results) != 1 || results[0].Code != spire.CodeNotFound || results[0].Op != spire.OpUpdate {
		t.Errorf("got %+v", results)
	}
}

func TestAdditionalAttributesThatSomebodySetSurviveOurUpdates(t *testing.T) {
	c := admin(t, server)
	e := entry(t, "client-attributes", "a")
	apply(t, c, spire.Plan{Create: []spire.Entry{e}})
	byHand := get(t, server, e.ID)
	byHand.AdditionalAttributes = &types.Entry_AdditionalAttributes{JwtSvidIncludeJti: true}
	if _, status := update(t, server, byHand, nil); codes.Code(status.Code) != codes.OK {
		t.Fatal(status)
	}
	e.Hint = "other"
	apply(t, c, spire.Plan{Update: []spire.Entry{e}})
	if got := get(t, server, e.ID); got.Hint != "other" || !got.AdditionalAttributes.GetJwtSvidIncludeJti() {
		t.Errorf("got %v", got)
	}
}

// operator is a client with the operator's SVID from a real Workload API, over TCP with mutual TLS.
func operator(t *testing.T, address string, metrics prometheus.Registerer) *client.Client {
	t.Helper()
	sweep(t, server)
	return started(t, svid.New(cluster.OperatorID(), agent.WorkloadAPI), client.TCPOptions{Address: address, Registerer: metrics})
}

func started(t *testing.T, own *svid.Source, options client.TCPOptions) *client.Client {
	t.Helper()
	options.SVID = own
	c, err := client.NewTCP(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- own.Start(ctx) }()
	go func() { ended <- c.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Errorf("Start ended with %v", err)
			}
		}
	})
	return c
}

// answers polls until the server answers.
func answers(t *testing.T, c *client.Client) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		_, err := c.List(t.Context(), client.Query{Size: 1})
		return err
	})
}

func TestTheOperatorsSVIDOpensTheServerOverTCP(t *testing.T) {
	metrics := prometheus.NewPedanticRegistry()
	c := operator(t, server.Address, metrics)
	answers(t, c)
	e := entry(t, "client-tcp", "a")
	if results := apply(t, c, spire.Plan{Create: []spire.Entry{e}}); !results[0].OK() {
		t.Errorf("got %+v", results)
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.Metric {
			labels := family.GetName()
			for _, pair := range metric.Label {
				labels += " " + pair.GetName() + "=" + pair.GetValue()
			}
			seen[labels] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	for _, labels := range []string{"paymesh_spire_rpcs_total code=OK method=BatchCreateEntry", "paymesh_spire_rpc_duration_seconds method=BatchCreateEntry"} {
		if seen[labels] != 1 {
			t.Errorf("%s is %v; there are %v", labels, seen[labels], seen)
		}
	}
}

func TestWithoutAnSVIDEveryCallSaysSoAtOnce(t *testing.T) {
	c := started(t, svid.New(cluster.OperatorID(), "unix:///nowhere/api.sock"), client.TCPOptions{Address: server.Address})
	lab.Eventually(t, patience, func() error {
		begin := time.Now()
		_, err := c.List(t.Context(), client.Query{})
		if err == nil || time.Since(begin) > time.Second {
			t.Fatalf("got %v after %s", err, time.Since(begin))
		}
		if text := err.Error(); !strings.Contains(text, "no SVID from the Workload API at unix:///nowhere/api.sock yet") || !strings.Contains(text, "no such file") {
			return err
		}
		return nil
	})
}

func TestAnSVIDOfAnotherIDIsNotPresented(t *testing.T) {
	c := started(t, svid.New(spiffeid.RequireFromPath(cluster.TrustDomain, "/paymesh/other/operator"), agent.WorkloadAPI), client.TCPOptions{Address: server.Address})
	lab.Eventually(t, patience, func() error {
		_, err := c.List(t.Context(), client.Query{})
		if err == nil {
			t.Fatal("the server answered to somebody else's SVID")
		}
		if !strings.Contains(err.Error(), "none for spiffe://jia.app/paymesh/other/operator") {
			return err
		}
		return nil
	})
}

func TestAServerThatIsNotTheSPIREServerIsRefused(t *testing.T) {
	source, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(agent.WorkloadAPI)))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close() //nolint:errcheck // nothing to tell
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing to tell
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) { _ = conn.(*tls.Conn).HandshakeContext(t.Context()) }(conn)
		}
	}()
	c := operator(t, listener.Addr().String(), nil)
	lab.Eventually(t, patience, func() error {
		_, err := c.List(t.Context(), client.Query{})
		if err == nil || !strings.Contains(err.Error(), `unexpected ID`) {
			return err
		}
		return nil
	})
}

// SPIRE ends every TCP connection after three minutes, and networks whenever they like.
func TestCallsGoOnWhileConnectionsAreCut(t *testing.T) {
	proxy := lab.StartProxy(t, server.Address)
	c := operator(t, proxy.Address, nil)
	answers(t, c)
	const cuts, callers = 20, 4
	ctx, stop := context.WithCancel(t.Context())
	var done [callers]atomic.Int64
	var calling sync.WaitGroup
	for i := range callers {
		calling.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.List(t.Context(), client.Query{Size: 10}); err != nil {
					t.Errorf("a call failed: %v", err)
				}
				done[i].Add(1)
			}
		})
	}
	for cut := range cuts {
		// Each cut hits a connection that carries calls, and no call more often than gRPC tries it.
		var before [callers]int64
		for i := range done {
			before[i] = done[i].Load()
		}
		lab.Eventually(t, patience, func() error {
			for i := range done {
				if proxy.Connections() <= cut || done[i].Load() <= before[i] {
					return fmt.Errorf("after %d cuts there were %d connections, and caller %d waits", cut, proxy.Connections(), i)
				}
			}
			return nil
		})
		proxy.Cut()
	}
	stop()
	calling.Wait()
	t.Logf("%d calls of the first caller over %d connections", done[0].Load(), proxy.Connections())
}
