package controllers

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

func TestReadyIsDerivedFromTheOtherConditions(t *testing.T) {
	yes, no, unknown := metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for name, test := range map[string]struct {
		accepted, registered metav1.ConditionStatus
		want                 metav1.ConditionStatus
		reason               string
	}{
		"both true":                   {yes, yes, yes, meshv1alpha1.ReasonReady},
		"the first false":             {no, yes, no, "AcceptedReason"},
		"the second false":            {yes, no, no, "RegisteredReason"},
		"the second unknown":          {yes, unknown, unknown, "RegisteredReason"},
		"false counts before unknown": {unknown, no, no, "RegisteredReason"},
		"one missing":                 {yes, "", unknown, meshv1alpha1.ReasonSyncing},
	} {
		t.Run(name, func(t *testing.T) {
			var conditions []metav1.Condition
			for conditionType, status := range map[string]metav1.ConditionStatus{"Accepted": test.accepted, "Registered": test.registered} {
				if status != "" {
					set(&conditions, 1, metav1.Condition{Type: conditionType, Status: status, Reason: conditionType + "Reason"})
				}
			}
			setReady(&conditions, 7, "Accepted", "Registered")
			ready := meta.FindStatusCondition(conditions, meshv1alpha1.ConditionReady)
			if ready.Status != test.want || ready.Reason != test.reason || ready.ObservedGeneration != 7 {
				t.Errorf("Ready is %s, %s, of generation %d, want %s, %s, 7", ready.Status, ready.Reason, ready.ObservedGeneration, test.want, test.reason)
			}
		})
	}
}

func TestAMessageNamesTenAndCountsTheRestAndIsOfBoundedLength(t *testing.T) {
	list := strings.Split("a b c d e f g h i j k l", " ")
	if got := names(list); got != "a, b, c, d, e, f, g, h, i, j and 2 more" {
		t.Error(got)
	}
	var conditions []metav1.Condition
	set(&conditions, 1, metav1.Condition{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "R", Message: strings.Repeat("ü", maxMessage)})
	if got := conditions[0].Message; len(got) > maxMessage+8 || strings.Contains(got, "\uFFFD") {
		t.Errorf("%d bytes, ends with %q", len(got), got[len(got)-8:])
	}
}
