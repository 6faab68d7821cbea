package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/jia-app/paymesh/internal/mesh"
)

// The names of what is in a pod.
const (
	containerApp = "app"
	// ContainerProxy is Envoy.
	ContainerProxy = "proxy"

	volumeProxy       = "proxy-config"
	volumeConfig      = "config"
	volumePolicy      = "policy"
	volumeWorkloadAPI = "workload-api"
	volumeData        = "data"
	volumeTmp         = "tmp"
	volumeFiles       = "files-" // and the name of the file source
	volumeTLS         = "tls"    // the Secrets of a gateway's listeners

	// The folders, beside those of a proxy.
	configDir      = mesh.ReservedDir + "/config"
	policyDir      = mesh.ReservedDir + "/policy"
	filesDir       = mesh.ReservedDir + "/files"
	workloadAPIDir = "/run/spiffe/workload-api"
)

const (
	// nobody is who runs in the containers whose image does not say: not root, which Pod Security restricted refuses.
	nobody = 65532

	// probeSeconds is how often containers are asked whether they are ready, and probeTimeoutSeconds how long they may take:
	// an endpoint that is down costs its callers no longer than a few calls.
	probeSeconds        = 2
	probeTimeoutSeconds = 2
	// neverGiveUp is how often the proxy may fail its startup probe: without SPIRE or a manager a pod waits, and a restart
	// would help nobody.
	neverGiveUp = math.MaxInt32

	// drainSeconds is how long the connections of a listener that changed have, and go by what it was: longer than the calls
	// take that come through a gateway, so that none is cut off. Who may call is not part of a listener, and holds at once.
	// The keys of a gateway's issuers are. Envoy's default is 10 minutes.
	drainSeconds = 20

	// preStopSeconds is how long a process goes on after its pod was told to end: until EndpointSlices, the managers and
	// every caller's proxy know that it goes. Measured: well under a second on an idle cluster.
	preStopSeconds = 5
	// shutdownSeconds is how long calls under way may take to end, where the process does not say.
	shutdownSeconds = 20
	// endSeconds is for what ends last: a process that closes its store, and after it the proxy.
	endSeconds = 5
	// gatewayPreStopSeconds is how long a gateway goes on: a balancer outside the cluster is slower to see that it goes, and
	// its clients' connections must come to their end meanwhile: the xDS stage bounds their age, and how long they drain, to 25 s
	// together. Envoy itself ends at once.
	gatewayPreStopSeconds = 30
)

// The annotations of pods that change when they must be replaced.
const (
	annotationConfig = "mesh.jia.app/config-hash"
	annotationProxy  = "mesh.jia.app/proxy-hash"
)

// hash is short for content: whoever could make two of the same could write the content anyway.
func hash(content map[string]string) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(content)) {
		fmt.Fprintf(sum, "%d:%s%d:%s", len(name), name, len(content[name]), content[name])
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// restrictedPod is the part of Pod Security restricted that is the pod's. Volumes belong to the group, so that the user can
// write to them.
func restrictedPod() *corev1.PodSecurityContext {
	yes, id, change := true, int64(nobody), corev1.FSGroupChangeOnRootMismatch
	return &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &id, RunAsGroup: &id, FSGroup: &id, FSGroupChangePolicy: &change,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func restricted() *corev1.SecurityContext {
	yes, no := true, false
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func httpProbe(path string, port int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(port)}},
		PeriodSeconds: probeSeconds, TimeoutSeconds: probeTimeoutSeconds,
	}
}

func sleep(seconds int64) *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}}
}

// asks is what the kubelet asks a proxy: it is ready when its listeners take connections and its routes are in use.
func asks(port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
		Scheme: corev1.URISchemeHTTP, Path: mesh.ReadyPath, Port: intstr.FromInt32(port), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: mesh.ReadyHost}},
	}}
}

// proxy is Envoy's container, without what a sidecar and a gateway have of their own. It says by itself all that the pod's
// security context says, too, which the patch of a workload may change.
func (o Options) proxy(key mesh.ProxyKey, ready corev1.ProbeHandler) corev1.Container {
	startup := &corev1.Probe{ProbeHandler: ready, PeriodSeconds: 1, TimeoutSeconds: probeTimeoutSeconds, FailureThreshold: neverGiveUp}
	security, pod := restricted(), restrictedPod()
	security.RunAsNonRoot, security.RunAsUser, security.RunAsGroup, security.SeccompProfile = pod.RunAsNonRoot, pod.RunAsUser, pod.RunAsGroup, pod.SeccompProfile
	return corev1.Container{
		Name: ContainerProxy, Image: o.ProxyImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{
			"-c", mesh.ProxyDir + "/envoy.yaml",
			"--service-node", key.NodeID("$(POD_NAME)"),
			"--service-cluster", key.Namespace + "/" + key.Name,
			"--concurrency", "2", // one a CPU would be dozens on a large node, each with its own connections
			"--drain-time-s", strconv.Itoa(drainSeconds),
			"--disable-hot-restart",  // which needs shared memory, that this container cannot write
			"--log-level", "warning", // below it are 60 kB of what is compiled in
			"--file-flush-interval-msec", // of the access log; the default is 10 s
			"1000",
		},
		Env: []corev1.EnvVar{{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}}},
		Ports: []corev1.ContainerPort{
			{Name: "stats", ContainerPort: mesh.StatsPort, Protocol: corev1.ProtocolTCP},
		},
		StartupProbe: startup, ReadinessProbe: &corev1.Probe{ProbeHandler: *ready.DeepCopy(), PeriodSeconds: probeSeconds, TimeoutSeconds: probeTimeoutSeconds},
		SecurityContext: security,
		VolumeMounts:    []corev1.VolumeMount{{Name: volumeProxy, MountPath: mesh.ProxyDir, ReadOnly: true}, workloadAPIMount()},
	}
}

// proxyResources are what an Envoy of this mesh was seen to need: 70 MB with one dependency. There is no limit of CPU, which
// would make calls late and nothing safer.
func proxyResources(cpu, memory, limit string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)},
	}
}

func workloadAPIMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: volumeWorkloadAPI, MountPath: workloadAPIDir, ReadOnly: true}
}

// workloadAPIVolume is the folder of the SPIRE agent's socket: the folder, so that the socket of a restarted agent is seen.
func (o Options) workloadAPIVolume() corev1.Volume {
	volume := corev1.Volume{Name: volumeWorkloadAPI}
	if o.WorkloadAPICSIDriver != "" {
		yes := true
		volume.CSI = &corev1.CSIVolumeSource{Driver: o.WorkloadAPICSIDriver, ReadOnly: &yes}
		return volume
	}
	create := corev1.HostPathDirectoryOrCreate // a pod that comes before the agent waits in its proxy, where it shows why
	volume.HostPath = &corev1.HostPathVolumeSource{Path: o.WorkloadAPIHostPath, Type: &create}
	return volume
}

func configMapVolume(volume, configMap string) corev1.Volume {
	return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
	}}}
}

// pod is the part of a pod's spec that all have.
func pod(serviceAccount string, graceSeconds int64) corev1.PodSpec {
	no, links := false, false
	return corev1.PodSpec{
		ServiceAccountName: serviceAccount, AutomountServiceAccountToken: &no, EnableServiceLinks: &links,
		TerminationGracePeriodSeconds: &graceSeconds, SecurityContext: restrictedPod(),
	}
}
