package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/owned"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds/server"
)

var payKey = mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "payments", Name: "pay"}}

// judged is what a judge's method makes of a condition: "status reason" and the message.
func judged(j judge, condition string, method func(judge)) (verdict, message string) {
	var conditions []metav1.Condition
	j.conditions = &conditions
	method(j)
	found := meta.FindStatusCondition(conditions, condition)
	if found == nil {
		return "", ""
	}
	return string(found.Status) + " " + found.Reason, found.Message
}

func TestProgrammedMeansThatEveryProxyConfirmedTheCurrentVersion(t *testing.T) {
	pods := []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}}
	synced := map[string]server.Proxy{"a": {Pod: "a", Synced: true}, "b": {Pod: "b", Synced: true}}
	none := int32(0)
	for name, test := range map[string]struct {
		proxied  bool
		want     rendering
		facts    facts
		verdict  string
		mentions []string
	}{
		"all of them have": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, proxies: synced, served: "2"},
			"True Programmed",
			[]string{"2 of 2 proxies have accepted version 2"},
		},
		"the manager itself is behind": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, proxies: synced, served: "1"},
			"False Pending",
			[]string{"about to send version 2"},
		},
		"one is behind": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, proxies: map[string]server.Proxy{"a": {Pod: "a", Synced: true}, "b": {Pod: "b"}}, served: "2"},
			"False Pending",
			[]string{"have not accepted version 2 yet: b"},
		},
		"one is not connected": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, proxies: map[string]server.Proxy{"a": {Pod: "a", Synced: true}}, served: "2"},
			"False Pending",
			[]string{"not connected to the manager (yet): b"},
		},
		"one is not connected, and a replica is silent": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, proxies: map[string]server.Proxy{"a": {Pod: "a", Synced: true}}, served: "2", peers: []server.PeerState{{Address: "10.0.0.9:18000", Error: "timeout"}}},
			"False Pending",
			[]string{": b", "do not say what they see: 10.0.0.9:18000 timeout"},
		},
		"one rejects": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, served: "2", proxies: map[string]server.Proxy{"a": {Pod: "a", Synced: true}, "b": {Pod: "b", NACK: &server.NACK{
				TypeURL: "type.googleapis.com/envoy.config.listener.v3.Listener", Message: "bad port", Resources: []string{"inbound"},
			}}}},
			"False NACKed",
			[]string{"pod b rejects inbound of type Listener", "says: bad port"},
		},
		"nobody is connected": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods, served: "2"},
			"Unknown NoProxies", nil,
		},
		"a pod that ends is connected, and no other": {
			true,
			rendering{accepted: true, version: "2"},
			facts{pods: pods[:1], proxies: map[string]server.Proxy{"b": {Pod: "b", Synced: true}}, served: "2"},
			"Unknown NoProxies", nil,
		},
		"no pod is there yet": {
			true,
			rendering{accepted: true, version: "2"},
			facts{served: "2"},
			"Unknown NoProxies", nil,
		},
		"no pod is wanted": {
			true,
			rendering{accepted: true, version: "2"},
			facts{served: "2", deployment: &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &none}}},
			"True NotApplicable", nil,
		},
		"there is no proxy":       {false, rendering{accepted: true}, facts{pods: pods}, "True NotApplicable", []string{"Library"}},
		"nothing is to be served": {true, rendering{}, facts{pods: pods, proxies: synced, served: "1"}, "Unknown NotAccepted", []string{"keep what they have"}},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, message := judged(judge{deployed: deployed{want: test.want, facts: test.facts}}, meshv1alpha1.ConditionProgrammed, func(j judge) { j.programmed(test.proxied) })
			if verdict != test.verdict {
				t.Errorf("got %s (%s), want %s", verdict, message, test.verdict)
			}
			for _, mention := range test.mentions {
				if !strings.Contains(message, mention) {
					t.Errorf("%q does not mention %q", message, mention)
				}
			}
		})
	}
}

