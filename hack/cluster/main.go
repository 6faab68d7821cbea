// Command cluster runs a single-node Kubernetes on this machine, inside namespaces of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

//nolint:dupword // every line begins with the program
const usage = `cluster runs a single-node Kubernetes on this machine (Linux, root), inside namespaces of its own.

  cluster [flags] up [--forward PORT:HOST:PORT]...   start it and wait until it works; says what it did if it is up already
  cluster [flags] down [--keep-logs]                 end it and remove everything of it
  cluster [flags] status                             say what runs, what does not, and where the logs are
  cluster [flags] exec -- COMMAND...                 run a command inside (kubectl, ctr, ip, nft, ...)
  cluster [flags] load --tag NAME:TAG --entrypoint /PROGRAM [--user UID] FILE[:/PLACE]...
                                                     build an image from files and load it
  cluster [flags] load ARCHIVE...                    load images from archives (docker save)
  cluster [flags] forward PORT:HOST:PORT...          lead a port of this machine's loopback (0: any) into the cluster
  cluster [flags] kubeconfig                         print the kubeconfig's path
  cluster [flags] logs [COMPONENT]                   print where the logs are, or one of them

flags:
`

// options are the flags that all commands share.
type options struct {
	folder state.Folder
	binDir string

	timeout time.Duration // of up
}

func main() {
	err := dispatch(os.Args[1:])
	if err == nil {
		return
	}
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// dispatch also knows the words with which the program starts itself.
func dispatch(args []string) error {
	if len(args) == 1 && args[0] == node.PauseCommand {
		return pause()
	}
	if len(args) == 3 && args[0] == node.EnterCommand {
		return node.Enter(args[1], args[2])
	}
	if len(args) == 3 && args[0] == node.RunCommand {
		return node.Run(args[1], args[2])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Stdout)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	name := flags.String("name", "paymesh", "the cluster's `NAME`; clusters of different names run side by side")
	dir := flags.String("state-dir", "", "the cluster's state `FOLDER` (default ${XDG_STATE_HOME:-~/.local/state}/paymesh/clusters/NAME)")
	binDir := flags.String("bin-dir", os.Getenv("PAYMESH_BIN_DIR"), "the `FOLDER` of the programs that hack/tools/tools.sh built (its --dir), for up; PAYMESH_BIN_DIR")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	folder, err := state.Open(*name, *dir)
	if err != nil {
		return err
	}
	o := options{folder: folder, binDir: *binDir}
	commands := map[string]func(context.Context, options, []string, io.Writer) error{
		"up": up, "down": down, "status": status, "exec": execute, "load": load,
		"forward": forward, "kubeconfig": kubeconfig, "logs": logs,
	}
	command, ok := commands[flags.Arg(0)]
	if !ok {
		flags.Usage()
		return flag.ErrHelp
	}
	if os.Geteuid() != 0 {
		return errors.New("namespaces, mounts and cgroups need root: run this command as root (sudo -E keeps the environment)")
	}
	return command(ctx, o, flags.Args()[1:], out)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
