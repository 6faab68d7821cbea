// Command people runs the contact, family or document service: flags go in, the service is served until it is told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/jia-app/paymesh/payment/people"
	"github.com/jia-app/paymesh/payment/process"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	set := flag.NewFlagSet("people", flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error is printed once, below
	var o people.Options
	set.StringVar(&o.Service, "service", "", "What to serve: contact, family or document, or several with commas between.")
	set.StringVar(&o.Address, "address", "127.0.0.1:50051", "Where gRPC is served, in plaintext: leave it on loopback, where the sidecar is.")
	set.StringVar(&o.HTTPAddress, "http-address", ":9090", "Where /health, /health/services and /metrics are.")
	set.BoolVar(&o.TrustXFCC, "trust-xfcc", true, "Refuse calls without a caller's SPIFFE ID, which the sidecar on loopback says. Off in development only.")
	set.StringVar(&o.FamilyAddress, "family-service", os.Getenv("FAMILY_SERVICE_ADDRESS"), "Where the contact service asks about families, the sidecar's address for it; the default is FAMILY_SERVICE_ADDRESS, as dependsOn sets it. Empty, its own data counts.")
	data := set.String("data", "", "A JSON file of users, families and documents; without it, a few that are built in.")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(stdout)
		set.Usage()
		return 0
	}
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag: people --help lists them", set.Arg(0))
	}
	if err == nil {
		o.Data, err = read(*data)
	}
	if err != nil {
		fmt.Fprintln(stderr, "people:", err)
		return 2
	}
	return process.Main(stdout, "service", func(ctx context.Context, log *slog.Logger) error {
		o.Log = log
		s, err := people.New(ctx, o)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}

func read(path string) (people.Data, error) {
	if path == "" {
		return people.Default()
	}
	return people.Load(path)
}
