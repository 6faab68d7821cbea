package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// callTimeout bounds one question to the node; the slowest answer asks the API server and CoreDNS.
const callTimeout = 10 * time.Second

// Phases of a node.
const (
	PhaseStarting = "starting"
	PhaseUp       = "up"
	PhaseFailed   = "failed"
)

// Status is what the node says of itself.
type Status struct {
	Phase      string            `json:"phase"`
	Error      string            `json:"error,omitempty"` // why the phase is failed
	Steps      []Step            `json:"steps"`           // of the start, in the order in which they were done
	Components []ComponentStatus `json:"components"`
	Forwards   []Forward         `json:"forwards"`
	Problems   []string          `json:"problems,omitempty"` // what is wrong now; only where health was asked for
}

// Step is a part of the start that is done.
type Step struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at"` // since the start of the node
}

// ComponentStatus is one process of the node.
type ComponentStatus struct {
	Name  string    `json:"name"`
	PID   int       `json:"pid"`             // as the node sees it
	Since time.Time `json:"since"`           // its start, or its end
	Ended string    `json:"ended,omitempty"` // how it ended; empty while it runs
	Log   string    `json:"log"`
}

// request is one question; exactly one of its fields is set. A listening socket comes with Forward.
type request struct {
	Status  *statusRequest `json:"status,omitempty"`
	Forward *Forward       `json:"forward,omitempty"`
}

type statusRequest struct {
	Health bool `json:"health"` // look whether everything works, which takes a moment
}

type response struct {
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
}

// Ask returns the status of the node whose state folder is f.
func Ask(ctx context.Context, f state.Folder, health bool) (*Status, error) {
	r, err := call(ctx, f, request{Status: &statusRequest{Health: health}}, nil)
	if err != nil {
		return nil, err
	}
	return r.Status, nil
}

// AddForward hands the node a socket that listens in this process's network, with what to connect its clients to.
func AddForward(ctx context.Context, f state.Folder, forward Forward, listener *net.TCPListener) error {
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("forward %s: %w", forward, err)
	}
	defer func() { _ = socket.Close() }()
	_, err = call(ctx, f, request{Forward: &forward}, socket)
	return err
}

func call(ctx context.Context, f state.Folder, q request, socket *os.File) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", f.ControlSocket())
	if err != nil {
		return nil, fmt.Errorf("the node of cluster %s does not answer (its log is %s): %w", f.Name, f.Log("node"), err)
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	var rights []byte
	if socket != nil {
		rights = unix.UnixRights(int(socket.Fd()))
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix(raw, rights, nil); err != nil {
		return nil, fmt.Errorf("ask the node of cluster %s: %w", f.Name, err)
	}
	var r response
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return nil, fmt.Errorf("answer of the node of cluster %s: %w", f.Name, err)
	}
	if r.Error != "" {
		return nil, errors.New(r.Error)
	}
	return &r, nil
}

// serveControl answers questions until ctx ends.
func (n *node) serveControl(ctx context.Context) error {
	path := n.folder.ControlSocket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return // closed
			}
			go n.answer(ctx, conn)
		}
	}()
	return nil
}

func (n *node) answer(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var r response
	q, socket, err := receive(conn)
	switch {
	case err != nil:
		r.Error = err.Error()
	case q.Forward != nil:
		if err := n.forwards.add(*q.Forward, socket); err != nil {
			r.Error = err.Error()
		}
	case q.Status != nil:
		r.Status = n.status(ctx, q.Status.Health)
	default:
		r.Error = "the node does not know this question: it was started by another version of this program, so `down` it, then `up`"
	}
	// A client that is gone needs no answer.
	_ = json.NewEncoder(conn).Encode(r)
}

// receive reads one request, which is short enough for one message, and the socket that may come with it.
func receive(conn *net.UnixConn) (q request, socket *os.File, err error) {
	message, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	if err := conn.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		return q, nil, err
	}
	size, rightsSize, _, _, err := conn.ReadMsgUnix(message, rights)
	if err != nil {
		return q, nil, err
	}
	if rightsSize > 0 {
		parsed, err := unix.ParseSocketControlMessage(rights[:rightsSize])
		if err != nil {
			return q, nil, err
		}
		fds, err := unix.ParseUnixRights(&parsed[0])
		if err != nil {
			return q, nil, err
		}
		socket = os.NewFile(uintptr(fds[0]), "listener")
	}
	return q, socket, json.Unmarshal(message[:size], &q)
}
