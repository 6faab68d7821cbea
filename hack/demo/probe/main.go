// Command probe asks what the demo and the tests want to know of a connection, and prints what came back as one line: is a
// port open, which certificate is shown, what is a call answered with, which identity has this pod.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `probe dial [--wait 10s] HOST:PORT                       open, refused, unreachable or timeout
probe certificate HOST:PORT                             the certificate that is shown to whoever connects
probe call [flags] HOST:PORT PACKAGE.SERVICE/METHOD JSON   a gRPC call with this pod's SVID; probe call --help
probe watch                                             the SVIDs of this pod, until it is told to stop
An answer of any kind is success; no answer is exit code 1.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	commands := map[string]func(context.Context, []string, io.Writer) error{
		"dial": dial, "certificate": certificate, "call": call, "watch": watch,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("want one of\n%s", usage)
	}
	return commands[args[0]](ctx, args[1:], out)
}
