package xds_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/test/lab"
)

// setListeners has the gateway what the model makes of these listeners, by name, each with the Secret <name>-tls; what was
// recorded of it before counts. The proxy that runs has to accept it.
func (d *door) setListeners(t *testing.T, records []meshv1alpha1.ListenerRecord, names ...string) []meshv1alpha1.ListenerRecord {
	t.Helper()
	object := meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
	object.Status.Listeners = records
	for i, name := range names {
		object.Spec.Listeners = append(object.Spec.Listeners, meshv1alpha1.GatewayListener{
			Name: name, Port: int32(8443 + i), TLS: meshv1alpha1.ListenerTLS{SecretName: meshv1alpha1.ResourceName(name + "-tls")},
		})
	}
	m, problems := mesh.Build(mesh.Objects{Cluster: cluster, Gateways: []meshv1alpha1.MeshGateway{object}})
	if len(m.Gateways) != 1 {
		t.Fatal(problems)
	}
	d.gateway.Listeners = m.Gateways[0].Listeners
	if d.pod != nil {
		d.set(t)
		d.pod.awaitSynced(t)
	}
	return m.Gateways[0].ListenerRecords(true)
}

// dial is a connection to a listener.
func (d *door) dial(port int32) (*tls.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", d.pod.at(port).String(), &tls.Config{InsecureSkipVerify: true})
}

// ask is a request on a connection, which stays open.
func ask(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET /nothing HTTP/1.1\r\nHost: %s\r\n\r\n", hostname); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound || answer.Close {
		return fmt.Errorf("the answer is %d, and closes the connection: %v", answer.StatusCode, answer.Close)
	}
	return nil
}

// takes reports whether a listener takes a new connection.
func (d *door) takes(port int32) error {
	conn, err := d.dial(port)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is there
	return ask(conn)
}

// watch asks a listener, on new connections, and the probe of the pod, all the while until it is told to end. It says how
// often something went wrong, and what at first.
func (d *door) watch(t *testing.T, port int32) (end func() error) {
	t.Helper()
	stop, result := make(chan struct{}), make(chan error, 1)
	go func() {
		var failed error
		asked, failures := 0, 0
		for {
			select {
			case <-stop:
				if failures > 0 {
					failed = fmt.Errorf("%d of %d times, first: %w", failures, asked, failed)
				}
				result <- failed
				return
			default:
			}
			asked++
			if err := errors.Join(d.takes(port), d.pod.ready(t)); err != nil {
				if failures++; failed == nil {
					failed = err
				}
			}
		}
	}()
	var once sync.Once
	end = func() (err error) {
		once.Do(func() { close(stop); err = <-result })
		return err
	}
	t.Cleanup(func() { _ = end() })
	return end
}

const first, second, third = mesh.FirstGatewayPort, mesh.FirstGatewayPort + 1, mesh.FirstGatewayPort + 2

func TestAListenerAndItsConnectionsStayWhateverBecomesOfTheOthers(t *testing.T) {
	d := newDoor(t, nil)
	records := d.setListeners(t, nil, "https")
	for _, change := range []struct {
		what  string
		names []string
	}{
		{"another comes before it, whose Secret this pod does not have", []string{"admin", "https"}},
		{"the two change places", []string{"https", "admin"}},
		{"one comes after it", []string{"https", "admin", "partner"}},
		{"the one before it goes", []string{"partner", "https"}},
		{"and comes again as another", []string{"other", "partner", "https"}},
		{"all others go", []string{"https"}},
	} {
		t.Run(change.what, func(t *testing.T) {
			conn, err := d.dial(first)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // the answer is there
			end := d.watch(t, first)
			records = d.setListeners(t, records, change.names...)
			for begin := time.Now(); time.Since(begin) < 4*time.Second; { // for longer than what goes is drained for
				if err := ask(conn); err != nil {
					t.Fatalf("a connection of before: %v", err)
				}
			}
			if err := end(); err != nil {
				t.Errorf("a new connection, or the probe: %v", err)
			}
		})
	}
}

func TestTheListenerThatWasTheFirstGoesAndAnotherServesOn(t *testing.T) {
	d := newDoor(t, nil)
	d.mount(t, map[int32]map[string][]byte{first: newCertificate(t, 1), second: newCertificate(t, 2)})
	records := d.setListeners(t, nil, "https", "admin")
	lab.Eventually(t, patience, func() error { return errors.Join(d.takes(first), d.takes(second)) })
	end := d.watch(t, second)
	records = d.setListeners(t, records, "admin")
	lab.Eventually(t, patience, func() error {
		if conn, err := d.dial(first); err == nil {
			_ = conn.Close()
			return errors.New("the listener that is gone takes connections")
		}
		return nil
	})
	// This pod still has the certificate of the one that is gone: nobody else shows it.
	d.setListeners(t, records, "admin", "partner")
	if err := d.takes(first); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("where the first was: %v", err)
	}
	if err := d.takes(third); err == nil {
		t.Error("a listener shows a certificate that this pod does not have")
	}
	if err := end(); err != nil {
		t.Errorf("the one that stays, or the probe: %v", err)
	}
}

func TestAListenerWithoutItsSecretWaitsForItAndKeepsNoOtherFromServing(t *testing.T) {
	d := &door{dir: t.TempDir()}
	d.gateway = mesh.Gateway{Key: newService(t, "gateway").Key}
	d.gateway.ID = entry(t, "/door/"+d.gateway.Key.Name)
	d.setListeners(t, nil, "https", "admin", "partner")
	d.launch(t, nil, nil)
	d.pod.awaitSynced(t)
	d.pod.staysUnready(t)
	d.mount(t, map[int32]map[string][]byte{third: newCertificate(t, 3)})
	d.pod.awaitReady(t)
	if err := d.takes(third); err != nil {
		t.Error(err)
	}
	for _, port := range []int32{first, second} { // as the operator asks, too
		if err := controllers.ShowsCertificate(t.Context(), d.pod.at(port)); !errors.Is(err, controllers.ErrNoCertificate) {
			t.Errorf("the listener at %d, which has no certificate: %v", port, err)
		}
	}
	if err := controllers.ShowsCertificate(t.Context(), d.pod.at(third)); err != nil {
		t.Error(err)
	}
	end := d.watch(t, third)
	d.mount(t, map[int32]map[string][]byte{first: newCertificate(t, 1), third: newCertificate(t, 3)})
	lab.Eventually(t, patience, func() error { return d.takes(first) })
	d.mount(t, map[int32]map[string][]byte{third: newCertificate(t, 3)}) // a Secret that is deleted
	if err := errors.Join(d.takes(first), end()); err != nil {
		t.Errorf("what was served is not any more: %v", err)
	}
}
