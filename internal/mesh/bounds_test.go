package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// ballast adds messages that nothing uses, which any error may have as details, with names that begin so.
func ballast(t testing.TB, descriptors []byte, messages int, prefix string) []byte {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(descriptors, set); err != nil {
		t.Fatal(err)
	}
	file := set.GetFile()[len(set.GetFile())-1]
	for i := range messages {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprintf("%s%d", prefix, i))})
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const (
	hogExposures = 16
	hogMethods   = 60
)

// hog is an edge with a service that is far too large for it: with each method come all messages that nothing uses.
func hog(t testing.TB) (e *edge, descriptors []byte) {
	t.Helper()
	const exposures, each = hogExposures, hogMethods
	e = newEdge(t)
	var paths []string
	for i := range exposures * each {
		paths = append(paths, fmt.Sprintf("/v1/m%d", i))
	}
	raw := ballast(t, descriptorsWith(0, paths...), 50_000, "U")
	s := e.add("pay", "large", 1000, shop, raw)
	of := s.Spec.Expose[0]
	s.Spec.Expose = nil
	for i := range exposures {
		of := of
		of.Name, of.Methods = meshv1alpha1.ItemName(fmt.Sprintf("e%02d", i)), nil
		for j := range each {
			of.Methods = append(of.Methods, meshv1alpha1.ExactMethod(fmt.Sprintf("t.S/M%d", i*each+j)))
		}
		s.Spec.Expose = append(s.Spec.Expose, of)
	}
	return e, raw
}

// BenchmarkBuildBesideTooLargeAService is what one key costs at whose gateway a service wants far more than there is room for.
func BenchmarkBuildBesideTooLargeAService(b *testing.B) {
	e, _ := hog(b)
	build(b, e, 1)
}

// It is work that is counted, and not time: what was refused once is refused again with none at all.
func TestWhatAGatewayHasNoRoomForIsNotMadeAndCountedOnce(t *testing.T) {
	const exposures, each = hogExposures, hogMethods
	e, raw := hog(t)
	e.Asked = mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: publicGateway}
	build := func() {
		t.Helper()
		m, problems := mesh.Build(e.Objects)
		g, _ := m.Gateway(publicGateway)
		if len(g.Routes) != 1 || len(problems) != exposures-1 {
			t.Fatalf("%d routes are served, %v", len(g.Routes), problems)
		}
		for _, problem := range problems {
			if problem.Reason != meshv1alpha1.ReasonGatewayFull || !strings.Contains(problem.Message, "KiB or more, and it has room for 4096") {
				t.Fatal(problem)
			}
		}
	}
	build()
	// An exposure is given up with the first of its methods that is too much, and the one that is served as a whole needs one cut.
	work := e.Descriptors.Work()
	if work.Measured > exposures*9+1 || work.Made != 1 {
		t.Errorf("of %d methods, with descriptors of %d bytes, %d cuts were measured and %d made", exposures*each, len(raw), work.Measured, work.Made)
	}
	build()
	if again := e.Descriptors.Work(); again != work {
		t.Errorf("though nothing has changed there was work to do: %+v after %+v", again, work)
	}
}

func TestAGatewayTakesKeySetsThatItsProxiesCanCarry(t *testing.T) {
	padded := func(size int) string { return publicKeys + strings.Repeat(" ", size-len(publicKeys)) }
	const most = 64 << 10
	for name, test := range map[string]struct {
		sizes []int
		says  []string
	}{
		"as large as may be": {sizes: []int{most, most, most, most}},
		"one that is too large": {
			sizes: []int{len(publicKeys), most + 1},
			says:  []string{"spec.jwt[name=j1].jwks: the key set has 65537 bytes, and may have 65536: "},
		},
		"too large together": {
			sizes: []int{most, most, most, most - 200, 400, 200},
			says:  []string{"spec.jwt[name=j4].jwks: with its 400 bytes the key sets of this gateway would have 262344, and it has room for 262144: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			g := &e.Gateways[0]
			of := g.Spec.JWT[0]
			g.Spec.JWT = nil
			for i, size := range test.sizes {
				of.Name, of.JWKS.Key = meshv1alpha1.ItemName(fmt.Sprintf("j%d", i)), meshv1alpha1.DataKey(fmt.Sprintf("k%d", i))
				g.Spec.JWT = append(g.Spec.JWT, of)
				e.ConfigMaps[0].Data[string(of.JWKS.Key)] = padded(size)
			}
			m, problems := mesh.Build(e.Objects)
			if len(problems) != len(test.says) {
				t.Fatalf("got %v", problems)
			}
			for i, problem := range problems {
				if problem.Reason != meshv1alpha1.ReasonKeysInvalid || !strings.Contains(problem.Message, test.says[i]) {
					t.Errorf("got  %s\nwant %s", problem, test.says[i])
				}
			}
			if served, _ := m.Gateway(publicGateway); len(served.JWT) != len(test.sizes)-len(test.says) {
				t.Errorf("the gateway has %d of %d", len(served.JWT), len(test.sizes))
			}
		})
	}
}

