// Package cgroup gives a cluster a sub-cgroup in each hierarchy of the machine, shows it to the node as the root of
// its own, and removes it.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// root is where every distribution mounts cgroups, and where containerd, runc and the kubelet look for them.
const root = "/sys/fs/cgroup"

// Hierarchy is one mounted cgroup hierarchy.
type Hierarchy struct {
	Mountpoint string   // below or at /sys/fs/cgroup
	Version    int      // 1 or 2
	Options    []string // version 1: the controllers, or name=NAME
}

// Hierarchies lists the hierarchies that this process sees.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	defer func() { _ = f.Close() }()
	found, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s: mount one (cgroup v2: mount -t cgroup2 none %s)", root, root)
	}
	return found, nil
}

// parse reads /proc/self/mountinfo: "36 35 98:0 /root /mountpoint options - fstype source superoptions".
func parse(mountinfo io.Reader) ([]Hierarchy, error) {
	var found []Hierarchy
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		before, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(before) < 5 || len(after) < 3 {
			continue
		}
		mountpoint := before[4]
		if mountpoint != root && filepath.Dir(mountpoint) != root {
			continue
		}
		switch after[0] {
		case "cgroup":
			found = append(found, Hierarchy{Mountpoint: mountpoint, Version: 1, Options: controllers(after[2])})
		case "cgroup2":
			found = append(found, Hierarchy{Mountpoint: mountpoint, Version: 2})
		}
	}
	return found, lines.Err()
}

// controllers drops the options of a version 1 mount that do not say which hierarchy it is.
func controllers(superOptions string) []string {
	return slices.DeleteFunc(strings.Split(superOptions, ","), func(option string) bool {
		return slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children"}, option) || strings.HasPrefix(option, "release_agent=")
	})
}

// Create makes the sub-cgroup called name in each hierarchy. It returns the controllers that it had to switch on in
// the machine's version 2 root for that.
func Create(name string) (enabled []string, err error) {
	all, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		if h.Mountpoint == root && h.Version == 2 {
			if enabled, err = enableControllers(root); err != nil {
				return enabled, err
			}
		}
		dir := filepath.Join(h.Mountpoint, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return enabled, fmt.Errorf("create cgroup %s: %w", dir, err)
		}
		if slices.Contains(h.Options, "cpuset") {
			if err := copyCpuset(h.Mountpoint, dir); err != nil {
				return enabled, err
			}
		}
	}
	return enabled, nil
}

// copyCpuset is needed since a new version 1 cpuset is empty and takes no process.
func copyCpuset(from, to string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			return fmt.Errorf("read the machine's cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(to, file), value, 0o644); err != nil {
			return fmt.Errorf("set %s: %w", filepath.Join(to, file), err)
		}
	}
	return nil
}

// enableControllers switches on for the children of dir what dir has, and returns what was not on before.
func enableControllers(dir string) (enabled []string, err error) {
	has, err := fields(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	on, err := fields(control)
	if err != nil {
		return nil, err
	}
	for _, controller := range has {
		if slices.Contains(on, controller) {
			continue
		}
		// One at a time: a controller that the machine refuses does not keep the others off. The kubelet names what it misses.
		if err := os.WriteFile(control, []byte("+"+controller), 0o644); err == nil {
			enabled = append(enabled, controller)
		}
	}
	return enabled, nil
}

func fields(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return strings.Fields(string(raw)), nil
}

// ControlFile is where controllers of the version 2 root are switched.
func ControlFile() string { return filepath.Join(root, "cgroup.subtree_control") }

// Join moves this process, with all its threads, into the sub-cgroup called name of each hierarchy.
func Join(name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		procs := filepath.Join(h.Mountpoint, name, "cgroup.procs")
		if err := os.WriteFile(procs, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup %s: %w", procs, err)
		}
	}
	return nil
}

// Mount mounts the hierarchies below target as a process in a cgroup namespace of its own sees them, that is with its
// sub-cgroups as roots. The kernel takes exactly the hierarchies that the machine has mounted.
func Mount(target string, all []Hierarchy) error {
	if len(all) == 1 && all[0].Version == 2 && all[0].Mountpoint == root {
		if err := unix.Mount("cgroup2", target, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount cgroup2 on %s: %w", target, err)
		}
		return delegate(target)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", target, err)
	}
	for _, h := range all {
		name := filepath.Base(h.Mountpoint)
		dir := filepath.Join(target, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("mount cgroups: %w", err)
		}
		fstype, options := "cgroup2", ""
		if h.Version == 1 {
			fstype, options = "cgroup", mountOptions(h.Options)
		}
		if err := unix.Mount(fstype, dir, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
			return fmt.Errorf("mount %s (%s) on %s: %w", fstype, options, dir, err)
		}
		// A hierarchy of two controllers is looked up by either name.
		for _, controller := range h.Options {
			if len(h.Options) > 1 && controller != name {
				if err := os.Symlink(name, filepath.Join(target, controller)); err != nil {
					return fmt.Errorf("mount cgroups: %w", err)
				}
			}
		}
	}
	return nil
}

func mountOptions(controllers []string) string {
	if len(controllers) == 1 && strings.HasPrefix(controllers[0], "name=") {
		return "none," + controllers[0]
	}
	return strings.Join(controllers, ",")
}

// delegate moves this process out of the node's version 2 root into a child, since a cgroup that hands controllers to
// its children may hold no process, and hands all controllers to the children.
func delegate(target string) error {
	child := filepath.Join(target, "node")
	if err := os.MkdirAll(child, 0o755); err != nil {
		return fmt.Errorf("create cgroup %s: %w", child, err)
	}
	if err := os.WriteFile(filepath.Join(child, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("join cgroup %s: %w", child, err)
	}
	_, err := enableControllers(target)
	return err
}

// Remove removes the sub-cgroup called name from each hierarchy, the deepest first. Its processes must have been
// killed; the kernel may take a moment to let go of them.
func Remove(ctx context.Context, name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.Mountpoint, name)
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("cgroup %s still has processes (see its cgroup.procs): %w", dir, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
