package v1alpha1

import "time"

// The type's rule refuses what is not a duration at all, so the bounds on its fields let that pass: one mistake, one message.

// Duration is a length of time in the format of GEP-2257 (Gateway API): one to four groups of digits
// with the unit h, m, s or ms, for example 1h, 90s or 1h30m.
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')",message="a duration must be one to four numbers of at most five digits, each with its unit h, m, s or ms, for example 1h30m"
type Duration string

// Duration returns the length of time that d names; zero where d is unset.
// The schema has refused every value that it cannot read.
func (d Duration) Duration() time.Duration {
	parsed, err := time.ParseDuration(string(d))
	if err != nil {
		return 0
	}
	return parsed
}
