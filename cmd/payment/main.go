// Command payment runs the payment service: a config.yaml goes in, the payment API is served until it is told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/process"
	"github.com/jia-app/paymesh/payment/server"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	set := flag.NewFlagSet("payment", flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error is printed once, below
	path := set.String("config", "config.yaml", "The configuration; docs/payment-service.md lists its keys and their environment variables.")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(stdout)
		set.Usage()
		return 0
	}
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag: --config FILE is the only one", set.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "payment:", err)
		return 2
	}
	c, err := config.Load(*path, os.LookupEnv)
	if err != nil {
		fmt.Fprintf(stderr, "payment:\n%v\n", err)
		return 2
	}
	return process.Main(stdout, "payment service", func(ctx context.Context, log *slog.Logger) error {
		s, err := server.New(ctx, c, log)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
