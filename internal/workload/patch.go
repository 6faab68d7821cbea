package workload

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/config"
)

const patchField = "spec.workload.patch"

// patched is the Deployment with the spec's patch. A patch that reaches what it may not is refused as a whole: to leave out
// a part of it without a word would be worse.
func (p *process) patched(base *appsv1.Deployment) (*appsv1.Deployment, *mesh.Problem) {
	if p.Workload.Patch == nil {
		return base, nil
	}
	refuse := func(field, format string, args ...any) (*appsv1.Deployment, *mesh.Problem) {
		problem := p.problem(meshv1alpha1.ReasonPatchInvalid, field, fmt.Sprintf(format, args...))
		return nil, &problem
	}
	fields, err := decode(p.Workload.Patch.Raw)
	if err != nil {
		return refuse(patchField, "is no object (%v): write it as a part of a Deployment", err)
	}
	if at := exponent(patchField, map[string]any(fields)); at != "" {
		return refuse(at, "has an exponent that no amount needs: write it out")
	}
	text, err := json.Marshal(base)
	if err != nil {
		return refuse(patchField, "%v", err)
	}
	merged, err := strategicpatch.StrategicMergePatch(text, p.Workload.Patch.Raw, appsv1.Deployment{})
	if err != nil {
		return refuse(patchField, "is no strategic merge patch of a Deployment (%v): correct it", err)
	}
	patched := &appsv1.Deployment{}
	unknown, err := kjson.UnmarshalStrict(merged, patched)
	if err != nil {
		return refuse(patchField, "does not make a Deployment (%v): correct it", err)
	}
	if len(unknown) > 0 {
		return refuse(patchField, "%v in a Deployment: correct or remove it", unknown[0])
	}
	held := patched.DeepCopy()
	p.hold(held, base)
	if at, err := firstDifference(held, patched); err != nil {
		return refuse(patchField, "%v", err)
	} else if at != "" {
		return refuse(patchField+"."+at, "is the operator's, and not the patch's to change: leave it out")
	}
	return patched, nil
}

// exponents are those with which a Quantity takes minutes to be read, as in 1e-99999999: one object would stop the operator.
var exponents = regexp.MustCompile(`^[-+]?[0-9.]+[eE][-+]?[0-9]{3,}$`)

// exponent is the path of the first value that has such an exponent.
func exponent(at string, value any) string {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if found := exponent(at+"."+key, value[key]); found != "" {
				return found
			}
		}
	case []any:
		for i, item := range value {
			if found := exponent(fmt.Sprintf("%s[%d]", at, i), item); found != "" {
				return found
			}
		}
	case string:
		if exponents.MatchString(value) {
			return at
		}
	case json.Number:
		return exponent(at, value.String())
	}
	return ""
}

// hold gives back to a patched Deployment all that a patch cannot change. What differs then is where the patch reached.
func (p *process) hold(d, base *appsv1.Deployment) {
	d.TypeMeta, d.Status = base.TypeMeta, base.Status
	d.ObjectMeta = holdMeta(d.ObjectMeta, base.ObjectMeta)
	d.Spec.Selector = base.Spec.Selector
	d.Spec.Paused = base.Spec.Paused     // a change would wait without a word
	d.Spec.Replicas = base.Spec.Replicas // spec.workload.replicas is the field, also for the scale subresource
	if p.Workload.Persistence != nil {
		d.Spec.Strategy = base.Spec.Strategy
	}
	d.Spec.Template.ObjectMeta = holdMeta(d.Spec.Template.ObjectMeta, base.Spec.Template.ObjectMeta)

	pod, was := &d.Spec.Template.Spec, &base.Spec.Template.Spec
	pod.ServiceAccountName, pod.DeprecatedServiceAccount = was.ServiceAccountName, was.DeprecatedServiceAccount
	pod.HostNetwork, pod.HostPID, pod.HostIPC, pod.ShareProcessNamespace = was.HostNetwork, was.HostPID, was.HostIPC, was.ShareProcessNamespace
	pod.AutomountServiceAccountToken = was.AutomountServiceAccountToken
	pod.RestartPolicy, pod.EphemeralContainers = was.RestartPolicy, was.EphemeralContainers
	if pod.TerminationGracePeriodSeconds == nil || *pod.TerminationGracePeriodSeconds < *was.TerminationGracePeriodSeconds {
		pod.TerminationGracePeriodSeconds = was.TerminationGracePeriodSeconds
	}
	p.holdVolumes(pod, was)
	// Other init containers may be there. They come before the proxy, where there is no mesh, or after it where the patch
	// lists the proxy first, by its name alone.
	pod.InitContainers = holdContainers(pod.InitContainers, was.InitContainers, func(_, base corev1.Container) corev1.Container { return base })
	pod.Containers = holdContainers(pod.Containers, was.Containers, p.holdApp)
}

