// Package discovery finds where services are: host:port of the configuration goes in, and addresses come out, anew when
// they change.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jia-app/paymesh/payment/config"
)

// The schemes of service_mesh.discovery.scheme.
const (
	// XDS: the address is the sidecar's, which knows the endpoints by xDS.
	XDS = "xds"
	// DNS: A and AAAA records.
	DNS = "dns"
	// SRV: SRV records of _grpc._tcp, which carry the port; A and AAAA records where there are none.
	SRV = "srv"
)

const (
	// defaultInterval is how often DNS is asked. gRPC's own resolver asks again only when a connection ends: a pod that is
	// added would wait for that.
	defaultInterval = 10 * time.Second
	// lookupTimeout is for one look: the system's resolver tries two servers twice within it.
	lookupTimeout = 5 * time.Second
)

// Options are what a process may set beside the configuration.
type Options struct {
	// Resolver asks DNS; nil, it is the system's. Package dnstest has the other end for tests.
	Resolver *net.Resolver
	// Interval is how often DNS is asked; zero, every 10 seconds.
	Interval time.Duration
	// Log says when the addresses of a service change, and when DNS does not answer.
	Log *slog.Logger
}

// Discovery finds services by one scheme, which is chosen once: a process that falls back at run time from its sidecar to
// DNS would speak plaintext to whoever answers.
type Discovery struct {
	config   config.Discovery
	resolver *net.Resolver
	interval time.Duration
	log      *slog.Logger
}

// New makes a Discovery of the configuration.
func New(c config.Discovery, o Options) *Discovery {
	return &Discovery{
		config: c, resolver: cmp.Or(o.Resolver, net.DefaultResolver), interval: cmp.Or(o.Interval, defaultInterval),
		log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
	}
}

// Target is what gRPC dials for an address of the configuration (host:port); Builders resolve it.
func (d *Discovery) Target(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("the address %q: want host:port", address)
	}
	if d.config.Scheme == XDS {
		return "passthrough:///" + address, nil
	}
	return d.config.Scheme + ":///" + net.JoinHostPort(d.qualify(host), port), nil
}

// Resolve looks once for the addresses of a service (host:port), sorted. There is at least one, or an error.
func (d *Discovery) Resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the address %q: want host:port", address)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("the port of %q: want a number", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip, uint16(number))}, nil
	}
	host = d.qualify(host)
	if d.config.Scheme == SRV {
		found, err := d.bySRV(ctx, host)
		// Only where DNS says that there is no such record. Where it says nothing, the ports may be others.
		if !isNotFound(err) {
			return found, err
		}
	}
	return d.byHost(ctx, host, uint16(number))
}

// qualify puts a bare name into the namespace of the configuration, as the names of Kubernetes Services have it.
func (d *Discovery) qualify(host string) string {
	if _, err := netip.ParseAddr(host); err == nil || d.config.Namespace == "" || strings.Contains(host, ".") || host == "localhost" {
		return host
	}
	return host + "." + d.config.Namespace + ".svc"
}

func (d *Discovery) byHost(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	ips, err := d.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("find the addresses of %s: %w", host, err)
	}
	var found []netip.AddrPort
	for _, ip := range ips {
		found = append(found, netip.AddrPortFrom(ip.Unmap(), port))
	}
	return sorted(found), nil
}

// bySRV are the addresses of the targets with the lowest priority (RFC 2782). Weights are left out: calls go to all in turn.
func (d *Discovery) bySRV(ctx context.Context, host string) ([]netip.AddrPort, error) {
	_, records, err := d.resolver.LookupSRV(ctx, "grpc", "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("find the SRV records of _grpc._tcp.%s: %w", host, err)
	}
	var found []netip.AddrPort
	var errs []error
	for _, record := range records {
		if record.Priority != records[0].Priority {
			break // they are sorted
		}
		if record.Target == "." {
			return nil, fmt.Errorf("the SRV record of _grpc._tcp.%s says that there is no such service", host)
		}
		addresses, err := d.byHost(ctx, record.Target, record.Port)
		found, errs = append(found, addresses...), append(errs, err)
	}
	if len(found) == 0 {
		// Not wrapped: a target that is not found must not pass for a service without SRV records.
		return nil, fmt.Errorf("the SRV records of _grpc._tcp.%s lead nowhere: %v", host, errors.Join(errs...)) //nolint:errorlint // as above
	}
	return sorted(found), nil
}

func sorted(addresses []netip.AddrPort) []netip.AddrPort {
	slices.SortFunc(addresses, netip.AddrPort.Compare)
	return slices.Compact(addresses)
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
