package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/cgroup"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// enterRoot gives the node a file system that it cannot leave a trace outside of: the machine's, read-only, with the
// state folder writable at its place and /var, /tmp and /run of its own.
func enterRoot(s Spec) error {
	f := s.folder()
	// What is mounted from here on stays in this namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	root := f.Root()
	if err := bind("/", root, unix.MS_REC); err != nil {
		return err
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, root, unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("make the machine's file system read-only for the node (needs Linux 5.12): %w", err)
	}
	if err := mountWritable(f, root); err != nil {
		return err
	}
	if err := bindPrograms(root+f.Bin(), s.Programs); err != nil {
		return err
	}
	if err := mountKernel(root, hierarchies); err != nil {
		return err
	}
	return pivot(root)
}

// bindPrograms shows every program under its own name in one folder, so that the node does not depend on the places
// that they were built in.
func bindPrograms(dir string, programs map[string]string) error {
	for name, source := range programs {
		target := filepath.Join(dir, name)
		file, err := os.OpenFile(target, os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if err := file.Close(); err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if err := bind(source, target, 0); err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
	}
	return nil
}

func mountWritable(f state.Folder, root string) error {
	// The order matters: the state folder itself may lie in one of the folders before it.
	for _, m := range []struct{ source, target string }{{f.Var(), "/var"}, {f.Tmp(), "/tmp"}} {
		if err := bind(m.source, root+m.target, 0); err != nil {
			return err
		}
	}
	if err := mountTmpfs(root+"/run", "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{f.Dir, "/run/lock", "/var/log", "/var/lib"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return fmt.Errorf("make the node's %s: %w", dir, err)
		}
	}
	for link, target := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"} {
		if err := os.Symlink(target, root+link); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make the node's %s: %w", link, err)
		}
	}
	// Not recursive: root, with all that is mounted there by now, lies in this folder.
	if err := bind(f.Dir, root+f.Dir, 0); err != nil {
		return err
	}
	return bind(f.Logs(), root+"/var/log", 0)
}

// mountKernel mounts what shows the new namespaces instead of the machine's.
func mountKernel(root string, hierarchies []cgroup.Hierarchy) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", root+"/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("sysfs", root+"/sys", "sysfs", flags, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := cgroup.Mount(root+"/sys/fs/cgroup", hierarchies); err != nil {
		return err
	}
	if _, err := os.Stat(root + "/dev/shm"); err == nil {
		return mountTmpfs(root+"/dev/shm", "mode=1777")
	}
	return nil
}

// pivot makes root the root of the mount namespace and lets go of the machine's.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	// Both arguments may be the same folder: the old root then lies on top of the new one (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	// Pods may ask for mount propagation (CSI drivers do), which needs shared mounts; they are shared with no other namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make the mounts shared inside the node: %w", err)
	}
	return nil
}

func bind(source, target string, flags uintptr) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	return nil
}

func mountTmpfs(target, options string) error {
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", target, err)
	}
	return nil
}

// environment is that of every component: the cluster's programs come before the machine's.
func environment(f state.Folder) []string {
	kept := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		// A proxy of the machine cannot be reached from the node's network.
		return slices.Contains([]string{"PATH", "HOME", "TMPDIR", "KUBECONFIG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}, strings.ToUpper(key))
	})
	return append(kept, Environment(f)...)
}

// Environment is what a command inside the node needs to find the cluster's programs and its API server.
func Environment(f state.Folder) []string {
	return []string{
		"PATH=" + f.Bin() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/tmp",
		"TMPDIR=/tmp",
		"KUBECONFIG=" + f.InnerKubeconfig(),
		"CONTAINERD_ADDRESS=" + containerdSocket,
		"CONTAINERD_NAMESPACE=k8s.io",
	}
}
