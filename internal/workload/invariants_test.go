package workload_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/payment/config"
)

func TestEveryPodIsWhatPodSecurityRestrictedAsksForWithTheCSIDriverAndElseButForTheHostPath(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	csi := options
	csi.WorkloadAPIHostPath, csi.WorkloadAPICSIDriver = "", "csi.spiffe.io"
	each(t, func(t *testing.T, m mesh.Mesh) {
		for _, o := range []workload.Options{options, csi} {
			for _, d := range all[*appsv1.Deployment](renderWith(m, o).Objects) {
				level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
				template := d.Spec.Template.DeepCopy()
				for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
					if hostPath := strings.Contains(result.ForbiddenReason, "hostPath") || strings.Contains(result.ForbiddenDetail, "hostPath"); !result.Allowed && (!hostPath || o.WorkloadAPIHostPath == "") {
						t.Errorf("%s/%s: %s (%s)", d.Namespace, d.Name, result.ForbiddenReason, result.ForbiddenDetail)
					}
				}
			}
		}
	})
}

func TestTheWorkloadAPIIsMountedWhereSomethingNeedsItAndReadOnly(t *testing.T) {
	each(t, func(t *testing.T, m mesh.Mesh) {
		for _, d := range all[*appsv1.Deployment](render(m).Objects) {
			var with []string
			for _, c := range slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers) {
				for _, mount := range c.VolumeMounts {
					if mount.Name == "workload-api" {
						with = append(with, fmt.Sprint(c.Name, mount.ReadOnly))
					}
				}
			}
			want := "proxytrue"
			if volume(d, "proxy-config") == nil {
				want = "apptrue"
			}
			if !slices.Equal(with, []string{want}) {
				t.Errorf("%s/%s: mounted in %v, want %s", d.Namespace, d.Name, with, want)
			}
		}
	})
}

func TestEveryConfigIsOneThatTheProcessTakes(t *testing.T) {
	each(t, func(t *testing.T, m mesh.Mesh) {
		for _, c := range all[*corev1.ConfigMap](render(m).Objects) {
			if text, ok := c.Data["config.yaml"]; ok {
				if _, err := config.Parse(c.Name, []byte(text), noEnv); err != nil {
					t.Errorf("%v", err)
				}
			}
			if text, ok := c.Data["policy.yaml"]; ok {
				if _, err := config.ParsePolicy(c.Name, []byte(text)); err != nil {
					t.Errorf("%v", err)
				}
			}
		}
	})
}

// TestTrafficOfEveryEdgePassesBothPoliciesAndNoOther goes over every caller, callee and port of a mesh: the network is open
// just where the model has an edge.
func TestTrafficOfEveryEdgePassesBothPoliciesAndNoOther(t *testing.T) {
	each(t, func(t *testing.T, m mesh.Mesh) {
		objects := render(m).Objects
		deployments := all[*appsv1.Deployment](objects)
		for _, service := range m.Services {
			callee := deploymentOf(deployments, service.Key.Namespace, service.Key.Name, "mesh.jia.app/service")
			if callee == nil {
				continue
			}
			for _, caller := range deployments {
				for _, port := range service.Ports {
					out := passes(objects, caller, callee, port.MeshPort, true)
					in := passes(objects, callee, caller, port.MeshPort, false)
					wantOut, wantIn := edges(m, service, port, caller)
					if out != wantOut || in != wantIn {
						t.Errorf("%s/%s to %s port %s: passes the caller's policy %v (want %v), the callee's %v (want %v)",
							caller.Namespace, caller.Name, service.Key, port.Name, out, wantOut, in, wantIn)
					}
				}
			}
		}
	})
}

// edges says what the model has of an edge: the caller's half and the callee's.
func edges(m mesh.Mesh, callee mesh.Service, port mesh.Port, caller *appsv1.Deployment) (out, in bool) {
	who := mesh.Caller{Kind: mesh.KindMeshService, Key: key(caller.Namespace, caller.Name)}
	if caller.Labels["mesh.jia.app/gateway"] != "" {
		who.Kind = mesh.KindMeshGateway
	}
	for _, s := range m.Services {
		for _, u := range s.Upstreams {
			out = out || who == mesh.Caller{Kind: mesh.KindMeshService, Key: s.Key} && u.Service == callee.Key && u.PortName == port.Name
		}
	}
	for _, g := range m.Gateways {
		for _, r := range g.Routes {
			out = out || who == mesh.Caller{Kind: mesh.KindMeshGateway, Key: g.Key} && r.Service == callee.Key && r.PortName == port.Name
		}
	}
	for _, r := range callee.Rules {
		in = in || (r.Caller == who || r.Caller == mesh.Caller{}) && (r.PortName == "" || r.PortName == port.Name)
	}
	return out, in
}

