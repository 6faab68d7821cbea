package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

func forward(ctx context.Context, o options, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("name at least one forward, PORT:HOST:PORT (PORT 0: any that is free)")
	}
	forwards, err := parseForwards(args)
	if err != nil {
		return err
	}
	if _, err := running(o.folder); err != nil {
		return err
	}
	return addForwards(ctx, o.folder, forwards, out)
}

func parseForwards(args []string) ([]node.Forward, error) {
	var all []node.Forward
	for _, arg := range args {
		parsed, err := node.ParseForward(arg)
		if err != nil {
			return nil, err
		}
		all = append(all, parsed)
	}
	return all, nil
}

// addForwards opens the ports on this machine's loopback and hands them to the node. A forward that is there already
// is success.
func addForwards(ctx context.Context, f state.Folder, wanted []node.Forward, out io.Writer) error {
	for _, forward := range wanted {
		s, err := node.Ask(ctx, f, false)
		if err != nil {
			return err
		}
		if there := find(s.Forwards, forward); there != nil {
			fmt.Fprintf(out, "  forward %s is there already\n", there)
			continue
		}
		listener, err := listen(forward.Port)
		if err != nil {
			return err
		}
		forward.Port = listener.Addr().(*net.TCPAddr).Port
		err = node.AddForward(ctx, f, forward, listener)
		if err := errors.Join(err, listener.Close()); err != nil {
			return err
		}
		fmt.Fprintf(out, "  forward %s\n", forward)
	}
	return nil
}

// find returns the forward that leads where wanted does, from its port or, where it leaves the port open, from any.
func find(all []node.Forward, wanted node.Forward) *node.Forward {
	for i := range all {
		if all[i].Target == wanted.Target && (wanted.Port == 0 || all[i].Port == wanted.Port) {
			return &all[i]
		}
	}
	return nil
}

// listen opens a port on this machine's loopback; 0 means any that is free.
func listen(port int) (*net.TCPListener, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return nil, fmt.Errorf("open port %d on this machine's loopback (0 takes any that is free): %w", port, err)
	}
	return listener, nil
}
