package v1alpha1

import (
	"encoding/json"
	"fmt"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// An Amount is no resource.Quantity, which takes minutes to read 1e-99999999, and is read wherever an object is decoded: a
// single one would stop the operator for everybody. The pattern refuses it at no cost. The rule refuses the same and says
// what to write instead; it is as long as the API server's budget allows, which takes no notice of the length of what may be
// a number or text.

// Amount is how much of something, as Kubernetes writes it but without a sign and an exponent: 500m, 2, 1.5Gi. Digits, with
// a dot in between if wanted, then one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi and Ei if wanted; at most 20 characters.
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:MaxLength=20
// +kubebuilder:validation:Pattern=`^[0-9]+([.][0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$`
// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 : self.matches('^\\\\d+([.]\\\\d+)?\\\\D?i?$') && ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'm', 'k', 'M', 'G', 'T', 'P', 'E', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'].exists(end, self.endsWith(end))",message="an amount must be a number and then, if wanted, a unit, one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi and Ei, for example 500m, 2 or 1.5Gi: no sign, no exponent, no space"
type Amount string

const maxAmount = 20

// amountPattern is the schema's, for text that has not passed it.
var amountPattern = regexp.MustCompile(`^[0-9]+([.][0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$`)

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
	if len(a) > maxAmount || !amountPattern.MatchString(string(a)) {
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
	// limits are the most that it gets of each resource, at most 6: cpu in cores, memory and ephemeral-storage in bytes, and
	// others by their names, each with an amount such as 500m or 1Gi. What is not there has no limit.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=6
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || (k.startsWith('hugepages-') || k.contains('/')) && !format.qualifiedName().validate(k).hasValue())",message="limits must have names of resources: cpu, memory, ephemeral-storage, hugepages-<size>, or one with a domain, for example example.com/gpu"
	Limits map[corev1.ResourceName]Amount `json:"limits,omitempty"`

	// requests are what it is sure to get of each resource, at most 6, named as in limits, and no more than there. What is not
	// there is as in limits.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=6
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
