package mesh_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// What a field refers to and these functions forget is neither read nor watched, however well Build would make use of it.
func TestEveryReferenceOfASpecIsFollowed(t *testing.T) {
	service := &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "payment"}}
	gateway := &meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
	for name, test := range map[string]struct {
		spec     any
		followed func() []types.NamespacedName
		// back are the fields that are found from the other side.
		back []string
	}{
		"MeshService": {&service.Spec, func() []types.NamespacedName {
			return slices.Concat(mesh.CalleesOf(service), mesh.GatewaysOf(service), mesh.ConfigMapsOf(service), []types.NamespacedName{mesh.IdentityOf(service)})
		}, []string{"spec.allow.from.service"}},
		"MeshGateway": {&gateway.Spec, func() []types.NamespacedName {
			return append(mesh.ConfigMapsOf(gateway), mesh.IdentityOf(gateway))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			references := map[string]string{}
			refer(reflect.ValueOf(test.spec).Elem(), "spec", references)
			var want, got []string
			for field, referred := range references {
				if !slices.Contains(test.back, field) {
					want = append(want, referred)
				}
			}
			for _, key := range test.followed() {
				got = append(got, key.Name)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("of the references\n%v\nare followed\n%v, want\n%v", references, got, want)
			}
			for _, field := range test.back {
				if references[field] == "" {
					t.Errorf("there is no reference %s", field)
				}
			}
		})
	}
}

// refer sets every field below a value that refers to another object, with a name of its own, and notes the name by the field.
func refer(value reflect.Value, field string, references map[string]string) {
	name := fmt.Sprintf("referred-%d", len(references))
	switch reference := value.Addr().Interface().(type) {
	case *meshv1alpha1.ObjectReference:
		reference.Name, references[field] = meshv1alpha1.ObjectName(name), name
		return
	case *meshv1alpha1.ConfigMapKey:
		reference.ConfigMap, references[field] = meshv1alpha1.ResourceName(name), name
		return
	case *meshv1alpha1.IdentitySource:
		reference.Name, references[field] = meshv1alpha1.ObjectName(name), name
		return
	}
	switch kind := value.Kind(); {
	case kind == reflect.Pointer:
		value.Set(reflect.New(value.Type().Elem()))
		refer(value.Elem(), field, references)
	case kind == reflect.Slice:
		value.Set(reflect.MakeSlice(value.Type(), 1, 1))
		refer(value.Index(0), field, references)
	case kind == reflect.Struct && value.Type().PkgPath() == reflect.TypeFor[meshv1alpha1.MeshService]().PkgPath():
		for i := range value.NumField() {
			if name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ","); value.Field(i).CanSet() {
				refer(value.Field(i), field+"."+name, references)
			}
		}
	}
}
