package v1alpha1

import (
	"encoding/json"
	"fmt"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// An Amount is no resource.Quantity, which takes minutes to read 1e-99999999, and is read wherever an object is decoded: a
// single one would stop the operator for everybody. The pattern refuses it at no cost; the rule says what to write instead,
// and is loose where it would cost more than the API server grants to rules on what may be a number or text.

// Amount is how much of something, as Kubernetes writes it but without a sign and an exponent: 500m, 2, 1.5Gi. Up to 15
// digits, then a dot and up to 3 more, then one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi and Ei. A whole number may stand
// without quotes.
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:MaxLength=24
// +kubebuilder:validation:Pattern=`^[0-9]{1,15}([.][0-9]{1,3})?(m|k|[MGTPE]|[KMGTPE]i)?$`
// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self < 1000000000000000 : self.matches('^[0-9.]+\\\\D*$') && ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'm', 'k', 'M', 'G', 'T', 'P', 'E', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'].exists(end, self.endsWith(end))",message="an amount must be a number of at most 15 digits, with a dot and up to 3 more if wanted, and then a unit if wanted, one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi and Ei, for example 500m, 2 or 1.5Gi: no sign, no exponent, no space"
type Amount string

// amountPattern is the schema's, for text that has not passed it.
var amountPattern = regexp.MustCompile(`^[0-9]{1,15}([.][0-9]{1,3})?(m|k|[MGTPE]|[KMGTPE]i)?$`)

// UnmarshalJSON reads a string or a number, and leaves it as it is.
func (a *Amount) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] != '"' && string(text) != "null" {
		var number json.Number
		if err := json.Unmarshal(text, &number); err != nil {
			return fmt.Errorf("read an amount: %w", err)
		}
		*a = Amount(number)
		return nil
	}
	if err := json.Unmarshal(text, (*string)(a)); err != nil {
		return fmt.Errorf("read an amount: %w", err)
	}
	return nil
}

// Quantity returns how much a is; zero where it is unset. The schema has refused whatever is no amount: it is zero, too.
func (a Amount) Quantity() resource.Quantity {
	if !amountPattern.MatchString(string(a)) {
		return resource.Quantity{}
	}
	quantity, err := resource.ParseQuantity(string(a))
	if err != nil {
		return resource.Quantity{}
	}
	return quantity
}

// Resources are what a container gets.
type Resources struct {
	// limits are the most that it gets of each resource, at most 8: cpu in cores, memory and ephemeral-storage in bytes, and
	// others by their names, each with an amount such as 500m or 1Gi. What is not there has no limit.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || (k.startsWith('hugepages-') || k.contains('/')) && !format.qualifiedName().validate(k).hasValue())",message="limits must have names of resources: cpu, memory, ephemeral-storage, hugepages-<size>, or one with a domain, for example example.com/gpu"
	Limits map[corev1.ResourceName]Amount `json:"limits,omitempty"`

	// requests are what it is sure to get of each resource, at most 8, named as in limits, and no more than there. What is not
	// there is as in limits.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || (k.startsWith('hugepages-') || k.contains('/')) && !format.qualifiedName().validate(k).hasValue())",message="requests must have names of resources: cpu, memory, ephemeral-storage, hugepages-<size>, or one with a domain, for example example.com/gpu"
	Requests map[corev1.ResourceName]Amount `json:"requests,omitempty"`
}

// Requirements returns r as a container has it.
func (r Resources) Requirements() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Limits: quantities(r.Limits), Requests: quantities(r.Requests)}
}

func quantities(amounts map[corev1.ResourceName]Amount) corev1.ResourceList {
	if len(amounts) == 0 {
		return nil
	}
	list := make(corev1.ResourceList, len(amounts))
	for name, amount := range amounts {
		list[name] = amount.Quantity()
	}
	return list
}
