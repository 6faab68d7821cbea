//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"time"

	. "github.com/onsi/gomega"
)

// entry is what `spire-server entry show -output json` shows of an entry, as far as it matters here.
type entry struct {
	ID             string   `json:"id"`
	SPIFFEID       spiffeID `json:"spiffe_id"`
	ParentID       spiffeID `json:"parent_id"`
	RevisionNumber string   `json:"revision_number"`
	Selectors      []struct{ Type, Value string }
}

type spiffeID struct {
	TrustDomain string `json:"trust_domain"`
	Path        string
}

// spireServer runs a command of spire-server in its pod.
func spireServer(args ...string) (string, error) {
	return run("", append([]string{
		"exec", "-n", "spire-system", "spire-server-0", "-c", "spire-server", "--",
		"/spire-server",
	}, append(args, "-socketPath", "/run/spire/server-socket/api.sock")...)...)
}

// entriesOf lists the entries whose ID begins so, by ID.
func entriesOf(g Gomega, prefix string) map[string]entry {
	out, err := spireServer("entry", "show", "-output", "json")
	g.Expect(err).NotTo(HaveOccurred())
	var list struct{ Entries []entry }
	g.Expect(json.Unmarshal([]byte(out), &list)).To(Succeed())
	found := map[string]entry{}
	for _, e := range list.Entries {
		if strings.HasPrefix(e.ID, prefix) {
			found[e.ID] = e
		}
	}
	return found
}

// revisions maps the entries with this prefix to their revision numbers.
func revisions(g Gomega, prefix string) map[string]string {
	numbers := map[string]string{}
	for id, e := range entriesOf(g, prefix) {
		numbers[id] = e.RevisionNumber
	}
	return numbers
}

// svid is the last SVID that the pods with a label logged; nil where they have none.
func svid(g Gomega, namespace, selector string) *loggedSVID {
	out, err := run("", "logs", "-n", namespace, "-l", selector, "--tail=-1")
	g.Expect(err).NotTo(HaveOccurred())
	var last *loggedSVID
	for line := range strings.Lines(out) {
		var record struct{ SVID *loggedSVID }
		if json.Unmarshal([]byte(line), &record) == nil && record.SVID != nil {
			last = record.SVID
		}
	}
	return last
}

type loggedSVID struct {
	SPIFFEID            string
	DNSNames            []string
	NotBefore, NotAfter time.Time
}

// leader is the holder of the managers' lease: <pod>_<uuid>.
func leader() string {
	return kubectl("get", "lease", "-n", "paymesh-system", "paymesh.mesh.jia.app", "-o", "jsonpath={.spec.holderIdentity}")
}

func leaderPod() string { return strings.SplitN(leader(), "_", 2)[0] }
