// Package node is one Kubernetes node inside namespaces of its own: from a prepared state folder it makes a running
// node, and answers on a Unix socket what state it is in.
package node

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// Addresses are the same in every cluster, since each has a network namespace of its own.
const (
	nodeIP      = "10.250.0.2"
	serviceCIDR = "10.96.0.0/16"
	apiService  = "10.96.0.1"
	dnsService  = "10.96.0.10"
	podCIDR     = "10.244.0.0/16"
	nodePodCIDR = "10.244.0.0/24"
	apiPort     = 6443

	// APIAddress is where the API server listens inside the node.
	APIAddress = "127.0.0.1:6443"

	pauseImage   = "paymesh/pause:1"
	corednsImage = "paymesh/coredns:1"
)

// Programs are what a node is made of, by the names under which hack/tools builds them.
var Programs = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
	"containerd", "containerd-shim-runc-v2", "ctr", "bridge", "loopback", "host-local", "portmap", "coredns", "kube-router",
}

// self is the name of this program in the folder of programs: it is the pause container.
const self = "cluster"

// Spec is all that the node must be told. It lies in the state folder.
type Spec struct {
	Name     string            `json:"name"`
	Dir      string            `json:"dir"`
	Cgroup   string            `json:"cgroup"`
	Programs map[string]string `json:"programs"` // name to absolute path on the machine

	// StartTimeout is how long the start may take.
	StartTimeout time.Duration `json:"startTimeout"`
}

func (s Spec) folder() state.Folder { return state.Folder{Name: s.Name, Dir: s.Dir} }

// hostname is the node's name in Kubernetes and in its UTS namespace.
func (s Spec) hostname() string { return s.Name }

func specPath(f state.Folder) string { return f.Etc("node.json") }

// Save writes the spec where the node reads it.
func (s Spec) Save() error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("spec of cluster %s: %w", s.Name, err)
	}
	if err := os.WriteFile(specPath(s.folder()), raw, 0o600); err != nil {
		return fmt.Errorf("spec of cluster %s: %w", s.Name, err)
	}
	return nil
}

func loadSpec(f state.Folder) (Spec, error) {
	var s Spec
	raw, err := os.ReadFile(specPath(f))
	if err != nil {
		return s, fmt.Errorf("spec of cluster %s: %w", f.Name, err)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("spec of cluster %s: %w", f.Name, err)
	}
	return s, nil
}

func ips(addresses ...string) []net.IP {
	parsed := make([]net.IP, 0, len(addresses))
	for _, a := range addresses {
		parsed = append(parsed, net.ParseIP(a))
	}
	return parsed
}
