// Package state is the folder of one cluster: where everything lies, who may touch it, and what was recorded in it.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/proc"
)

const (
	// maxName leaves room for the name in the node's host name and in cgroup names.
	maxName = 32
	// maxSocketPath is what sockaddr_un holds, without the final zero byte.
	maxSocketPath = 107

	recordFile = "cluster.json"
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// Folder is the state folder of the cluster called Name. Dir is absolute.
type Folder struct {
	Name string
	Dir  string
}

// Record is what a later command must know of a cluster. A folder is only ever emptied if it holds one.
type Record struct {
	Name    string    `json:"name"`
	Node    proc.ID   `json:"node"`
	Cgroup  string    `json:"cgroup"`
	APIPort int       `json:"apiPort"`
	Created time.Time `json:"created"`
}

// Open checks name and dir; an empty dir means the default folder. Nothing is created.
func Open(name, dir string) (Folder, error) {
	if len(name) > maxName || !nameForm.MatchString(name) {
		return Folder{}, fmt.Errorf("cluster name %q: use at most %d lower case letters, digits and '-', with a letter or digit at both ends", name, maxName)
	}
	if dir == "" {
		base, err := defaultBase()
		if err != nil {
			return Folder{}, err
		}
		dir = filepath.Join(base, "paymesh", "clusters", name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Folder{}, fmt.Errorf("state folder of cluster %s: %w", name, err)
	}
	f := Folder{Name: name, Dir: resolve(dir)}
	if len(f.ControlSocket()) > maxSocketPath {
		return Folder{}, fmt.Errorf("state folder %s: its path is too long for a Unix socket; choose a shorter one with --state-dir", f.Dir)
	}
	return f, nil
}

// resolve follows the symbolic links of a path whose end need not be there yet: the links would lead elsewhere after
// the node has changed its root, and one folder must have one name.
func resolve(path string) string {
	if found, err := filepath.EvalSymlinks(path); err == nil || path == "/" {
		return found
	}
	return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
}

func defaultBase() (string, error) {
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return base, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder for the cluster's state: set HOME or --state-dir: %w", err)
	}
	return filepath.Join(home, ".local", "state"), nil
}

// ControlSocket is where the node answers the other commands.
func (f Folder) ControlSocket() string { return filepath.Join(f.Dir, "control.sock") }

// Kubeconfig is the administrator's kubeconfig with the address on the host's loopback.
func (f Folder) Kubeconfig() string { return filepath.Join(f.Dir, "kubeconfig") }

// InnerKubeconfig is the administrator's kubeconfig with the address inside the node.
func (f Folder) InnerKubeconfig() string { return f.Etc("admin.kubeconfig") }

// Bin holds the cluster's programs, the CNI plugins among them.
func (f Folder) Bin() string { return filepath.Join(f.Dir, "bin") }

// Etc is a file or folder of the components' configuration.
func (f Folder) Etc(elem ...string) string {
	return filepath.Join(append([]string{f.Dir, "etc"}, elem...)...)
}

// Logs holds a file for each component and, below pods, one for each container.
func (f Folder) Logs() string { return filepath.Join(f.Dir, "log") }

// Log is the log file of one component.
func (f Folder) Log(component string) string { return filepath.Join(f.Logs(), component+".log") }

// Root is where the node assembles its file system before it makes it its root.
func (f Folder) Root() string { return filepath.Join(f.Dir, "root") }

// Var and Tmp are what /var and /tmp are inside the node.
func (f Folder) Var(elem ...string) string {
	return filepath.Join(append([]string{f.Dir, "var"}, elem...)...)
}

// Tmp is what /tmp is inside the node.
func (f Folder) Tmp() string { return filepath.Join(f.Dir, "tmp") }

// Create makes the folder and its subfolders. A folder with somebody else's files in it is refused.
func (f Folder) Create() error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state folder of cluster %s: %w", f.Name, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("state folder %s is not empty and not a cluster's: choose another with --state-dir", f.Dir)
	}
	for _, dir := range []string{f.Bin(), f.Etc("pki"), f.Etc("cni"), f.Logs(), f.Root(), f.Var()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("state folder of cluster %s: %w", f.Name, err)
		}
	}
	for _, dir := range []string{f.Tmp(), f.Var("tmp")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("state folder of cluster %s: %w", f.Name, err)
		}
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			return fmt.Errorf("state folder of cluster %s: %w", f.Name, err)
		}
	}
	// Pods that do not run as root look into these two, through the root folder that the node makes of them.
	for _, dir := range []string{f.Var(), f.Logs()} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return fmt.Errorf("state folder of cluster %s: %w", f.Name, err)
		}
	}
	return nil
}

// Read returns the record, or nil where there is no cluster in the folder.
func (f Folder) Read() (*Record, error) {
	raw, err := os.ReadFile(filepath.Join(f.Dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of cluster %s: %w", f.Name, err)
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("record of cluster %s, %s, is damaged: stop what runs from this folder, then remove it: %w", f.Name, filepath.Join(f.Dir, recordFile), err)
	}
	return &r, nil
}

// Write replaces the record in one step, so that a crash leaves the old one or the new one.
func (f Folder) Write(r Record) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("record of cluster %s: %w", f.Name, err)
	}
	path := filepath.Join(f.Dir, recordFile)
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("record of cluster %s: %w", f.Name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record of cluster %s: %w", f.Name, err)
	}
	return nil
}

// Empty removes everything in the folder (but the logs, if keepLogs) and the record last, so that a removal that was
// cut short can be repeated. Without a record nothing is touched.
func (f Folder) Empty(keepLogs bool) error {
	record, err := f.Read()
	if err != nil || record == nil {
		return err
	}
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("empty the state folder of cluster %s: %w", f.Name, err)
	}
	for _, e := range entries {
		path := filepath.Join(f.Dir, e.Name())
		if e.Name() == recordFile || keepLogs && path == f.Logs() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("empty the state folder of cluster %s: %w", f.Name, err)
		}
	}
	if keepLogs {
		return nil
	}
	if err := os.Remove(filepath.Join(f.Dir, recordFile)); err != nil {
		return fmt.Errorf("empty the state folder of cluster %s: %w", f.Name, err)
	}
	return nil
}

// Remove removes the emptied folder and, where it lies in the default place, the folders above it that only hold
// clusters and hold none any more.
func (f Folder) Remove() error {
	if err := os.Remove(f.Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the state folder of cluster %s: %w", f.Name, err)
	}
	if base, err := defaultBase(); err == nil && filepath.Dir(f.Dir) == filepath.Join(base, "paymesh", "clusters") {
		// Best effort: a folder that still holds something stays.
		_ = os.Remove(filepath.Dir(f.Dir))
		_ = os.Remove(filepath.Dir(filepath.Dir(f.Dir)))
	}
	return nil
}

// Lock makes the folder where create is set and keeps other commands that change this cluster out until unlock is
// called. Without create, a folder that does not exist gives os.ErrNotExist.
func (f Folder) Lock(create bool) (unlock func(), err error) {
	return LockDir(f.Dir, create)
}

// LockDir locks a folder by itself: there is no lock file to leave behind. A folder that was removed while it was
// waited for is tried again, since its lock keeps nobody out any more.
func LockDir(dir string, create bool) (unlock func(), err error) {
	for {
		if create {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, fmt.Errorf("create %s: %w", dir, err)
			}
		}
		held, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) && create {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), held.Close())
		}
		if sameFile(held, dir) {
			return func() { _ = held.Close() }, nil
		}
		_ = held.Close()
	}
}

func sameFile(held *os.File, path string) bool {
	a, errA := held.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