// holdMeta lets a patch add labels and annotations that are not the operator's.
func holdMeta(have, base metav1.ObjectMeta) metav1.ObjectMeta {
	held := *base.DeepCopy()
	held.Labels, held.Annotations = holdKeys(have.Labels, base.Labels), holdKeys(have.Annotations, base.Annotations)
	return held
}

func holdKeys(have, base map[string]string) map[string]string {
	held := maps.Clone(have)
	maps.DeleteFunc(held, func(key, _ string) bool { return strings.HasPrefix(key, meshv1alpha1.GroupVersion.Group+"/") })
	if held == nil && len(base) > 0 {
		held = map[string]string{}
	}
	maps.Copy(held, base)
	return held
}

// holdVolumes keeps the operator's volumes, and others from being a second way to the Workload API: who has it has the
// identity.
func (p *process) holdVolumes(pod, base *corev1.PodSpec) {
	pod.Volumes = slices.DeleteFunc(pod.Volumes, func(v corev1.Volume) bool {
		return v.Name != volumeWorkloadAPI && p.options.reachesWorkloadAPI(v)
	})
	for _, own := range base.Volumes {
		if own.Name != volumeTmp { // which may be larger
			pod.Volumes = putBack(pod.Volumes, own, func(v corev1.Volume) string { return v.Name })
		}
	}
}

func (o Options) reachesWorkloadAPI(v corev1.Volume) bool {
	if v.CSI != nil && o.WorkloadAPICSIDriver != "" {
		return v.CSI.Driver == o.WorkloadAPICSIDriver
	}
	return v.HostPath != nil && o.WorkloadAPIHostPath != "" && (within(v.HostPath.Path, o.WorkloadAPIHostPath) || within(o.WorkloadAPIHostPath, v.HostPath.Path))
}

// within reports whether a path is a folder or below it.
func within(name, dir string) bool {
	clean := func(name string) string {
		name = path.Clean("/" + name)
		if rest, ok := strings.CutPrefix(name, "/var/run"); ok { // on nodes it is a link to /run
			name = "/run" + rest
		}
		return strings.TrimSuffix(name, "/") + "/"
	}
	return strings.HasPrefix(clean(name), clean(dir))
}

// holdContainers keeps the operator's containers, each as hold makes it, and the Workload API from all others.
func holdContainers(have, base []corev1.Container, hold func(have, base corev1.Container) corev1.Container) []corev1.Container {
	for i := range have {
		own := slices.IndexFunc(base, func(c corev1.Container) bool { return c.Name == have[i].Name })
		if own >= 0 {
			have[i] = hold(have[i], base[own])
			continue
		}
		have[i].VolumeMounts = slices.DeleteFunc(have[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volumeWorkloadAPI })
	}
	for _, own := range base {
		if !slices.ContainsFunc(have, func(c corev1.Container) bool { return c.Name == own.Name }) {
			have = append(have, own)
		}
	}
	return have
}

