package node

// volumePlugins is in place of a folder below /usr/libexec, which is read-only here.
const volumePlugins = "/var/lib/kubelet/volumeplugins"

// etcd keeps nothing that must survive a crash of the machine, so it does not wait for the disk.
func etcd() component {
	return component{"etcd", []string{
		"--name=node",
		"--data-dir=/var/lib/etcd",
		"--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=node=http://127.0.0.1:2380",
		"--log-level=warn",
	}}
}

func (n *node) apiServer() component {
	pki := n.folder.Etc("pki")
	return component{"kube-apiserver", []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + nodeIP,
		"--secure-port=6443",
		"--service-cluster-ip-range=" + serviceCIDR,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--client-ca-file=" + pki + "/ca.crt",
		"--tls-cert-file=" + pki + "/apiserver.crt",
		"--tls-private-key-file=" + pki + "/apiserver.key",
		"--kubelet-client-certificate=" + pki + "/apiserver-kubelet-client.crt",
		"--kubelet-client-key=" + pki + "/apiserver-kubelet-client.key",
		"--kubelet-certificate-authority=" + pki + "/ca.crt",
		// Else exec and logs look for the node's name in the machine's DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki + "/sa.pub",
		"--service-account-signing-key-file=" + pki + "/sa.key",
		"--profiling=false",
	}}
}

func (n *node) controllerManager() component {
	pki := n.folder.Etc("pki")
	return component{"kube-controller-manager", []string{
		"--kubeconfig=" + n.folder.Etc("kube-controller-manager.kubeconfig"),
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + pki + "/sa.key",
		"--root-ca-file=" + pki + "/ca.crt",
		"--cluster-signing-cert-file=" + pki + "/ca.crt",
		"--cluster-signing-key-file=" + pki + "/ca.key",
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + podCIDR,
		"--service-cluster-ip-range=" + serviceCIDR,
		"--flex-volume-plugin-dir=" + volumePlugins,
		// The default limit on its own requests makes the start of its fifty controllers take 5 s.
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--bind-address=127.0.0.1",
		"--profiling=false",
	}}
}

func (n *node) scheduler() component {
	return component{"kube-scheduler", []string{
		"--kubeconfig=" + n.folder.Etc("kube-scheduler.kubeconfig"),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--profiling=false",
	}}
}

func (n *node) containerd() component {
	return component{"containerd", []string{"--config=" + n.folder.Etc("containerd.toml")}}
}

func (n *node) kubelet() component {
	return component{"kubelet", []string{
		"--config=" + n.folder.Etc("kubelet.yaml"),
		"--kubeconfig=" + n.folder.Etc("kubelet.kubeconfig"),
		"--hostname-override=" + n.spec.hostname(),
		"--node-ip=" + nodeIP,
		"--root-dir=/var/lib/kubelet",
	}}
}

func (n *node) proxy() component {
	return component{"kube-proxy", []string{"--config=" + n.folder.Etc("kube-proxy.yaml")}}
}

// networkPolicy enforces NetworkPolicies and nothing else: the bridge plugin routes, kube-proxy serves Services.
func (n *node) networkPolicy() component {
	return component{"kube-router", []string{
		"--kubeconfig=" + n.folder.Etc("kube-router.kubeconfig"),
		"--hostname-override=" + n.spec.hostname(),
		"--run-firewall=true",
		"--run-router=false",
		"--run-service-proxy=false",
		"--enable-ipv6=false",
		"--service-cluster-ip-range=" + serviceCIDR,
		"--health-port=20244",
	}}
}
