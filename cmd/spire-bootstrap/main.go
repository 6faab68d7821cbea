// Command spire-bootstrap runs beside spire-server and keeps the entries that the manager's own identity hangs on: the
// manager cannot ask for them before it has them. Flags go in; it runs until it is told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
)

// retryInterval is how soon a SPIRE server is asked again that did not answer: beside it, it takes a second or two to start.
const retryInterval = time.Second

type flags struct {
	trustDomain, clusterName, socket string
	operator                         types.NamespacedName
	interval                         time.Duration
	log                              zap.Options
}

func parseFlags(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("spire-bootstrap", flag.ContinueOnError)
	set.SetOutput(io.Discard) // main prints the error, once
	set.StringVar(&f.trustDomain, "trust-domain", "", "The trust domain of the SPIRE server. Required.")
	set.StringVar(&f.clusterName, "cluster-name", "", "The name that SPIRE's k8s_psat node attestor has for this cluster. Required.")
	set.StringVar(&f.socket, "server-socket", "/run/spire/server-socket/api.sock", "Path of the SPIRE server's admin socket.")
	set.StringVar(&f.operator.Namespace, "operator-namespace", "paymesh-system", "The namespace of the manager.")
	set.StringVar(&f.operator.Name, "operator-service-account", "paymesh-manager", "The service account of the manager.")
	set.DurationVar(&f.interval, "interval", 10*time.Second, "How often to look whether the entries are as they should be.")
	f.log.BindFlags(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			set.SetOutput(os.Stdout)
			set.Usage()
		}
		return f, err
	}
	switch {
	case set.NArg() > 0: // parsing stops there: the flags behind it would be lost without a word
		return f, fmt.Errorf("%q is not a flag: all settings are flags, --help lists them", set.Arg(0))
	case f.trustDomain == "" || f.clusterName == "":
		return f, errors.New("--trust-domain and --cluster-name are required: what SPIRE's server.conf has as trust_domain and in its k8s_psat clusters")
	case f.interval < retryInterval:
		return f, fmt.Errorf("--interval is %s: want %s or more", f.interval, retryInterval)
	}
	return f, nil
}

func main() {
	f, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "spire-bootstrap:", err)
		os.Exit(2)
	}
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&f.log)))
	if err := run(ctrl.SetupSignalHandler(), f); err != nil {
		ctrl.Log.Error(err, "spire-bootstrap ends")
		os.Exit(1)
	}
}

// run keeps the entries until ctx ends. A SPIRE server that is away is waited for.
func run(ctx context.Context, f flags) error {
	cluster, err := mesh.NewClusterID(f.trustDomain, f.clusterName)
	if err != nil {
		return err
	}
	api, err := client.NewUnix(f.socket, nil)
	if err != nil {
		return err
	}
	defer api.Close() //nolint:errcheck // the process ends
	k := keeper{api: api, want: spire.Bootstrap(cluster, f.operator), log: ctrl.Log}
	for timer := time.NewTimer(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next := f.interval
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			next = retryInterval
		}
		timer.Reset(next)
	}
}

// keeper makes a SPIRE server hold a few entries, and logs when that changes.
type keeper struct {
	api  *client.Client
	want []spire.Entry
	log  logr.Logger
	said string
}

// keep looks at each entry and writes those that are not as they should be.
func (k *keeper) keep(ctx context.Context) error {
	var held []spire.Held
	for _, entry := range k.want {
		have, found, err := k.api.Get(ctx, entry.ID)
		if err != nil {
			k.say("the SPIRE server does not answer, and is asked again: " + err.Error())
			return err
		}
		if found {
			held = append(held, have)
		}
	}
	plan := spire.Diff(k.want, held)
	if plan.Empty() {
		k.say("the SPIRE server holds the manager's entries")
		return nil
	}
	results, err := k.api.Apply(ctx, plan)
	if err != nil {
		k.say("the SPIRE server does not answer, and is asked again: " + err.Error())
		return err
	}
	var refused []string
	for _, result := range results {
		switch {
		case result.OK():
			k.log.Info("wrote an entry", "entry", result.ID, "operation", result.Op)
		case result.Conflict != nil:
			refused = append(refused, fmt.Sprintf("%s: the entry %s of somebody else's has the same parent, SPIFFE ID and selectors: delete that one", result.ID, result.Conflict.ID))
		default:
			refused = append(refused, fmt.Sprintf("%s: %s: %s", result.ID, result.Code, result.Message))
		}
	}
	if len(refused) > 0 {
		err := errors.New("the SPIRE server refused entries of the manager, which has no identity without them: " + strings.Join(refused, "; "))
		k.say(err.Error())
		return err
	}
	return nil
}

// say logs what it did not say last.
func (k *keeper) say(what string) {
	if what != k.said {
		k.log.Info(what)
		k.said = what
	}
}
