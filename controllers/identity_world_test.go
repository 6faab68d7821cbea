package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/spire"
)

func TestAnEarlierUIDCountsForTheLifetimeOfAnAgentsSVIDAfterTheNextOneCame(t *testing.T) {
	alias := func(uid string, created int64) spire.Held {
		return spire.Held{Entry: spire.Entry{ID: "pm1.main.node." + uid}, CreatedAt: created}
	}
	node := &metav1.PartialObjectMetadata{}
	node.UID, node.CreationTimestamp = "04", metav1.Unix(4000, 0)
	for name, test := range map[string]struct {
		aliases []spire.Held
		want    map[types.UID]time.Time
	}{
		"none":                 {nil, map[types.UID]time.Time{}},
		"its own alone":        {[]spire.Held{alias("04", 4001)}, map[types.UID]time.Time{}},
		"one, before its own":  {[]spire.Held{alias("03", 3000)}, map[types.UID]time.Time{"03": time.Unix(4100, 0)}},
		"one, beside its own":  {[]spire.Held{alias("03", 3000), alias("04", 4001)}, map[types.UID]time.Time{"03": time.Unix(4100, 0)}},
		"several, in no order": {[]spire.Held{alias("04", 4001), alias("02", 2000), alias("01", 1000), alias("03", 3000)}, map[types.UID]time.Time{"01": time.Unix(2100, 0), "02": time.Unix(3100, 0), "03": time.Unix(4100, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, attestedBy(test.aliases, node, 100*time.Second)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