// passes reads NetworkPolicies as a network does: those that select the pod are joined.
func passes(objects []workload.Object, pod, other *appsv1.Deployment, port int32, egress bool) bool {
	for _, p := range all[*networkingv1.NetworkPolicy](objects) {
		if p.Namespace != pod.Namespace || !selects(&p.Spec.PodSelector, pod.Spec.Template.Labels) {
			continue
		}
		for _, rule := range p.Spec.Egress {
			if egress && opens(rule.To, rule.Ports, other, port) {
				return true
			}
		}
		for _, rule := range p.Spec.Ingress {
			if !egress && opens(rule.From, rule.Ports, other, port) {
				return true
			}
		}
	}
	return false
}

func opens(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, pod *appsv1.Deployment, port int32) bool {
	if !slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		return *p.Protocol == corev1.ProtocolTCP && p.Port.IntVal == port
	}) {
		return false
	}
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return p.IPBlock == nil && selects(p.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": pod.Namespace}) && selects(p.PodSelector, pod.Spec.Template.Labels)
	})
}

func selects(selector *metav1.LabelSelector, of map[string]string) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

func TestServicesBudgetsAndDeploymentsSelectTheSamePodsAndNotThoseThatOnlyCall(t *testing.T) {
	each(t, func(t *testing.T, m mesh.Mesh) {
		objects := render(m).Objects
		for _, d := range all[*appsv1.Deployment](objects) {
			pod := d.Spec.Template.Labels
			stranger := map[string]string{"app": pod["app"], "mesh.jia.app/service": pod["mesh.jia.app/service"], "mesh.jia.app/gateway": pod["mesh.jia.app/gateway"]}
			if !selects(d.Spec.Selector, pod) || selects(d.Spec.Selector, stranger) {
				t.Errorf("Deployment %s/%s selects %v", d.Namespace, d.Name, d.Spec.Selector)
			}
			for _, s := range all[*corev1.Service](objects) {
				if s.Namespace == d.Namespace && s.Name == d.Name && s.Labels["mesh.jia.app/gateway"] == d.Labels["mesh.jia.app/gateway"] {
					if selector := (&metav1.LabelSelector{MatchLabels: s.Spec.Selector}); !selects(selector, pod) || selects(selector, stranger) {
						t.Errorf("Service %s/%s selects %v", s.Namespace, s.Name, s.Spec.Selector)
					}
				}
			}
		}
	})
}

func TestEveryObjectSaysItsKindAndWhoseItIs(t *testing.T) {
	each(t, func(t *testing.T, m mesh.Mesh) {
		seen := map[string]bool{}
		for _, o := range render(m).Objects {
			kind := o.GetObjectKind().GroupVersionKind()
			id := fmt.Sprintf("%s %s/%s %s", kind.Kind, o.GetNamespace(), o.GetName(), o.GetLabels()["mesh.jia.app/gateway"])
			owner := o.GetLabels()["mesh.jia.app/service"] + o.GetLabels()["mesh.jia.app/gateway"]
			if kind.Empty() || owner == "" || seen[id] || len(o.GetOwnerReferences()) > 0 {
				t.Errorf("%s: kind %v, of %q, seen before %v, owners %v", id, kind, owner, seen[id], o.GetOwnerReferences())
			}
			seen[id] = true
		}
	})
}

func each(t *testing.T, test func(t *testing.T, m mesh.Mesh)) {
	t.Helper()
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		test(t, m)
	})
}

func all[T workload.Object](objects []workload.Object) (found []T) {
	for _, object := range objects {
		if one, ok := object.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

func deploymentOf(deployments []*appsv1.Deployment, namespace, name, label string) *appsv1.Deployment {
	for _, d := range deployments {
		if d.Namespace == namespace && d.Name == name && d.Labels[label] != "" {
			return d
		}
	}
	return nil
}
