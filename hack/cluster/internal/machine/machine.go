// Package machine keeps what no namespace holds: it records the machine-wide settings that a cluster changes when the
// first cluster comes up, and puts them back when the last one goes.
package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jia-app/paymesh/hack/cluster/internal/proc"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// DefaultDir is one place for all clusters of the machine, wherever their state folders are: the settings belong to
// the kernel, not to a user or a folder.
const DefaultDir = "/run/paymesh-clusters"

// Sysctls are those that the kubelet writes at its start (setupKernelTunables in pkg/kubelet/cm).
var Sysctls = []string{
	"kernel/keys/root_maxbytes",
	"kernel/keys/root_maxkeys",
	"kernel/panic",
	"kernel/panic_on_oops",
	"vm/overcommit_memory",
	"vm/panic_on_oom",
}

const recordFile = "record.json"

// Machine is a folder for the record and the tree that holds the settings.
type Machine struct {
	Dir    string // DefaultDir, but in tests
	Sysctl string // "/proc/sys", but in tests
}

// record is what the machine was like before the first cluster. A record of an earlier boot means nothing: the
// settings went with that boot.
type record struct {
	BootID  string            `json:"bootID"`
	Members []string          `json:"members"` // state folders of the clusters that are up
	Sysctls map[string]string `json:"sysctls"`
	Modules []string          `json:"modules"` // kernel modules that were loaded for a cluster
	Undo    []Setting         `json:"undo"`    // other writes that take a change back, in the order in which they were added
}

// Setting is a file and what to write into it.
type Setting struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

// Enter records the machine's settings, unless a cluster that is still up did so, and adds the cluster with this
// state folder to those that are up.
func (m Machine) Enter(stateDir string) error {
	return m.update(func(r *record) error {
		if len(r.Members) == 0 {
			r.Sysctls = map[string]string{}
			for _, key := range Sysctls {
				value, err := os.ReadFile(filepath.Join(m.Sysctl, key))
				if errors.Is(err, os.ErrNotExist) {
					continue // not every kernel has every one
				}
				if err != nil {
					return fmt.Errorf("record sysctl %s: %w", key, err)
				}
				r.Sysctls[key] = strings.TrimSpace(string(value))
			}
		}
		if !slices.Contains(r.Members, stateDir) {
			r.Members = append(r.Members, stateDir)
			slices.Sort(r.Members)
		}
		return nil
	})
}

// AddUndo remembers writes that the last Leave has to do.
func (m Machine) AddUndo(settings ...Setting) error {
	if len(settings) == 0 {
		return nil
	}
	return m.update(func(r *record) error {
		r.Undo = append(r.Undo, settings...)
		return nil
	})
}

// LoadModule loads a kernel module where the file that it brings is missing.
func (m Machine) LoadModule(ctx context.Context, name, brings string) error {
	if _, err := os.Stat(brings); err == nil {
		return nil
	}
	return m.update(func(r *record) error {
		if out, err := exec.CommandContext(ctx, "modprobe", name).CombinedOutput(); err != nil {
			return fmt.Errorf("the kernel lacks %s (no %s): load it on this machine and try again: %w: %s", name, brings, err, bytes.TrimSpace(out))
		}
		if !slices.Contains(r.Modules, name) {
			r.Modules = append(r.Modules, name)
		}
		return nil
	})
}

// Leave takes the cluster with this state folder out, and puts the machine's settings back if it was the last one. A
// cluster that is not in the record is success.
func (m Machine) Leave(ctx context.Context, stateDir string) error {
	if _, err := os.Stat(m.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return m.update(func(r *record) error {
		before := len(r.Members)
		r.Members = slices.DeleteFunc(r.Members, func(member string) bool {
			// A folder that somebody removed by hand never says goodbye.
			_, err := os.Stat(member)
			return member == stateDir || errors.Is(err, os.ErrNotExist)
		})
		if before == 0 || len(r.Members) > 0 {
			return nil
		}
		return m.restore(ctx, r)
	})
}

func (m Machine) restore(ctx context.Context, r *record) error {
	var errs []error
	for _, key := range Sysctls {
		value, ok := r.Sysctls[key]
		if !ok {
			continue
		}
		if err := write(filepath.Join(m.Sysctl, key), value); err != nil {
			errs = append(errs, fmt.Errorf("restore sysctl %s to %s: %w", key, value, err))
		}
	}
	for _, undo := range slices.Backward(r.Undo) {
		if err := write(undo.Path, undo.Value); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("write %s to %s: %w", undo.Value, undo.Path, err))
		}
	}
	for _, name := range slices.Backward(r.Modules) {
		// Best effort: somebody else may use the module by now.
		_ = exec.CommandContext(ctx, "modprobe", "-r", name).Run()
	}
	return errors.Join(errs...)
}

func write(path, value string) error {
	now, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(now)) == value {
		return nil // some sysctls cannot be written everywhere; what is right already needs no write
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

// update changes the record under the machine's lock. A record without members is removed together with its folder.
func (m Machine) update(change func(*record) error) error {
	unlock, err := state.LockDir(m.Dir, true)
	if err != nil {
		return fmt.Errorf("record of this machine's settings: %w", err)
	}
	defer unlock()
	r, err := m.read()
	if err != nil {
		return err
	}
	changeErr := change(r)
	if len(r.Members) == 0 {
		return errors.Join(changeErr, os.RemoveAll(m.Dir))
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return errors.Join(changeErr, fmt.Errorf("record of this machine's settings: %w", err))
	}
	path := filepath.Join(m.Dir, recordFile)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return errors.Join(changeErr, fmt.Errorf("record of this machine's settings: %w", err))
	}
	return errors.Join(changeErr, os.Rename(path+".new", path))
}

func (m Machine) read() (*record, error) {
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	fresh := &record{BootID: boot}
	raw, err := os.ReadFile(filepath.Join(m.Dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of this machine's settings: %w", err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("record of this machine's settings, %s, is damaged: run `cluster down` for every cluster, then remove it: %w", filepath.Join(m.Dir, recordFile), err)
	}
	if r.BootID != boot {
		return fresh, nil
	}
	return &r, nil
}