func TestWorkloadReadySaysWhatStandsInTheWay(t *testing.T) {
	two := int32(2)
	deployment := func(observed int64, replicas, updated, available int32) *appsv1.Deployment {
		return &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: appsv1.DeploymentSpec{Replicas: &two},
			Status: appsv1.DeploymentStatus{ObservedGeneration: observed, Replicas: replicas, UpdatedReplicas: updated, AvailableReplicas: available},
		}
	}
	quota := deployment(2, 0, 0, 0)
	quota.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}
	accepted, leaving := rendering{accepted: true}, []types.NamespacedName{{Namespace: "payments", Name: "pay-data"}}
	for name, test := range map[string]struct {
		want              rendering
		facts             facts
		verdict, mentions string
	}{
		"every pod is available":                      {accepted, facts{deployment: deployment(2, 2, 2, 2)}, "True Available", "2 of 2 pods"},
		"its change is not seen yet":                  {accepted, facts{deployment: deployment(1, 2, 2, 2)}, "False Progressing", ""},
		"an old pod is still there":                   {accepted, facts{deployment: deployment(2, 3, 2, 2)}, "False Progressing", ""},
		"a pod is not available":                      {accepted, facts{deployment: deployment(2, 2, 2, 1)}, "False Progressing", "2 of 2 pods are of the wanted revision, 1 available"},
		"pods cannot be made":                         {accepted, facts{deployment: quota}, "False Progressing", "exceeded quota"},
		"there is no Deployment":                      {accepted, facts{}, "False Progressing", "is being made"},
		"an object is refused":                        {accepted, facts{applied: errors.New("apply Service: port 0"), deployment: deployment(2, 2, 2, 2)}, "False ApplyFailed", "port 0"},
		"an object is somebody's":                     {accepted, facts{applied: fmt.Errorf("Service x exists and %w", owned.ErrForeign)}, "False ForeignObject", "Service x"},
		"the identity is refused":                     {rendering{}, facts{deployment: deployment(2, 2, 2, 2)}, "False NotAccepted", "stays as it is"},
		"the objects are not whole":                   {rendering{accepted: true, problems: []mesh.Problem{{}}}, facts{deployment: deployment(2, 2, 2, 2)}, "False NotAccepted", ""},
		"a volume's claim goes":                       {accepted, facts{deployment: deployment(2, 2, 2, 2), leaving: leaving}, "False VolumeTerminating", "PersistentVolumeClaim payments/pay-data is being deleted"},
		"a claim goes, and the identity is refused":   {rendering{}, facts{deployment: deployment(2, 2, 2, 2), leaving: leaving}, "False VolumeTerminating", "PersistentVolumeClaim payments/pay-data is being deleted"},
		"a claim goes, and the objects are not whole": {rendering{accepted: true, problems: []mesh.Problem{{}}}, facts{leaving: leaving}, "False VolumeTerminating", "}}'. Besides, what runs stays as it is, since it is not known"},
		"a claim goes, and an object is refused":      {accepted, facts{applied: errors.New("apply Service: port 0"), leaving: leaving}, "False VolumeTerminating", "}}'. Besides, apply Service: port 0"},
		"a pod waits for its proxy":                   {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{proxyStarts()}}, "False Progressing", "pod a runs its proxy, which has no identity or no config yet"},
		"a gateway waits for its certificate":         {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{gatewayPod(t, false)}}, "False Progressing", "kubectl logs -n edge a -c proxy; where both are True, it can use the certificate of no listener: tls.crt and tls.key of each Secret must be PEM and belong together, and not be what proxies do not take (RSA below 2048 bits, a keyUsage without digitalSignature): pay-tls, shop-tls"},
		"a gateway has lost readiness":                {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{gatewayPod(t, true)}}, "False Progressing", "pod a runs its proxy, which is not ready: see the conditions Registered and Programmed, and kubectl logs -n edge a -c proxy; where both are True, it can use the certificate of no listener: "},
		"a pod cannot be placed":                      {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{unschedulable()}}, "False Progressing", "pod a cannot be scheduled: no node"},
		"a container ended in error":                  {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{crashed()}}, "False Progressing", "container app end with exit code 2"},
		"only a pod of many is named":                 {accepted, facts{deployment: deployment(2, 2, 2, 1), pods: []corev1.Pod{crashed(), readyPod()}}, "False Progressing", "pod a"},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, message := judged(judge{deployed: deployed{want: test.want, facts: test.facts}}, meshv1alpha1.ConditionWorkloadReady, judge.workloadReady)
			if verdict != test.verdict || !strings.Contains(message, test.mentions) {
				t.Errorf("got %s (%s), want %s with %q", verdict, message, test.verdict, test.mentions)
			}
			if strings.Contains(message, "pod ready") {
				t.Errorf("%q names a pod that is ready", message)
			}
		})
	}
}

func proxyStarts() corev1.Pod {
	started := false
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.PodStatus{
		InitContainerStatuses: []corev1.ContainerStatus{{Name: workload.ContainerProxy, Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}},
	}}
}

