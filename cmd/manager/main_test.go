package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jia-app/paymesh/internal/spire/registry"
)

// required are the flags without which the manager does not start.
var required = []string{
	"--trust-domain", "jia.app", "--cluster-name", "main", "--spire-server-address", "spire-server:8081",
	"--xds-address", "paymesh-xds.paymesh-system.svc:18000", "--proxy-image", "envoy:1", "--workload-api-host-path", "/run/spire/agent-sockets",
}

func TestWithTheRequiredFlagsTheRestHasDefaults(t *testing.T) {
	f, err := parseFlags(required)
	if err != nil {
		t.Fatal(err)
	}
	if f.auditInterval != registry.DefaultAuditInterval || f.entryGrace != 5*time.Minute || f.clusterDomain != "cluster.local" || f.leaderElect || f.log.Development ||
		f.workload != "unix:///run/spire/agent-sockets/spire-agent.sock" {
		t.Errorf("got %+v", f)
	}
}

func TestFlagsThatCannotWorkAreRefused(t *testing.T) {
	with := func(args ...string) []string { return slices.Concat(required, args) }
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no trust domain":                {required[2:], "--trust-domain is required"},
		"no cluster":                     {slices.Concat(required[:2], required[4:]), "--cluster-name is required"},
		"no SPIRE server":                {slices.Concat(required[:4], required[6:]), "one of --spire-server-address"},
		"a SPIRE server two ways":        {with("--spire-server-socket", "/run/api.sock"), "and not both"},
		"no way to the managers":         {slices.Concat(required[:6], required[8:]), "--xds-address is \"\""},
		"managers at an address":         {with("--xds-address", "10.0.0.1:18000"), "--xds-address is \"10.0.0.1:18000\""},
		"managers without a port":        {with("--xds-address", "paymesh-xds.paymesh-system.svc"), "--xds-address is"},
		"no proxy":                       {slices.Concat(required[:8], required[10:]), "--proxy-image is required"},
		"no Workload API":                {required[:10], "one of --workload-api-host-path"},
		"a Workload API two ways":        {with("--workload-api-csi-driver", "csi.spiffe.io"), "and not both"},
		"a folder that may be any":       {with("--workload-api-host-path", "sockets"), "--workload-api-host-path is \"sockets\""},
		"a socket in a folder":           {with("--workload-api-socket", "a/b"), "--workload-api-socket is \"a/b\""},
		"an audit without a pause":       {with("--audit-interval", "0s"), "--audit-interval is 0s"},
		"a domain with a dot at its end": {with("--cluster-domain", "cluster.local."), "--cluster-domain is \"cluster.local.\""},
		"a grace time before":            {with("--entry-grace", "-1s"), "--entry-grace is -1s"},
		"SVIDs that never live":          {with("--spire-default-x509-svid-ttl", "0s"), "--spire-default-x509-svid-ttl is 0s"},
		"an agent that never attests":    {with("--spire-agent-ttl", "-1s"), "--spire-agent-ttl is -1s"},
		"a CA that never lives":          {with("--spire-ca-ttl", "0s"), "--spire-ca-ttl is 0s"},
		"a brake that stops all":         {with("--deletion-brake-count", "9"), "--deletion-brake-count is 9: want 10 or more"},
		"a share of nothing":             {with("--deletion-brake-share", "0"), "--deletion-brake-share is 0"},
		"a share in percent":             {with("--deletion-brake-share", "40"), "--deletion-brake-share is 40: want more than 0, and 1 at most"},
		"a duration without a unit":      {with("--entry-grace", "300"), "-entry-grace"},
		"an unknown flag":                {with("--colour", "red"), "-colour"},
		"an argument":                    {with("run"), `"run" is not a flag`},
		"the value of a boolean flag":    {with("--leader-elect", "false", "--entry-grace", "1s"), `"false" is not a flag`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseFlags(c.args); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %s", err, c.says)
			}
		})
	}
}
