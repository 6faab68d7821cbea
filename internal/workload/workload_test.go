package workload_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

func TestPodsAreReplacedByWhatTheyReadAtTheirStartAndByNothingElse(t *testing.T) {
	another := func(t *testing.T, s *mesh.Service) {
		s.Rules = append(s.Rules, mesh.Rule{Name: "partner", ID: spiffeid.RequireFromString("spiffe://partner.example/x"), Methods: []string{"*"}})
	}
	for name, c := range map[string]struct {
		change    func(t *testing.T, s *mesh.Service)
		dataPlane meshv1alpha1.DataPlane
		rolls     bool
	}{
		"a new caller":                        {change: another},
		"a new caller, in the library":        {change: another, dataPlane: meshv1alpha1.DataPlaneLibrary},
		"a dependency takes its consent back": {change: func(_ *testing.T, s *mesh.Service) { s.Upstreams = nil }},
		"the same in the library":             {change: func(_ *testing.T, s *mesh.Service) { s.Upstreams = nil }, dataPlane: meshv1alpha1.DataPlaneLibrary},
		"a dependency is gone":                {change: func(_ *testing.T, s *mesh.Service) { s.Dependencies[0].ID = spiffeid.ID{} }},
		"other egress": {change: func(_ *testing.T, s *mesh.Service) {
			s.Egress = []meshv1alpha1.EgressRule{{Name: "db", Port: 5432, To: meshv1alpha1.EgressTarget{CIDR: "10.0.0.0/8"}}}
		}},
		"the volume grows": {change: func(_ *testing.T, s *mesh.Service) { s.Workload.Persistence.Size = "2Gi" }},
		"replicas":         {change: func(_ *testing.T, s *mesh.Service) { s.Workload.Replicas = new(int32) }},
		"a new dependency": {rolls: true, change: func(_ *testing.T, s *mesh.Service) {
			s.Dependencies = append(s.Dependencies, mesh.Dependency{Name: "family", LocalPort: 50053})
		}},
		"a key of config.yaml": {rolls: true, change: func(t *testing.T, s *mesh.Service) {
			s.Workload.Config = fields(t, jwt+"circuit_breaker: {enabled: false}")
		}},
		"a dependency's new port, in a library": {rolls: true, change: func(_ *testing.T, s *mesh.Service) { s.Dependencies[0].MeshPort = 15444 }, dataPlane: meshv1alpha1.DataPlaneLibrary},
		"the image":                             {rolls: true, change: func(_ *testing.T, s *mesh.Service) { s.Workload.Image = "x" }},
	} {
		s := payment(t)
		if c.dataPlane != "" {
			s = library(t)
		}
		before := template(t, s)
		c.change(t, &s)
		if diff := cmp.Diff(before, template(t, s)); (diff != "") != c.rolls {
			t.Errorf("%s: rolls %v, want %v:\n%s", name, diff != "", c.rolls, diff)
		}
	}
}

func TestPodsAreReplacedWhenTheirProxyStartsWithAnotherFile(t *testing.T) {
	other := map[string]string{"envoy.yaml": "# another\n"}
	s := payment(t)
	changed, problems := workload.Service(s, other, options)
	if len(problems) > 0 || text(t, find[*appsv1.Deployment](changed, s.Key.Name).Spec.Template) == template(t, s) {
		t.Error("a sidecar runs on with what it started with", problems)
	}
	l := library(t)
	changed, _ = workload.Service(l, other, options)
	if diff := cmp.Diff(template(t, l), text(t, find[*appsv1.Deployment](changed, l.Key.Name).Spec.Template)); diff != "" {
		t.Errorf("without a sidecar: %s", diff)
	}
}

