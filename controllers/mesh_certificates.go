package controllers

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

const (
	// handshakeTimeout bounds one handshake with a pod of the cluster.
	handshakeTimeout = time.Second
	// handshakes are made that many at a time.
	handshakes = 32
	// certificateInterval is how soon a listener without a certificate is asked again: nothing tells when its Secret comes.
	certificateInterval = 10 * time.Second
)

// untaken is what a certificate must not be, that has its key and that a proxy shows all the same to nobody.
const untaken = "RSA below 2048 bits, a keyUsage without digitalSignature"

// ErrNoCertificate is what a listener shows that has no certificate, none that fits its key, or none that its proxy takes.
var ErrNoCertificate = errors.New("the listener shows no certificate")

// ShowsCertificate asks a listener for its certificate, as any client does, and looks at none. ErrNoCertificate says that the
// listener took the connection and ended it; any other error, that nothing is known of it.
func ShowsCertificate(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", at, err)
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	//nolint:gosec // nothing is told to whoever answers, and whether its certificate is good is its clients' business
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
	var plain tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ended(err):
		return fmt.Errorf("%w: %w", ErrNoCertificate, err)
	case errors.As(err, &plain):
		return fmt.Errorf("ask %s for its certificate: %w", at, err)
	}
	return nil // also where a certificate came that Go does not take, and others may
}

// ended reports whether the other side ended a handshake.
func ended(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &op) && op.Op == "remote error"
}

// certificates know which listeners of gateways' pods have a certificate. The manager may not read Secrets, and a proxy tells
// nobody of a file that it waits for: so the listeners are asked. One that has shown a certificate is not asked again, for it
// keeps the last that was good.
type certificates struct {
	lock  sync.Mutex
	shown map[types.NamespacedName]map[shown]bool
}

// shown is a listener in a pod, with its Secret.
type shown struct {
	pod types.UID
	// restarts are those of its proxy, which has lost then what it had.
	restarts int32
	port     int32
	secret   string
}

// lacking says, in a sentence for each listener, in which pods it has no certificate. A pod of an older revision, that does
// not mount the Secret, is none of them.
func (c *certificates) lacking(ctx context.Context, g mesh.Gateway, pods []corev1.Pod) []string {
	c.lock.Lock()
	before := c.shown[g.Key]
	c.lock.Unlock()
	var lock sync.Mutex
	known, without := map[shown]bool{}, map[int32][]string{}
	var all sync.WaitGroup
	limit := make(chan struct{}, handshakes)
	for i := range pods {
		address, err := netip.ParseAddr(pods[i].Status.PodIP)
		if err != nil {
			continue // it has no address yet
		}
		for _, listener := range g.Listeners {
			one := shown{pods[i].UID, restartsOf(&pods[i]), listener.TargetPort, listener.SecretName}
			switch {
			case !workload.Mounts(&pods[i], listener):
				continue
			case before[one]:
				lock.Lock()
				known[one] = true
				lock.Unlock()
				continue
			}
			limit <- struct{}{}
			all.Go(func() {
				defer func() { <-limit }()
				err := ShowsCertificate(ctx, netip.AddrPortFrom(address, uint16(one.port))) //nolint:gosec // a port
				lock.Lock()
				defer lock.Unlock()
				if errors.Is(err, ErrNoCertificate) {
					without[one.port] = append(without[one.port], pods[i].Name)
				} else if err == nil {
					known[one] = true
				}
			})
		}
	}
	all.Wait()
	c.remember(g.Key, known)
	return lackingWords(g, without)
}

func restartsOf(pod *corev1.Pod) (sum int32) {
	for _, container := range pod.Status.ContainerStatuses {
		sum += container.RestartCount
	}
	return sum
}

// remember keeps what is known of the pods that there are.
func (c *certificates) remember(key types.NamespacedName, known map[shown]bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.shown == nil {
		c.shown = map[types.NamespacedName]map[shown]bool{}
	}
	if c.shown[key] = known; len(known) == 0 {
		delete(c.shown, key)
	}
}

// lackingWords has a sentence for each listener; what is missing is the same for those that share a Secret.
func lackingWords(g mesh.Gateway, without map[int32][]string) []string {
	of := map[string][]mesh.GatewayListener{}
	for _, listener := range g.Listeners {
		if len(without[listener.TargetPort]) > 0 {
			of[listener.SecretName] = append(of[listener.SecretName], listener)
		}
	}
	var words []string
	for _, secret := range slices.Sorted(maps.Keys(of)) {
		listeners := make([]string, 0, len(of[secret]))
		var pods []string
		for _, listener := range slices.SortedFunc(slices.Values(of[secret]), func(x, y mesh.GatewayListener) int { return cmp.Compare(x.Name, y.Name) }) {
			listeners = append(listeners, listener.Name)
			pods = append(pods, without[listener.TargetPort]...)
		}
		slices.Sort(pods)
		words = append(words, fmt.Sprintf("listener %s shows no certificate in the pods %s: Secret %s/%s is not there, or does not hold a certificate in tls.crt with its key in tls.key, or one that proxies do not take: %s; the pods notice within two minutes when that is mended",
			strings.Join(listeners, ", "), names(slices.Compact(pods)), g.Key.Namespace, secret, untaken))
	}
	return words
}
