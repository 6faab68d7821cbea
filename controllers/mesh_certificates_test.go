package controllers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// listens takes connections on loopback; each counts. Without a certificate it ends them, as a proxy does.
func listens(t *testing.T, certificate *tls.Certificate) (port int32, taken *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	taken = &atomic.Int32{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			if certificate != nil {
				_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*certificate}}).Handshake()
			}
			_ = conn.Close()
		}
	}()
	return int32(netip.MustParseAddrPort(listener.Addr().String()).Port()), taken
}

func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// podOf is a pod as a gateway's Deployment makes it, and as the cache keeps it.
func podOf(t *testing.T, g mesh.Gateway, name string) corev1.Pod {
	t.Helper()
	objects, _ := workload.Gateway(g, nil, workload.Options{})
	for _, object := range objects {
		deployment, ok := object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: g.Key.Namespace, Name: name, UID: types.UID(name), Labels: maps.Clone(deployment.Spec.Template.Labels)},
			Spec:       deployment.Spec.Template.Spec, Status: corev1.PodStatus{PodIP: "127.0.0.1"},
		}
		pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "1"
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: g.Key.Name + "-1", Controller: ptr.To(true)}}
		stripped, err := stripPod(pod)
		if err != nil || len(stripped.(*corev1.Pod).Spec.Volumes) != 1 {
			t.Fatalf("the cache keeps %v (%v)", stripped, err)
		}
		return *stripped.(*corev1.Pod)
	}
	t.Fatal("there is no Deployment")
	return corev1.Pod{}
}

func TestAListenerThatShowsNoCertificateIsNamedWithItsSecretAndAskedAgain(t *testing.T) {
	good, takenGood := listens(t, selfSigned(t))
	bad, takenBad := listens(t, nil)
	g := mesh.Gateway{Key: types.NamespacedName{Namespace: "edge", Name: "public"}, Listeners: []mesh.GatewayListener{
		{Name: "https", TargetPort: good, SecretName: "public-tls"}, {Name: "admin", TargetPort: bad, SecretName: "admin-tls"},
	}}
	older := g
	older.Listeners = g.Listeners[:1]
	moved := g
	moved.Listeners = []mesh.GatewayListener{{Name: "admin", TargetPort: bad, SecretName: "other-tls"}}
	unbound := podOf(t, g, "d")
	unbound.Status.PodIP = ""
	pods := []corev1.Pod{podOf(t, g, "a"), podOf(t, older, "b"), podOf(t, moved, "c"), unbound}
	c := &certificates{}
	for range 2 {
		words := strings.Join(c.lacking(t.Context(), g, pods), "\n")
		if want := "listener admin shows no certificate in the pods a: Secret edge/admin-tls is not there, or does not hold a certificate in tls.crt with its key in tls.key, or one that proxies do not take: RSA below 2048 bits, a keyUsage without digitalSignature; "; !strings.HasPrefix(words, want) || strings.Contains(words, "\n") {
			t.Errorf("got %q, want %q...", words, want)
		}
	}
	if takenGood.Load() != 2 || takenBad.Load() != 2 { // a and b once; a twice
		t.Errorf("asked %d and %d times, want 2 each: what has shown a certificate keeps it", takenGood.Load(), takenBad.Load())
	}
	g.Listeners[1].TargetPort, _ = listens(t, selfSigned(t))
	if words := c.lacking(t.Context(), g, []corev1.Pod{podOf(t, g, "a")}); len(words) > 0 {
		t.Errorf("each has its certificate, and it says %q", words)
	}
	again := podOf(t, g, "a")
	again.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: workload.ContainerProxy, RestartCount: 1}}
	asked := takenGood.Load()
	if c.lacking(t.Context(), g, []corev1.Pod{again}); takenGood.Load() != asked+1 {
		t.Error("a proxy that has started again is not asked again for what it had")
	}
	c.lacking(t.Context(), g, nil)
	if len(c.shown) > 0 {
		t.Errorf("it remembers %v of pods that are gone", c.shown)
	}
}

func TestACertificateThatGoDoesNotTakeIsOne(t *testing.T) {
	odd := selfSigned(t)
	odd.Certificate = [][]byte{{0x30, 0x03, 0x02, 0x01, 0x05}} // as one with a negative serial number, or a key that is too long for Go
	port, _ := listens(t, odd)
	if err := ShowsCertificate(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))); err != nil {
		t.Errorf("got %v: whether it is good is its clients' business", err)
	}
}

func TestAListenerThatCannotBeReachedIsNotSaidToLackACertificate(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := netip.MustParseAddrPort(listener.Addr().String()) // connections are taken by the kernel, and nobody answers
	if err := ShowsCertificate(t.Context(), silent); err == nil || errors.Is(err, ErrNoCertificate) {
		t.Errorf("nobody answers: %v", err)
	}
	_ = listener.Close()
	if err := ShowsCertificate(t.Context(), silent); err == nil || errors.Is(err, ErrNoCertificate) {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ShowsCertificate(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("it is given up: %v", err)
	}
}

func TestAGatewayWithAListenerThatLacksItsCertificateIsNotProgrammed(t *testing.T) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	j := judge{deployed: deployed{want: rendering{accepted: true, version: "2"}, facts: facts{
		pods: []corev1.Pod{pod}, proxies: map[string]server.Proxy{"a": {Pod: "a", Synced: true}}, served: "2", lacking: []string{"listener admin shows no certificate"},
	}}}
	if got, message := judged(j, meshv1alpha1.ConditionProgrammed, func(j judge) { j.programmed(true) }); got != "False CertificateMissing" || message != "listener admin shows no certificate" {
		t.Errorf("got %s (%s)", got, message)
	}
}