// holdApp keeps of the process's container what makes it one of the mesh: the operator's variables and mounts, and that it
// does not end before its peers know.
func (p *process) holdApp(have, base corev1.Container) corev1.Container {
	have.RestartPolicy = base.RestartPolicy
	if p.Workload.Config != nil { // its variables could be any of those that the mesh decides, and its arguments another file
		have.EnvFrom, have.Command, have.Args = base.EnvFrom, base.Command, base.Args
	}
	decided := func(variable string) bool {
		return p.decidesConfig(variable) || p.Workload.Config != nil && variable == config.Variable(storePath)
	}
	have.Env = slices.DeleteFunc(have.Env, func(e corev1.EnvVar) bool { return decided(e.Name) })
	for _, own := range base.Env {
		if p.isOwn(own.Name) || decided(own.Name) {
			have.Env = putBack(have.Env, own, func(e corev1.EnvVar) string { return e.Name })
		}
	}
	isOwn := func(m corev1.VolumeMount) bool {
		return slices.ContainsFunc(base.VolumeMounts, func(own corev1.VolumeMount) bool { return own.MountPath == m.MountPath })
	}
	have.VolumeMounts = slices.DeleteFunc(have.VolumeMounts, func(m corev1.VolumeMount) bool {
		return !isOwn(m) && (m.Name == volumeWorkloadAPI || within(m.MountPath, mesh.ReservedDir) || within(m.MountPath, workloadAPIDir))
	})
	for _, own := range base.VolumeMounts {
		if own.Name == volumeTmp {
			continue
		}
		have.VolumeMounts = putBack(have.VolumeMounts, own, func(m corev1.VolumeMount) string { return path.Clean(m.MountPath) })
	}
	if l := have.Lifecycle; l == nil || l.PreStop == nil || l.PreStop.Sleep == nil || l.PreStop.Sleep.Seconds < base.Lifecycle.PreStop.Sleep.Seconds {
		if l == nil {
			have.Lifecycle = &corev1.Lifecycle{}
		}
		have.Lifecycle.PreStop = base.Lifecycle.PreStop
	}
	return have
}

// decidesConfig reports whether the process would take a variable for a value of config.yaml that the mesh decides.
func (p *process) decidesConfig(variable string) bool {
	for key := range p.decided {
		if config.Variable(key) == variable {
			return true
		}
	}
	return false
}

// putBack makes the item of a list what it was, where there is one of its name, and adds it where there is none.
func putBack[T any](list []T, item T, name func(T) string) []T {
	at := slices.IndexFunc(list, func(one T) bool { return name(one) == name(item) })
	if at < 0 {
		return append(list, item)
	}
	list[at] = item
	return list
}

// firstDifference is the path of the first field that differs, as in spec.template.spec.containers[app].env.
func firstDifference(x, y any) (string, error) {
	var trees [2]any
	for i, object := range []any{x, y} {
		text, err := json.Marshal(object)
		if err != nil {
			return "", fmt.Errorf("compare: %w", err)
		}
		if err := json.Unmarshal(text, &trees[i]); err != nil {
			return "", fmt.Errorf("compare: %w", err)
		}
	}
	return strings.TrimPrefix(difference("", trees[0], trees[1]), "."), nil
}

func difference(at string, x, y any) string {
	if reflect.DeepEqual(x, y) {
		return ""
	}
	left, isLeft := partsOf(at, x)
	right, isRight := partsOf(at, y)
	if !isLeft || !isRight || reflect.TypeOf(x) != reflect.TypeOf(y) {
		return at
	}
	for _, path := range slices.Concat(left.paths, right.paths) {
		value, inLeft := left.values[path]
		other, inRight := right.values[path]
		if inLeft != inRight {
			return path
		}
		if found := difference(path, value, other); found != "" {
			return found
		}
	}
	return at // only the order differs
}

// parts are the fields of an object or the items of a list, in order, by their paths.
type parts struct {
	paths  []string
	values map[string]any
}

// partsOf tells the items of a list apart by what strategic merge patches go by, too. It fails where two are the same.
func partsOf(at string, value any) (parts, bool) {
	p := parts{values: map[string]any{}}
	add := func(path string, value any) {
		p.paths, p.values[path] = append(p.paths, path), value
	}
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			add(at+"."+key, value[key])
		}
	case []any:
		for i, item := range value {
			name := any(i)
			if fields, ok := item.(map[string]any); ok {
				name = cmp.Or(fields["mountPath"], fields["name"], name)
			}
			add(fmt.Sprintf("%s[%v]", at, name), item)
		}
	default:
		return p, false
	}
	return p, len(p.paths) == len(p.values)
}
