package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//nolint:dupword // mountinfo says the type and the source, which have the same name
func TestParseFindsTheHierarchiesOfEveryLayout(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo string
		want      []Hierarchy
	}{
		"version 2": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]Hierarchy{{Mountpoint: "/sys/fs/cgroup", Version: 2}},
		},
		"hybrid": {
			`21 20 0:19 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
22 21 0:20 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
23 21 0:21 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
24 21 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
25 20 0:22 / /elsewhere rw - cgroup2 cgroup2 rw
`,
			[]Hierarchy{
				{Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", Version: 1, Options: []string{"cpu", "cpuacct"}},
				{Mountpoint: "/sys/fs/cgroup/systemd", Version: 1, Options: []string{"name=systemd"}},
				{Mountpoint: "/sys/fs/cgroup/unified", Version: 2},
			},
		},
		"none": {"1 1 0:1 / / rw - ext4 /dev/vda rw\nnonsense\n", nil},
	} {
		got, err := parse(strings.NewReader(c.mountinfo))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestMountOptionsNameTheHierarchy(t *testing.T) {
	for want, controllers := range map[string][]string{"none,name=systemd": {"name=systemd"}, "cpu,cpuacct": {"cpu", "cpuacct"}} {
		if got := mountOptions(controllers); got != want {
			t.Errorf("%v: got %s, want %s", controllers, got, want)
		}
	}
}
