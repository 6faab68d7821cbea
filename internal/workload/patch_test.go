package workload_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

func TestAPatchReachesWhatHasNoField(t *testing.T) {
	pod := func(spec string) string { return "spec: {template: {spec: {" + spec + "}}}" }
	process := func(field string) string { return pod("containers: [{name: app, " + field + "}]") }
	for name, c := range map[string]struct {
		patch string
		got   func(d *appsv1.Deployment) any
		want  any
	}{
		"a label":                  {"metadata: {labels: {team: payments}}", func(d *appsv1.Deployment) any { return d.Labels["team"] }, "payments"},
		"an annotation of pods":    {"spec: {template: {metadata: {annotations: {a.example/b: c}}}}", func(d *appsv1.Deployment) any { return d.Spec.Template.Annotations["a.example/b"] }, "c"},
		"a node selector":          {pod("nodeSelector: {disk: ssd}"), func(d *appsv1.Deployment) any { return d.Spec.Template.Spec.NodeSelector["disk"] }, "ssd"},
		"a tighter user":           {process("securityContext: {runAsUser: 1000}"), func(d *appsv1.Deployment) any { return *app(d).SecurityContext.RunAsUser }, int64(1000)},
		"a liveness probe":         {process("livenessProbe: {tcpSocket: {port: 9090}}"), func(d *appsv1.Deployment) any { return app(d).LivenessProbe.TCPSocket.Port.IntVal }, int32(9090)},
		"a larger /tmp":            {pod("volumes: [{name: tmp, emptyDir: {sizeLimit: 2Gi}}]"), func(d *appsv1.Deployment) any { return volume(d, "tmp").EmptyDir.SizeLimit.String() }, "2Gi"},
		"a volume of its own":      {pod("volumes: [{name: cache, emptyDir: {}}], containers: [{name: app, volumeMounts: [{name: cache, mountPath: /cache}]}]"), func(d *appsv1.Deployment) any { return len(app(d).VolumeMounts) }, 4},
		"more time":                {pod("terminationGracePeriodSeconds: 90, containers: [{name: app, lifecycle: {preStop: {sleep: {seconds: 20}}}}]"), func(d *appsv1.Deployment) any { return *d.Spec.Template.Spec.TerminationGracePeriodSeconds }, int64(90)},
		"a container beside it":    {pod("containers: [{name: backup, image: b}]"), func(d *appsv1.Deployment) any { return names(d.Spec.Template.Spec.Containers) }, []string{"backup", "app"}},
		"what runs before":         {pod("initContainers: [{name: migrate, image: m}]"), func(d *appsv1.Deployment) any { return names(d.Spec.Template.Spec.InitContainers) }, []string{"migrate", "proxy"}},
		"what runs with the mesh":  {pod("initContainers: [{name: proxy}, {name: migrate, image: m}]"), func(d *appsv1.Deployment) any { return names(d.Spec.Template.Spec.InitContainers) }, []string{"proxy", "migrate"}},
		"another variable":         {process("env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]"), func(d *appsv1.Deployment) any { return len(app(d).Env) }, 3},
		"nothing":                  {"{}", func(d *appsv1.Deployment) any { return d.Name }, "payment-service"},
		"a value with an exponent": {process("resources: {limits: {memory: '1e9'}}"), func(d *appsv1.Deployment) any { return app(d).Resources.Limits.Memory().Value() }, int64(1e9)},
	} {
		s := payment(t)
		s.Workload.Patch = fields(t, c.patch)
		objects, problems := workload.Service(s, proxyFiles, options)
		if len(problems) > 0 {
			t.Errorf("%s: %s", name, said(problems))
			continue
		}
		d := find[*appsv1.Deployment](objects, s.Key.Name)
		if diff := cmp.Diff(c.want, c.got(d)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		unreached(t, name, deployment(t, payment(t)), d)
	}
}

func TestAPatchThatReachesWhatItMayNotIsRefusedWithThePath(t *testing.T) {
	pod := func(spec string) string { return "spec: {template: {spec: {" + spec + "}}}" }
	app := func(field string) string { return pod("containers: [{name: app, " + field + "}]") }
	proxy := func(field string) string { return pod("initContainers: [{name: proxy, " + field + "}]") }
	const spec = ".spec.template.spec."
	for name, c := range map[string]struct{ patch, want string }{
		"another object":                  {"metadata: {name: other}", ".metadata.name: is the operator's"},
		"another namespace":               {"metadata: {namespace: other}", ".metadata.namespace:"},
		"another kind":                    {"kind: DaemonSet", ".kind:"},
		"an owner":                        {"metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: z}]}", ".metadata.ownerReferences:"},
		"a finalizer":                     {"metadata: {finalizers: [a.example/b]}", ".metadata.finalizers:"},
		"a status":                        {"status: {replicas: 3}", ".status.replicas:"},
		"the selector":                    {"spec: {selector: {matchLabels: {a: b}}}", ".spec.selector.matchLabels.a:"},
		"the replicas":                    {"spec: {replicas: 3}", ".spec.replicas:"},
		"the strategy of a volume":        {"spec: {strategy: {type: RollingUpdate}}", ".spec.strategy.type:"},
		"its label":                       {"metadata: {labels: {app: other}}", ".metadata.labels.app:"},
		"no labels":                       {"metadata: {labels: null}", ".metadata.labels:"},
		"another role":                    {"spec: {template: {metadata: {labels: {mesh.jia.app/gateway: public}}}}", ".spec.template.metadata.labels.mesh.jia.app/gateway:"},
		"no endpoint":                     {"spec: {template: {metadata: {labels: {mesh.jia.app/endpoint: null}}}}", ".spec.template.metadata.labels.mesh.jia.app/endpoint:"},
		"a hash":                          {"spec: {template: {metadata: {annotations: {mesh.jia.app/proxy-hash: x}}}}", ".spec.template.metadata.annotations.mesh.jia.app/proxy-hash:"},
		"the service account":             {pod("serviceAccountName: admin"), spec + "serviceAccountName:"},
		"the service account's old name":  {pod("serviceAccount: admin"), spec + "serviceAccount:"},
		"the host's network":              {pod("hostNetwork: true"), spec + "hostNetwork:"},
		"the host's processes":            {pod("hostPID: true"), spec + "hostPID:"},
		"the host's IPC":                  {pod("hostIPC: true"), spec + "hostIPC:"},
		"processes of other containers":   {pod("shareProcessNamespace: true"), spec + "shareProcessNamespace:"},
		"another restart policy":          {pod("restartPolicy: Never"), spec + "restartPolicy:"},
		"less time":                       {pod("terminationGracePeriodSeconds: 5"), spec + "terminationGracePeriodSeconds:"},
		"no time":                         {pod("terminationGracePeriodSeconds: null"), spec + "terminationGracePeriodSeconds:"},
		"the proxy's image":               {proxy("image: evil"), spec + "initContainers[proxy].image:"},
		"the proxy's arguments":           {proxy("args: [-c, /tmp/mine.yaml]"), spec + "initContainers[proxy].args[1]:"},
		"a variable of the proxy":         {proxy("env: [{name: LD_PRELOAD, value: x}]"), spec + "initContainers[proxy].env[LD_PRELOAD]:"},
		"a mount of the proxy":            {proxy("volumeMounts: [{name: tmp, mountPath: /etc/paymesh/proxy}]"), spec + "initContainers[proxy].volumeMounts[/etc/paymesh/proxy].name:"},
		"the proxy's probe":               {proxy("startupProbe: null"), spec + "initContainers[proxy].startupProbe:"},
		"a proxy that runs once":          {proxy("restartPolicy: null"), spec + "initContainers[proxy].restartPolicy:"},
		"a proxy as root":                 {proxy("securityContext: {runAsUser: 0}"), spec + "initContainers[proxy].securityContext.runAsUser:"},
		"no proxy":                        {proxy("$patch: delete"), spec + "initContainers"},
		"no init containers":              {pod("initContainers: null"), spec + "initContainers"},
		"others in their place":           {pod("initContainers: [{$patch: replace}, {name: x, image: i}]"), spec + "initContainers[proxy]:"},
		"a whole new pod":                 {"spec: {template: {spec: {$patch: replace, containers: [{name: app, image: x}]}}}", spec},
		"no process":                      {app("$patch: delete"), spec + "containers"},
		"a variable of the operator":      {app("env: [{name: CONTACT_SERVICE_ADDRESS, value: '1.2.3.4:5'}]"), spec + "containers[app].env[CONTACT_SERVICE_ADDRESS].value:"},
		"no variables":                    {app("env: null"), spec + "containers[app].env"},
		"a variable against the mesh":     {app("env: [{name: GRPC_ADDRESS, value: ':8081'}]"), spec + "containers[app].env[GRPC_ADDRESS]:"},
		"a store elsewhere":               {app("env: [{name: STORE_PATH, value: /tmp/payments.db}]"), spec + "containers[app].env[STORE_PATH]:"},
		"variables from elsewhere":        {app("envFrom: [{configMapRef: {name: mine}}]"), spec + "containers[app].envFrom"},
		"another config by an argument":   {app("args: [--config, /mine/config.yaml]"), spec + "containers[app].args"},
		"another process":                 {app("command: [/bin/sh]"), spec + "containers[app].command"},
		"a token for the API server":      {pod("automountServiceAccountToken: true"), spec + "automountServiceAccountToken:"},
		"a change that waits":             {"spec: {paused: true}", ".spec.paused:"},
		"the Workload API in the process": {app("volumeMounts: [{name: workload-api, mountPath: /w}]"), spec + "containers[app].volumeMounts[/w]:"},
		"the Workload API in another":     {pod("containers: [{name: x, image: i, volumeMounts: [{name: workload-api, mountPath: /w}]}]"), spec + "containers[x].volumeMounts"},
		"the Workload API before":         {pod("initContainers: [{name: x, image: i, volumeMounts: [{name: workload-api, mountPath: /w}]}]"), spec + "initContainers[x].volumeMounts"},
		"another config":                  {app("volumeMounts: [{name: tmp, mountPath: /etc/paymesh/config}]"), spec + "containers[app].volumeMounts[/etc/paymesh/config].name:"},
		"a file over the config":          {app("volumeMounts: [{name: tmp, mountPath: /etc/paymesh/config/config.yaml, subPath: x}]"), spec + "containers[app].volumeMounts"},
		"the config by a longer path":     {app("volumeMounts: [{name: tmp, mountPath: /etc/paymesh/config/}]"), spec + "containers[app].volumeMounts"},
		"no sleep":                        {app("lifecycle: null"), spec + "containers[app].lifecycle:"},
		"a shorter sleep":                 {app("lifecycle: {preStop: {sleep: {seconds: 1}}}"), spec + "containers[app].lifecycle.preStop.sleep.seconds:"},
		"another hook":                    {app("lifecycle: {preStop: {sleep: null, exec: {command: [x]}}}"), spec + "containers[app].lifecycle.preStop.sleep:"},
		"the proxy's files":               {pod("volumes: [{name: proxy-config, configMap: {name: mine}}]"), spec + "volumes[proxy-config].configMap.name:"},
		"the process's files":             {pod("volumes: [{name: config, configMap: null, emptyDir: {}}]"), spec + "volumes[config].configMap:"},
		"the Workload API's folder":       {pod("volumes: [{name: workload-api, hostPath: {path: /x}}]"), spec + "volumes[workload-api].hostPath.path:"},
		"no volumes":                      {pod("volumes: null"), spec + "volumes"},
		"a second way to the socket":      {pod("volumes: [{name: x, hostPath: {path: /run/spire/agent-sockets}}]"), spec + "volumes[x]:"},
		"a way from above":                {pod("volumes: [{name: x, hostPath: {path: /}}]"), spec + "volumes[x]:"},
		"a way to the socket itself":      {pod("volumes: [{name: x, hostPath: {path: /var/run/spire/../spire/agent-sockets/spire-agent.sock}}]"), spec + "volumes[x]:"},
		"a way by the name of another":    {pod("volumes: [{name: tmp, emptyDir: null, hostPath: {path: /run}}]"), spec + "volumes"},
		"an ephemeral container":          {pod("ephemeralContainers: [{name: x, image: i}]"), spec + "ephemeralContainers"},
		"an unknown field":                {pod("nodeSelectr: {a: b}"), `unknown field "spec.template.spec.nodeSelectr" in a Deployment: correct or remove it`},
		"a field in another case":         {pod("Hostnetwork: true"), `unknown field "spec.template.spec.Hostnetwork"`},
		"a wrong type":                    {pod("nodeSelector: 5"), "spec.workload.patch: "},
		"an item without a name":          {pod("containers: [{image: x}]"), "does not contain declared merge key: name"},
		"an exponent":                     {app("resources: {limits: {memory: '1e-99999999'}}"), spec + "containers[0].resources.limits.memory: has an exponent"},
		"a number with one":               {app("resources: {limits: {memory: 1e99999999}}"), spec + "containers[0].resources.limits.memory: has an exponent"},
		"no object":                       {"[]", "spec.workload.patch: is no object"},
	} {
		s := payment(t)
		s.Workload.Patch = fields(t, c.patch)
		if name == "a number with one" {
			s.Workload.Patch = &apiextensionsv1.JSON{Raw: []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"app","resources":{"limits":{"memory":1e99999999}}}]}}}}`)}
		}
		objects, problems := workload.Service(s, proxyFiles, options)
		if got := said(problems); len(problems) != 1 || !strings.Contains(got, c.want) || !strings.HasPrefix(got, "Accepted PatchInvalid spec.workload.patch") {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if find[*appsv1.Deployment](objects, s.Key.Name) != nil {
			t.Errorf("%s: there is a Deployment", name)
		}
	}
}

func TestInTheLibraryAPatchCannotTakeTheProcessItsIdentity(t *testing.T) {
	for name, patch := range map[string]string{
		"the mount":    "volumeMounts: [{mountPath: /run/spiffe/workload-api, $patch: delete}]",
		"the socket":   "env: [{name: SPIFFE_ENDPOINT_SOCKET, value: 'unix:///mine'}]",
		"the rules":    "env: [{name: PAYMESH_POLICY_FILE, value: /mine}]",
		"other rules":  "env: [{name: AUTH_POLICY_FILE, value: /mine}]",
		"mTLS":         "env: [{name: MTLS_ENABLED, value: 'false'}]",
		"who it is":    "env: [{name: PAYMESH_SPIFFE_ID, $patch: delete}]",
		"another file": "volumeMounts: [{name: tmp, mountPath: /run/spiffe/workload-api/spire-agent.sock}]",
	} {
		s := library(t)
		s.Workload.Patch = fields(t, "spec: {template: {spec: {containers: [{name: app, "+patch+"}]}}}")
		if _, problems := workload.Service(s, proxyFiles, options); !strings.Contains(said(problems), "PatchInvalid spec.workload.patch.spec.template.spec.containers[app].") {
			t.Errorf("%s: %s", name, said(problems))
		}
	}
}

// TestNoChangeOfASingleValueReachesTheProxy tries every value of the Deployment: it is set to another, and taken out.
func TestNoChangeOfASingleValueReachesTheProxy(t *testing.T) {
	for dataPlane, s := range map[string]mesh.Service{"sidecar": payment(t), "library": library(t)} {
		base := deployment(t, s)
		raw, err := json.Marshal(base)
		if err != nil {
			t.Fatal(err)
		}
		var whole map[string]any
		if err := json.Unmarshal(raw, &whole); err != nil {
			t.Fatal(err)
		}
		refused, taken := 0, 0
		for _, patch := range patchesOf(whole) {
			raw, err := json.Marshal(patch)
			if err != nil {
				t.Fatal(err)
			}
			s.Workload.Patch = &apiextensionsv1.JSON{Raw: raw}
			objects, problems := workload.Service(s, proxyFiles, options)
			if len(problems) > 0 {
				refused++
				continue
			}
			taken++
			unreached(t, dataPlane+" "+string(raw), base, find[*appsv1.Deployment](objects, s.Key.Name))
		}
		if refused < 100 || taken < 20 {
			t.Errorf("%s: %d patches were refused and %d taken: these are too few to tell", dataPlane, refused, taken)
		}
	}
}

// patchesOf are patches of an object that each change one thing in it.
func patchesOf(value any) []any {
	var patches []any
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			patches = append(patches, map[string]any{key: nil})
			for _, patch := range patchesOf(value[key]) {
				patches = append(patches, map[string]any{key: patch})
			}
		}
		patches = append(patches, map[string]any{"$patch": "replace"}, map[string]any{"$patch": "delete"}, map[string]any{"name": "other"})
	case []any:
		patches = append(patches, []any{}, []any{map[string]any{"$patch": "replace"}})
		for _, item := range value {
			of := []string{"name", "mountPath", "containerPort", "topologyKey"}
			for _, patch := range patchesOf(item) {
				if fields, ok := patch.(map[string]any); ok {
					for _, key := range of {
						if was, ok := item.(map[string]any)[key]; ok && fields[key] == nil {
							fields[key] = was
						}
					}
				}
				patches = append(patches, []any{patch})
			}
		}
	case string:
		patches = append(patches, value+"x", "", "$(POD_NAME)")
	case bool:
		patches = append(patches, !value)
	case float64:
		patches = append(patches, value+1, value-1, 0)
	}
	return patches
}

// unreached holds, without the code under test, what no patch may change.
func unreached(t *testing.T, what string, base, d *appsv1.Deployment) {
	t.Helper()
	was, is := &base.Spec.Template.Spec, &d.Spec.Template.Spec
	proxies := func(list []corev1.Container) (found []corev1.Container) {
		for _, c := range list {
			if c.Name == "proxy" {
				found = append(found, c)
			}
		}
		return found
	}
	type held struct {
		Name, Namespace, Account, OldAccount string
		Selector, Proxies, Labels            any
		Host                                 []bool
		Replicas                             int32
	}
	of := func(d *appsv1.Deployment, p *corev1.PodSpec) held {
		labels := map[string]string{}
		for key, value := range d.Spec.Template.Labels {
			if key == "app" || strings.HasPrefix(key, "mesh.jia.app/") {
				labels[key] = value
			}
		}
		return held{
			d.Name, d.Namespace, p.ServiceAccountName, p.DeprecatedServiceAccount, d.Spec.Selector, proxies(p.InitContainers), labels,
			[]bool{p.HostNetwork, p.HostPID, p.HostIPC, p.ShareProcessNamespace != nil},
			*d.Spec.Replicas,
		}
	}
	if diff := cmp.Diff(of(base, was), of(d, is)); diff != "" {
		t.Errorf("%s reached (-base +patched):\n%s", what, diff)
	}
	for _, v := range was.Volumes {
		if v.Name != "tmp" && !cmp.Equal(&v, volume(d, v.Name)) {
			t.Errorf("%s reached the volume %s", what, v.Name)
		}
	}
	for _, c := range slices.Concat(is.InitContainers, is.Containers) {
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "workload-api" })
		want := c.Name == "proxy" || c.Name == "app" && len(proxies(was.InitContainers)) == 0
		if mounted != want {
			t.Errorf("%s: the Workload API in container %s: %v, want %v", what, c.Name, mounted, want)
		}
	}
	if *is.TerminationGracePeriodSeconds < *was.TerminationGracePeriodSeconds || app(d).Lifecycle.PreStop.Sleep.Seconds < 5 {
		t.Errorf("%s: the process has less time to end", what)
	}
}

func app(d *appsv1.Deployment) *corev1.Container {
	for i, c := range d.Spec.Template.Spec.Containers {
		if c.Name == "app" {
			return &d.Spec.Template.Spec.Containers[i]
		}
	}
	return nil
}

func volume(d *appsv1.Deployment, name string) *corev1.Volume {
	for i, v := range d.Spec.Template.Spec.Volumes {
		if v.Name == name {
			return &d.Spec.Template.Spec.Volumes[i]
		}
	}
	return nil
}

func names(containers []corev1.Container) (names []string) {
	for _, c := range containers {
		names = append(names, c.Name)
	}
	return names
}