func TestWhatAProcessFindsInItsEnvironment(t *testing.T) {
	secret := &meshv1alpha1.EnvVarSource{SecretKeyRef: meshv1alpha1.SecretKey{Name: "s", Key: "k"}}
	env := []meshv1alpha1.EnvVar{{Name: "Z", Value: "$(LEDGER_ADDRESS)"}, {Name: "LEDGER_ADDRESS", Value: "mine"}, {Name: "A", ValueFrom: secret}}
	for dataPlane, want := range map[meshv1alpha1.DataPlane][]string{
		meshv1alpha1.DataPlaneSidecar: {"CONTACT_SERVICE_ADDRESS=127.0.0.1:50051", "LEDGER_ADDRESS=127.0.0.1:50052", "Z=$(LEDGER_ADDRESS)", "A=s/k"},
		meshv1alpha1.DataPlaneLibrary: {
			"CONTACT_SERVICE_ADDRESS=contact-service.people.svc:15443", "CONTACT_SERVICE_SPIFFE_ID=spiffe://jia.app/contact-service",
			"LEDGER_ADDRESS=ledger.books.svc:15444", "LEDGER_SPIFFE_ID=spiffe://jia.app/ledger",
			"PAYMESH_POLICY_FILE=/etc/paymesh/policy/policy.yaml", "PAYMESH_SPIFFE_ID=spiffe://jia.app/payment-service",
			"SPIFFE_ENDPOINT_SOCKET=unix:///run/spiffe/workload-api/spire-agent.sock", "Z=$(LEDGER_ADDRESS)", "A=s/k",
		},
	} {
		s := payment(t)
		s.DataPlane, s.Workload.Env = dataPlane, env
		var got []string
		for _, e := range app(deployment(t, s)).Env {
			if e.ValueFrom != nil {
				e.Value = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
			}
			got = append(got, e.Name+"="+e.Value)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", dataPlane, diff)
		}
	}
}

func TestTheSidecarIsThereBeforeTheProcessAndWaitsForItsConfigForever(t *testing.T) {
	d := deployment(t, payment(t))
	spec := d.Spec.Template.Spec
	proxy := spec.InitContainers[0]
	if *proxy.RestartPolicy != corev1.ContainerRestartPolicyAlways || proxy.Lifecycle != nil {
		t.Errorf("restart policy %v, hooks %v: want a native sidecar without a hook", *proxy.RestartPolicy, proxy.Lifecycle)
	}
	asked := corev1.HTTPGetAction{Scheme: "HTTP", Path: "/ready", Port: intstr.FromInt32(15021), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "paymesh_ready"}}}
	if p := proxy.StartupProbe; !cmp.Equal(*p.HTTPGet, asked) || p.PeriodSeconds != 1 || p.FailureThreshold < 10*365*24*3600 {
		t.Errorf("startup probe %v", p)
	}
	if p := proxy.ReadinessProbe; !cmp.Equal(*p.HTTPGet, asked) {
		t.Errorf("readiness probe %v", p)
	}
	if id := "meshservice/payments/payment-service/$(POD_NAME)"; !slices.Contains(proxy.Args, id) || proxy.Env[0].ValueFrom.FieldRef.FieldPath != "metadata.name" {
		t.Errorf("no node ID %s in %v", id, proxy.Args)
	}
	if sleep := app(d).Lifecycle.PreStop.Sleep.Seconds; *spec.TerminationGracePeriodSeconds != sleep+20+5 {
		t.Errorf("grace period %d, sleep %d", *spec.TerminationGracePeriodSeconds, sleep)
	}
}

func TestAProcessIsAskedWhereItsHealthIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *meshv1alpha1.Workload)
		want   string
	}{
		"with a config":     {func(*meshv1alpha1.Workload) {}, "/health 9090"},
		"with neither":      {func(w *meshv1alpha1.Workload) { w.Config = nil }, ""},
		"where the spec is": {func(w *meshv1alpha1.Workload) { w.Health = &meshv1alpha1.Health{Path: "/ok", Port: 8080} }, "/ok 8080"},
	} {
		s := payment(t)
		c.change(&s.Workload)
		got := ""
		if probe := app(deployment(t, s)).ReadinessProbe; probe != nil {
			got = probe.HTTPGet.Path + " " + probe.HTTPGet.Port.String()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAVolumeHasOneWriterAndOutlivesItsServiceUnlessSaidOtherwise(t *testing.T) {
	s := payment(t)
	for policy, retained := range map[meshv1alpha1.RetentionPolicy]bool{"": true, meshv1alpha1.RetentionRetain: true, meshv1alpha1.RetentionDelete: false} {
		s.Workload.Persistence.WhenDeleted = policy
		objects := mustRender(t, s)
		for _, o := range objects {
			_, claim := o.(*corev1.PersistentVolumeClaim)
			if workload.Retained(o) != (claim && retained) {
				t.Errorf("%q: %T %s retained %v", policy, o, o.GetName(), workload.Retained(o))
			}
		}
		d := find[*appsv1.Deployment](objects, s.Key.Name)
		if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || *d.Spec.Replicas != 1 || find[*policyv1.PodDisruptionBudget](objects, s.Key.Name) != nil {
			t.Errorf("%v, %d replicas, or there is a budget", d.Spec.Strategy, *d.Spec.Replicas)
		}
	}
	s.Workload.Persistence, s.Workload.Config = nil, nil
	objects := mustRender(t, s)
	d := find[*appsv1.Deployment](objects, s.Key.Name)
	if r := d.Spec.Strategy.RollingUpdate; r.MaxUnavailable.IntVal != 0 || r.MaxSurge.IntVal != 1 || find[*policyv1.PodDisruptionBudget](objects, s.Key.Name) == nil {
		t.Errorf("%v, or there is no budget", d.Spec.Strategy)
	}
}

func TestALibraryThatCannotBeToldWhomToExpectStaysAsItIs(t *testing.T) {
	s := library(t)
	s.Dependencies[1].ID, s.Dependencies[1].MeshPort = spiffeid.ID{}, 0
	objects, problems := workload.Service(s, proxyFiles, options)
	if got := said(problems); len(problems) != 1 || !strings.HasPrefix(got, "DependenciesResolved ServiceNotAccepted spec.dependsOn[name=ledger].service") {
		t.Error(got)
	}
	if find[*appsv1.Deployment](objects, s.Key.Name) != nil || find[*networkingv1.NetworkPolicy](objects, s.Key.Name) == nil {
		t.Error("there is a Deployment, or no NetworkPolicy")
	}
}

func TestWhoMayCallALibraryDoesNotWaitForWhatElseIsWrong(t *testing.T) {
	for name, wrong := range map[string]func(s *mesh.Service){
		"a dependency is gone": func(s *mesh.Service) { s.Dependencies[1].ID = spiffeid.ID{} },
		"a bad config":         func(s *mesh.Service) { s.Workload.Config = fields(t, "colour: red") },
		"a bad patch":          func(s *mesh.Service) { s.Workload.Patch = fields(t, "spec: {replicas: 3}") },
	} {
		s := library(t)
		s.Rules = nil // all of them were taken back
		wrong(&s)
		objects, problems := workload.Service(s, proxyFiles, options)
		rules := find[*corev1.ConfigMap](objects, s.Key.Name+"-policy")
		if len(problems) == 0 || rules == nil || rules.Data["policy.yaml"] != "rules: []\n" {
			t.Errorf("%s: problems %s, rules %v", name, said(problems), rules)
		}
	}
}

func TestMoreRulesThanAPolicyFileHoldsKeepOnlyWhoReadsItFromRunning(t *testing.T) {
	for name, test := range map[string]struct {
		service mesh.Service
		runs    bool
	}{"with a sidecar": {payment(t), true}, "without": {library(t), false}} {
		s := test.service
		s.Rules = nil
		for i := range 40 {
			s.Rules = append(s.Rules, mesh.Rule{Name: fmt.Sprint("r", i), ID: spiffeid.RequireFromString("spiffe://jia.app/x"), Methods: []string{strings.Repeat("p", 30_000) + ".S/M"}})
		}
		objects, problems := workload.Service(s, proxyFiles, options)
		runs := len(problems) == 0 && find[*appsv1.Deployment](objects, s.Key.Name) != nil
		if runs != test.runs || find[*corev1.ConfigMap](objects, s.Key.Name+"-policy") != nil {
			t.Errorf("%s: it runs: %v, want %v: %s", name, runs, test.runs, said(problems))
		}
	}
}

func TestWhatNobodyCallsHasNoServiceAndNoWayIn(t *testing.T) {
	s := payment(t)
	s.Ports, s.Rules, s.NewIdentity, s.NewServiceAccount = nil, nil, nil, false
	objects := mustRender(t, s)
	if find[*corev1.Service](objects, s.Key.Name) != nil || find[*corev1.ServiceAccount](objects, s.Key.Name) != nil || find[*meshv1alpha1.ServiceIdentity](objects, s.Key.Name) != nil {
		t.Error("there is a Service, a ServiceAccount or a ServiceIdentity")
	}
	ingress := find[*networkingv1.NetworkPolicy](objects, s.Key.Name).Spec.Ingress
	if len(ingress) != 1 || ingress[0].Ports[0].Port.IntVal != 9090 || ingress[0].Ports[1].Port.IntVal != 15090 {
		t.Errorf("open is %v", ingress)
	}
}

func TestACallerFromOutsideOpensThePortToEverybodyAndNoOtherPort(t *testing.T) {
	s := payment(t)
	s.Ports = append(s.Ports, mesh.Port{Name: "admin", Port: 8082, MeshPort: 15444})
	s.Rules = append(s.Rules, mesh.Rule{Name: "partner", ID: spiffeid.RequireFromString("spiffe://partner.example/x"), Methods: []string{"*"}, PortName: "admin"})
	ingress := find[*networkingv1.NetworkPolicy](mustRender(t, s), s.Key.Name).Spec.Ingress
	if len(ingress) != 3 || len(ingress[0].From) != 1 || len(ingress[1].From) != 0 || ingress[1].Ports[0].Port.IntVal != 15444 {
		t.Errorf("open is %v", ingress)
	}
}

func TestAGatewayHasItsCertificatesMountedAndGoesSlowly(t *testing.T) {
	g := mesh.Gateway{
		Key: key("edge", "public"), ServiceAccountName: "public", Replicas: 2,
		Listeners: []mesh.GatewayListener{{Name: "https", Port: 443, TargetPort: 15643, SecretName: "public-tls"}},
		Spec:      &meshv1alpha1.MeshGatewaySpec{ServiceType: "LoadBalancer"},
	}
	objects, _ := workload.Gateway(g, proxyFiles, options)
	d := find[*appsv1.Deployment](objects, "public")
	proxy := d.Spec.Template.Spec.Containers[0]
	if !slices.ContainsFunc(proxy.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == "tls" && m.MountPath == "/etc/paymesh/tls" && m.ReadOnly
	}) {
		t.Errorf("mounts %v", proxy.VolumeMounts)
	}
	if sources := volume(d, "tls").Projected.Sources; len(sources) != 1 || sources[0].Secret.Name != "public-tls" || !*sources[0].Secret.Optional || sources[0].Secret.Items[1].Path != "15643/tls.key" {
		t.Errorf("the certificates are %v", sources)
	}
	asked := corev1.HTTPGetAction{Scheme: "HTTP", Path: "/ready", Port: intstr.FromInt32(15021), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "paymesh_ready"}}}
	if !cmp.Equal(*proxy.StartupProbe.HTTPGet, asked) || !cmp.Equal(*proxy.ReadinessProbe.HTTPGet, asked) || proxy.StartupProbe.FailureThreshold < 10*365*24*3600 {
		t.Errorf("probes %v and %v", proxy.StartupProbe, proxy.ReadinessProbe)
	}
	if *d.Spec.Template.Spec.TerminationGracePeriodSeconds != 35 || proxy.Lifecycle.PreStop.Sleep.Seconds != 30 || *d.Spec.Replicas != 2 {
		t.Errorf("grace period %d, sleep %d", *d.Spec.Template.Spec.TerminationGracePeriodSeconds, proxy.Lifecycle.PreStop.Sleep.Seconds)
	}
	service := find[*corev1.Service](objects, "public")
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.Ports[0].Port != 443 || service.Spec.Ports[0].TargetPort.IntVal != 15643 {
		t.Errorf("the Service is %v", service.Spec)
	}
}

