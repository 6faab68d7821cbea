package xds_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/paymentv1"
)

// exposes are the routes that the model makes of exposures of the payment service under one host name, one for each list of
// methods. Where it is in the network is put right afterwards.
func (d *door) exposes(t *testing.T, methods ...string) []mesh.Route {
	t.Helper()
	var expose []string
	for i, list := range methods {
		var full []string
		for name := range strings.SplitSeq(list, ", ") {
			full = append(full, "payment.v1.PaymentService/"+name)
		}
		name := fmt.Sprintf("api-%d", i)
		if len(methods) == 1 {
			name = "api"
		}
		expose = append(expose, fmt.Sprintf("{name: %s, gateway: {name: door, namespace: edge}, hostnames: [%s], methods: [%s], transcode: true, auth: {jwt: users}}", name, hostname, strings.Join(full, ", ")))
	}
	raw := descriptors(t, paymentv1.File_payment_v1_payment_proto, errdetails.File_google_rpc_error_details_proto)
	text := strings.NewReplacer("GATEWAY", "door", "KEYS", d.gateway.JWT[0].JWKS, "SHOP", base64.StdEncoding.EncodeToString(raw)).Replace(shop)
	var objects mesh.Objects
	if err := yaml.UnmarshalStrict([]byte(text), &objects); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte("["+strings.Join(expose, ", ")+"]"), &objects.Services[0].Spec.Expose); err != nil {
		t.Fatal(err)
	}
	objects.Cluster = cluster
	m, problems := mesh.Build(objects)
	routes := m.Gateways[0].Routes
	if len(routes) != len(methods) {
		t.Fatalf("the model refuses them: %v", problems)
	}
	for i := range routes {
		routes[i].Service, routes[i].ID = d.payment.Key, d.payment.ID
	}
	return routes
}

func TestExposuresThatShareAHostNameAreTranscodedEachByItself(t *testing.T) {
	d := newDoor(t, nil)
	d.gateway.Routes = d.exposes(t, "CreatePayment", "GetPayment")
	d.set(t)
	d.pod.awaitSynced(t)
	paid := d.call(t, "POST", paymentsURL, order("shared", "user_1"), d.token(nil), "Idempotency-Key: shared")
	id := strings.Split(paid.body, `"`)
	if paid.status != 200 || len(id) < 6 {
		t.Fatalf("got %d %s", paid.status, paid.body)
	}
	if found := d.call(t, "GET", paymentsURL+"/"+id[5], "", d.token(nil)); found.status != 200 || found.body != paid.body {
		t.Errorf("asked for: %d %s, want %s", found.status, found.body, paid.body)
	}
	if got := d.call(t, "GET", paymentsURL+"/pay_00000000-0000-0000-0000-000000000000", "", d.token(nil)); got.status != 404 || !strings.Contains(got.body, "google.rpc.ErrorInfo") {
		t.Errorf("a refusal: %d %s", got.status, got.body)
	}
	if got := d.call(t, "GET", paymentsURL, "", d.token(nil)); got.status != 404 {
		t.Errorf("a method that is not exposed: %d %s", got.status, got.body)
	}
}

// The routes are as many as a gateway has room for, of the kind that costs a proxy most: each path with descriptors of its own.
func TestAGatewayThatIsFullLoadsItsRoutes(t *testing.T) {
	d := newDoor(t, nil)
	before := d.pod.memory(t)
	pair := d.exposes(t, "CreatePayment", "GetPayment")
	const paths, hosts = 400, 16
	var routes []mesh.Route
	for i := range paths {
		route := pair[i%2]
		route.Name = fmt.Sprintf("api-%d", i)
		route.Hostnames = []string{fmt.Sprintf("h%d.example.com", i/2%hosts)}
		routes = append(routes, route)
	}
	d.gateway.Routes = routes
	begin := time.Now()
	d.set(t)
	d.pod.awaitSynced(t)
	took, after := time.Since(begin), d.pod.memory(t)
	t.Logf("%d paths with %d bytes of descriptors each are loaded after %s; the proxy's memory goes from %d to %d MiB", paths, len(pair[0].Methods[0].Descriptors), took, before>>20, after>>20)
	if after > 512<<20 {
		t.Errorf("half of what a gateway has by default is taken: %d MiB", after>>20)
	}
	if err := d.pod.ready(t); err != nil {
		t.Error(err)
	}
}

// memory is what the proxy has allocated, in bytes.
func (p *pod) memory(t *testing.T) int {
	t.Helper()
	page, err := p.Admin("/memory")
	if err != nil {
		t.Fatal(err)
	}
	var memory struct{ Allocated string }
	if err := json.Unmarshal([]byte(page), &memory); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(memory.Allocated)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
