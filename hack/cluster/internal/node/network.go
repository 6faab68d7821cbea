package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// network is what ip(8) is told. Both ends of the veth pair are inside: it stands for a network card, which the
// addresses of the node need and a dummy device, which not every kernel has, would be as well. kube-proxy's NAT of
// local traffic needs a default route, so there is one, to nowhere.
const network = `link set lo up
link add eth0 type veth peer name eth0-peer
link set eth0-peer up
link set eth0 up
address add ` + nodeIP + `/24 dev eth0
route add default dev eth0
`

// networkSysctls belong to the network namespace.
var networkSysctls = map[string]string{
	"net/ipv4/ip_forward": "1",
	// kube-router's rules must see what passes the bridge between two pods.
	"net/bridge/bridge-nf-call-iptables": "1",
}

// BridgeFilter is missing where the kernel has not loaded br_netfilter, which it must have before the node starts.
const BridgeFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

func (n *node) setUpNetwork(ctx context.Context) error {
	if err := unix.Sethostname([]byte(n.spec.hostname())); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(network)
	// exec.Cmd would wait for this process itself; it is the only one that runs yet, and the reaper has not started.
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up the node's network: %w: %s", err, strings.TrimSpace(string(out)))
	}
	var errs []error
	for key, value := range networkSysctls {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("set sysctl %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}