func TestTheOrderOfListenersRollsNoPod(t *testing.T) {
	rendered := func(listeners ...meshv1alpha1.GatewayListener) string {
		gateway := meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
		gateway.Spec.Listeners = listeners
		gateway.Status.Listeners = []meshv1alpha1.ListenerRecord{{Name: "admin", TargetPort: 15644}, {Name: "https", TargetPort: 15643}}
		m, _ := mesh.Build(mesh.Objects{Cluster: corpusCluster(t), Gateways: []meshv1alpha1.MeshGateway{gateway}})
		return text(t, render(m))
	}
	https := meshv1alpha1.GatewayListener{Name: "https", Port: 443, TLS: meshv1alpha1.ListenerTLS{SecretName: "a"}}
	admin := meshv1alpha1.GatewayListener{Name: "admin", Port: 8443, TLS: meshv1alpha1.ListenerTLS{SecretName: "b"}}
	if diff := cmp.Diff(rendered(https, admin), rendered(admin, https)); diff != "" || !strings.Contains(rendered(https), "15643") {
		t.Errorf("(-one +other):\n%s", diff)
	}
}

func corpusCluster(t *testing.T) mesh.ClusterID {
	t.Helper()
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

func TestFileSourcesWithLongNamesHaveVolumesOfTheirOwn(t *testing.T) {
	s := payment(t)
	long := strings.Repeat("a", 62)
	s.Workload.Files = []meshv1alpha1.FileSource{{Name: meshv1alpha1.ItemName(long + "b"), ConfigMap: "b"}, {Name: meshv1alpha1.ItemName(long + "c"), ConfigMap: "c"}}
	seen := map[string]bool{}
	for _, v := range deployment(t, s).Spec.Template.Spec.Volumes {
		if seen[v.Name] || len(v.Name) > 63 {
			t.Errorf("volume %s", v.Name)
		}
		seen[v.Name] = true
	}
}
