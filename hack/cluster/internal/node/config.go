package node

import (
	"embed"
	"fmt"
	"net"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/pki"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

//go:embed config
var configFS embed.FS

var configs = template.Must(template.New("").Option("missingkey=error").ParseFS(configFS, "config/*"))

const (
	containerdSocket = "/run/containerd/containerd.sock"
	volumesDir       = "/var/lib/volumes"
	// volumeCount is more than any demo or test claims.
	volumeCount = 20
)

func volumes() []string {
	names := make([]string, 0, volumeCount)
	for i := range volumeCount {
		names = append(names, fmt.Sprintf("local-%02d", i))
	}
	return names
}

// render renders a configuration file for one cluster.
func render(s Spec, name string) (string, error) {
	f := s.folder()
	var text strings.Builder
	err := configs.ExecuteTemplate(&text, name, map[string]any{
		"Bin":              f.Bin(),
		"CNIConfig":        f.Etc("cni"),
		"ContainerdSocket": containerdSocket,
		"CoreDNSImage":     corednsImage,
		"DNSService":       dnsService,
		"Etc":              f.Etc(),
		"Hostname":         s.hostname(),
		"NodeIP":           nodeIP,
		"NodePodCIDR":      nodePodCIDR,
		"PKI":              f.Etc("pki"),
		"PauseImage":       pauseImage,
		"PodCIDR":          podCIDR,
		"Runc":             s.runc(),
		"VolumePlugins":    volumePlugins,
		"Volumes":          volumes(),
		"VolumesDir":       volumesDir,
	})
	if err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return text.String(), nil
}

// runc is where the runc of the environment is inside the node, or empty for the machine's.
func (s Spec) runc() string {
	if s.Programs["runc"] == "" {
		return ""
	}
	return s.folder().Bin() + "/runc"
}

// Prepare writes all that the node reads, into an empty state folder. port is the API server's on the machine's
// loopback.
func Prepare(s Spec, port int, now time.Time) error {
	f := s.folder()
	if err := s.Save(); err != nil {
		return err
	}
	for file, path := range map[string]string{
		"containerd.toml":  f.Etc("containerd.toml"),
		"cni.conflist":     f.Etc("cni", "10-paymesh.conflist"),
		"kubelet.yaml":     f.Etc("kubelet.yaml"),
		"kube-proxy.yaml":  f.Etc("kube-proxy.yaml"),
		"coredns.yaml":     f.Etc("coredns.yaml"),
		"kube-router.yaml": f.Etc("kube-router.yaml"),
		"volumes.yaml":     f.Etc("volumes.yaml"),
	} {
		text, err := render(s, file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return writeCredentials(s, port, now)
}

// client is a user of the API server that gets a kubeconfig.
type client struct {
	kubeconfig string
	subject    pki.Subject
}

func clients(s Spec) []client {
	return []client{
		{"admin", pki.Subject{Name: "paymesh-admin", Groups: []string{"system:masters"}}},
		{"kube-controller-manager", pki.Subject{Name: "system:kube-controller-manager"}},
		{"kube-scheduler", pki.Subject{Name: "system:kube-scheduler"}},
		{"kubelet", pki.Subject{Name: "system:node:" + s.hostname(), Groups: []string{"system:nodes"}}},
		{"kube-proxy", pki.Subject{Name: "system:kube-proxy"}},
		{"kube-router", pki.Subject{Name: "system:kube-router"}},
	}
}

func writeCredentials(s Spec, port int, now time.Time) error {
	f := s.folder()
	dir := f.Etc("pki")
	ca, err := pki.NewAuthority("paymesh cluster "+s.Name, now)
	if err != nil {
		return err
	}
	if err := ca.Save(dir, "ca"); err != nil {
		return err
	}
	apiNames := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}
	for name, subject := range map[string]pki.Subject{
		"apiserver":                {Name: "kube-apiserver", DNS: apiNames, IPs: ips("127.0.0.1", nodeIP, apiService)},
		"apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"kubelet-server":           {Name: "system:node:" + s.hostname(), DNS: []string{s.hostname(), "localhost"}, IPs: ips("127.0.0.1", nodeIP)},
	} {
		pair, err := ca.Issue(subject)
		if err != nil {
			return err
		}
		if err := pair.Save(dir, name); err != nil {
			return err
		}
	}
	private, public, err := pki.SigningKey()
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.Etc("pki", "sa.key"), private, 0o600); err != nil {
		return fmt.Errorf("save the key of the service account tokens: %w", err)
	}
	if err := os.WriteFile(f.Etc("pki", "sa.pub"), public, 0o600); err != nil {
		return fmt.Errorf("save the key of the service account tokens: %w", err)
	}
	return writeKubeconfigs(s, f, ca, port)
}

func writeKubeconfigs(s Spec, f state.Folder, ca *pki.Authority, port int) error {
	context := "paymesh-" + s.Name
	for _, c := range clients(s) {
		pair, err := ca.Issue(c.subject)
		if err != nil {
			return err
		}
		files := map[string]string{f.Etc(c.kubeconfig + ".kubeconfig"): APIAddress}
		if c.kubeconfig == "admin" {
			files[f.Kubeconfig()] = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
			if err := pair.Save(f.Etc("pki"), "admin"); err != nil {
				return err
			}
		}
		for path, address := range files {
			if err := os.WriteFile(path, pki.Kubeconfig(context, "https://"+address, ca.Certificate, pair), 0o600); err != nil {
				return fmt.Errorf("write the kubeconfig of %s: %w", c.kubeconfig, err)
			}
		}
	}
	return nil
}