func TestWhoOutgrowsItsRecordTakesNoRoomFromWhoIsServed(t *testing.T) {
	e := newEdge(t)
	// grow has a service serve 64 methods, by two exposures that share a host name, so that each method has descriptors of its own.
	grow := func(name string, messages int) {
		var paths []string
		for i := range 64 {
			paths = append(paths, fmt.Sprintf("/v1/%s/m%d", name, i))
		}
		raw := ballast(t, descriptorsWith(0, paths...), messages, strings.Repeat("U", 93))
		if e.service(name) == nil {
			created := map[string]int64{"old": 1000, "young": 2000}[name]
			s := e.add("pay", name, created, name+".example.com", raw)
			s.Spec.Expose = append(s.Spec.Expose, s.Spec.Expose[0])
			s.Spec.Expose[0].Methods, s.Spec.Expose[1].Methods, s.Spec.Expose[1].Name = nil, nil, "more"
			for i := range 64 {
				s.Spec.Expose[i%2].Methods = append(s.Spec.Expose[i%2].Methods, meshv1alpha1.ExactMethod(fmt.Sprintf("t.S/M%d", i)))
			}
			return
		}
		for i := range e.ConfigMaps {
			if e.ConfigMaps[i].Name == name {
				e.ConfigMaps[i].BinaryData = map[string][]byte{"k": raw}
			}
		}
	}
	served := func() map[string]int {
		t.Helper()
		paths, told := e.served(t)
		of := map[string]int{}
		for _, by := range paths {
			of[by]++
		}
		if len(paths) < 128 && !strings.Contains(told, meshv1alpha1.ReasonGatewayFull) {
			t.Errorf("not all are served, and the others are told %s", told)
		}
		return of
	}
	all := map[string]int{"old/api": 32, "old/more": 32, "young/api": 32, "young/more": 32}
	for _, step := range []struct {
		does string
		do   func()
		want map[string]int
	}{
		{"both come", func() { grow("old", 10); grow("young", 400) }, all},
		{"nothing", func() {}, all},
		{"old grows", func() { grow("old", 400) }, map[string]int{"old/api": 32, "young/api": 32, "young/more": 32}},
		{"young grows and takes what is free", func() { grow("young", 420) }, nil},
		{"young is as it was", func() { grow("young", 400) }, nil},
		{"old is as it was", func() { grow("old", 10) }, all},
		{"young grows to what is there", func() { grow("young", 520) }, all},
		{"old gets another name", func() { e.service("old").Spec.Expose[1].Name = "renamed" }, map[string]int{"old/api": 32, "old/renamed": 32, "young/api": 32, "young/more": 32}},
		{"old grows under another name", func() { grow("old", 400); e.service("old").Spec.Expose[1].Name = "more" }, map[string]int{"old/api": 32, "young/api": 32, "young/more": 32}},
	} {
		step.do()
		if got := served(); step.want != nil && !cmp.Equal(got, step.want) {
			t.Errorf("%s: got %v, want %v", step.does, got, step.want)
		}
	}
}

// BenchmarkBuildBesideACrowd is what one key costs at whose gateway small services want many paths under many host names each:
// there is room for 15 of their 320 exposures.
func BenchmarkBuildBesideACrowd(b *testing.B) {
	e := newEdge(b)
	var paths []string
	for i := range 256 {
		paths = append(paths, fmt.Sprintf("/v1/a%d", i))
	}
	raw := descriptorsWith(0, paths...)
	for i := range 20 {
		s := e.add("pay", fmt.Sprintf("s%d", i), int64(1000+i), shop, raw)
		of := s.Spec.Expose[0]
		s.Spec.Expose, of.Hostnames = nil, nil
		for j := range 16 {
			of.Hostnames = append(of.Hostnames, meshv1alpha1.Hostname(fmt.Sprintf("h%d-%d.example.com", i, j)))
		}
		for j := range 16 {
			of.Name = meshv1alpha1.ItemName(fmt.Sprintf("e%d", j))
			s.Spec.Expose = append(s.Spec.Expose, of)
		}
	}
	build(b, e, 15)
}

func TestWhoIsServedAndChangesComesBeforeWhoWaits(t *testing.T) {
	e := newEdge(t)
	// add has a service serve 64 methods: the young one by two exposures that share a host name, so that each method has
	// descriptors of its own; the old one by one, whose descriptors are as large for all.
	add := func(name string, created int64, messages int) {
		var paths []string
		for i := range 66 {
			paths = append(paths, fmt.Sprintf("/v1/%s/m%d", name, i))
		}
		s := e.add("pay", name, created, name+".example.com", ballast(t, descriptorsWith(0, paths...), messages, strings.Repeat("U", 93)))
		s.Spec.Expose[0].Methods = nil
		if name == "young" {
			s.Spec.Expose = append(s.Spec.Expose, s.Spec.Expose[0])
			s.Spec.Expose[1].Name = "more"
		}
		for i := range 64 {
			to := &s.Spec.Expose[i%len(s.Spec.Expose)]
			to.Methods = append(to.Methods, meshv1alpha1.ExactMethod(fmt.Sprintf("t.S/M%d", i)))
		}
	}
	exposures := func() []meshv1alpha1.Exposure { return e.service("young").Spec.Expose }
	for _, step := range []struct {
		does string
		do   func()
		want int
	}{
		{"it comes", func() { add("young", 2000, 500) }, 64},
		{"an older one comes, for which there is no room", func() { add("old", 1000, 12000) }, 64},
		{"a method more", func() { exposures()[0].Methods = append(exposures()[0].Methods, meshv1alpha1.ExactMethod("t.S/M64")) }, 65},
		{"a method less", func() { exposures()[0].Methods = exposures()[0].Methods[1:] }, 64},
		{"another host name instead", func() {
			for i := range exposures() {
				exposures()[i].Hostnames = []meshv1alpha1.Hostname{"other.example.com"}
			}
		}, 64},
	} {
		step.do()
		paths, told := e.served(t)
		for path, by := range paths {
			if !strings.HasPrefix(by, "young/") {
				t.Fatalf("%s: %s is served by %s, of %d; told %s", step.does, path, by, len(paths), told)
			}
		}
		if len(paths) != step.want || e.service("old") != nil && !strings.Contains(told, meshv1alpha1.ReasonGatewayFull) {
			t.Errorf("%s: %d paths are served, want %d; told %q", step.does, len(paths), step.want, told)
		}
	}
}