// gatewayPod is a pod of a gateway whose listeners share a Secret, two of three; it has once been ready, or never.
func gatewayPod(t *testing.T, once bool) corev1.Pod {
	t.Helper()
	g := mesh.Gateway{Key: types.NamespacedName{Namespace: "edge", Name: "public"}}
	for i, secret := range []string{"shop-tls", "pay-tls", "shop-tls"} {
		g.Listeners = append(g.Listeners, mesh.GatewayListener{Name: fmt.Sprint("l", i), TargetPort: mesh.FirstGatewayPort + int32(i), SecretName: secret})
	}
	pod := podOf(t, g, "a")
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: workload.ContainerProxy, Started: &once, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	return pod
}

func unschedulable() corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.PodStatus{
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node"}},
	}}
}

func crashed() corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.PodStatus{
		ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2}}}},
	}}
}

func readyPod() corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "ready"}, Status: corev1.PodStatus{
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}}
}

func TestRegisteredOfAServiceIsWhatItsIdentitySays(t *testing.T) {
	key := payKey.NamespacedName
	identity := func(generation int64) *meshv1alpha1.ServiceIdentity {
		object := &meshv1alpha1.ServiceIdentity{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
		set(&object.Status.Conditions, 1, metav1.Condition{Type: meshv1alpha1.ConditionRegistered, Status: metav1.ConditionFalse, Reason: meshv1alpha1.ReasonConflict, Message: "an entry is in the way"})
		return object
	}
	for name, test := range map[string]struct {
		identity *meshv1alpha1.ServiceIdentity
		want     string
	}{
		"there is none":          {nil, "Unknown Syncing"},
		"it says nothing yet":    {&meshv1alpha1.ServiceIdentity{}, "Unknown Syncing"},
		"it speaks of an old":    {identity(2), "Unknown Syncing"},
		"it says what it has":    {identity(1), "False Conflict"},
		"it says what is wanted": {identity(0), "False Conflict"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, message := judged(judge{deployed: deployed{facts: facts{identity: test.identity}}}, meshv1alpha1.ConditionRegistered, func(j judge) { j.registered(key) }); got != test.want || !strings.Contains(message, "payments/pay") {
				t.Errorf("got %s (%s), want %s, with the name", got, message, test.want)
			}
		})
	}
}

func TestAProblemIsTheObjectsOwnOfItsOwnKind(t *testing.T) {
	problem := func(kind, namespace, name, reason string) mesh.Problem {
		return mesh.Problem{Kind: kind, Object: types.NamespacedName{Namespace: namespace, Name: name}, Condition: meshv1alpha1.ConditionExposed, Reason: reason, Message: "why " + reason}
	}
	problems := problemsOf(payKey, []mesh.Problem{
		problem(mesh.KindMeshGateway, "payments", "pay", "A"), problem(mesh.KindMeshService, "people", "pay", "B"), problem(mesh.KindMeshService, "payments", "pay", "C"),
	}, []mesh.Problem{problem(mesh.KindMeshService, "payments", "pay", "D")})
	j := judge{deployed: deployed{problems: problems, want: rendering{accepted: true}}}
	if got, message := judged(j, meshv1alpha1.ConditionExposed, func(j judge) { j.exposed(true) }); got != "False C" || message != "why C; why D" {
		t.Errorf("got %s (%s)", got, message)
	}
	if got, _ := judged(j, meshv1alpha1.ConditionDependenciesResolved, func(j judge) { j.resolved(true) }); got != "True Resolved" {
		t.Errorf("got %s", got)
	}
}

func TestWhatTheUserHasToMendIsNotTriedAgainAtOnce(t *testing.T) {
	resource := schema.GroupResource{Resource: "services"}
	invalid, foreign := apierrors.NewForbidden(resource, "x", errors.New("quota")), fmt.Errorf("x: %w", owned.ErrForeign)
	away := apierrors.NewServerTimeout(resource, "patch", 1)
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"refused":           {fmt.Errorf("apply: %w", invalid), true},
		"somebody else's":   {foreign, true},
		"several":           {errors.Join(fmt.Errorf("apply: %w", invalid), foreign), true},
		"away":              {fmt.Errorf("apply: %w", away), false},
		"away, and refused": {errors.Join(fmt.Errorf("apply: %w", away), foreign), false},
	} {
		if got := stalled(test.err); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
