package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/api/resource"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

func TestAnAmountIsTheQuantityThatItNames(t *testing.T) {
	for text, want := range map[string]string{
		`"500m"`: "500m", `"2"`: "2", `2`: "2", `0`: "0", `"1.5Gi"`: "1536Mi", `"1000m"`: "1", `"0.125"`: "125m", `"1k"`: "1k", `"3E"`: "3E", `"7Ei"`: "7Ei",
		`999999999999999`: "999999999999999", `"99999999999999999999"`: "99999999999999999999", `"1.2345Ki"`: "1264128m", `"0.00000000001"`: "1n", // as Kubernetes rounds
		// What the schema refuses is nothing.
		`""`: "0", `null`: "0", `"1e3"`: "0", `1e3`: "0", `"-1"`: "0", `"+1"`: "0", `" 1"`: "0", `"1 Gi"`: "0", `"1g"`: "0", `"1.2.3"`: "0", `"1\n"`: "0", `"123456789012345678901"`: "0",
	} {
		var amount meshv1alpha1.Amount
		if err := json.Unmarshal([]byte(text), &amount); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if quantity := amount.Quantity(); quantity.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("%s is %s, want %s", text, quantity.String(), want)
		}
	}
	for _, text := range []string{`true`, `{}`, `["1"]`} {
		var amount meshv1alpha1.Amount
		if err := json.Unmarshal([]byte(text), &amount); err == nil {
			t.Errorf("%s is read as %q", text, amount)
		}
	}
}

// No API server stores this, but what is stored already has not passed its schema.
func TestAnObjectWithAnAmountThatTakesMinutesToReadIsReadAtOnce(t *testing.T) {
	const hostile = `{"spec": {"workload": {
		"resources": {"limits": {"cpu": "1e-9999999999", "memory": 1e-9999999999}, "requests": {"cpu": "1e9999999999"}},
		"persistence": {"size": "1e-9999999999"}}}}`
	var object meshv1alpha1.MeshService
	start := time.Now()
	if err := json.Unmarshal([]byte(hostile), &object); err != nil {
		t.Fatal(err)
	}
	workload := object.Spec.Workload
	limits := workload.Resources.Requirements().Limits
	for _, quantity := range []resource.Quantity{workload.Persistence.Size.Quantity(), limits[corev1.ResourceCPU], limits[corev1.ResourceMemory]} {
		if !quantity.IsZero() {
			t.Errorf("%s is read", quantity.String())
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("reading it took %s", took)
	}
}

func TestResourcesAreWrittenAsAContainerHasThem(t *testing.T) {
	const text = `{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"250m"}}`
	var resources meshv1alpha1.Resources
	if err := json.Unmarshal([]byte(strings.Replace(text, `"2"`, `2`, 1)), &resources); err != nil {
		t.Fatal(err)
	}
	want := corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
	}
	if diff := cmp.Diff(want, resources.Requirements()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, value := range map[string]any{"the kind's": resources, "a container's": resources.Requirements()} {
		got, err := json.Marshal(value)
		if err != nil || string(got) != text {
			t.Errorf("%s: %s, %v; want %s", name, got, err, text)
		}
	}
	if got := (meshv1alpha1.Resources{}).Requirements(); got.Limits != nil || got.Requests != nil {
		t.Errorf("no resources are %v", got)
	}
}

// The schema's words are in markers, which cannot name a constant: text that one refuses and the other reads would be zero.
func TestTheSchemaAcceptsTheAmountsThatAreRead(t *testing.T) {
	crd, found := kinds(t)["meshservices"], 0
	crd.EachField(func(_, _ string, schema *apiextensions.JSONSchemaProps) {
		if schema.XIntOrString {
			found++
		}
	})
	if found != 3 {
		t.Errorf("%d amounts found", found)
	}
	for _, value := range []any{
		"0", "1", "500m", "1.5Gi", "0.001", "1E", "1Ei", "1.2345", "99999999999999999999", "0.00000000000000001Ei", int64(0), int64(2), int64(math.MaxInt64),
		"", "1e3", "1E3", "1e-9999999", "-1", "+1", "1 ", " 1", ".5", "5.", "1.2.3", "1..2", "1g", "1K", "1mi", "1i", "1GB", "1u", "1n", "1\n", "123456789012345678901", "0.000000000000000001Ei", "5ki", "5Kii", "5KiB", "5e", "5Mm",
		"0x10", "٣", "1Ｇ", int64(-1), int64(math.MinInt64), true, nil,
	} {
		object := map[string]any{
			"apiVersion": "mesh.jia.app/v1alpha1", "kind": "MeshService", "metadata": map[string]any{"name": "a", "namespace": "payments"},
			"spec": map[string]any{"workload": map[string]any{"image": "a", "resources": map[string]any{"limits": map[string]any{"cpu": value}}}},
		}
		accepted := len(crd.Create(object)) == 0
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var amount meshv1alpha1.Amount
		err = json.Unmarshal(text, &amount)
		quantity := amount.Quantity()
		read := err == nil && (!quantity.IsZero() || strings.Trim(fmt.Sprint(value), "0") == "" && value != "" && value != nil)
		if accepted != read {
			t.Errorf("%#v: the schema accepts it: %t; it is read: %t", value, accepted, read)
		}
	}
}
