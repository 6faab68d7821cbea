// Package image builds container images of one layer from files of this machine: the same content gives the same
// digest, whoever builds it and when.
package image

import (
	"fmt"
	"io"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// DefaultUser is the "nonroot" user of most images without a distribution in them.
const DefaultUser = "65532:65532"

// epoch is the time of every file and image: the format's zero.
var epoch = time.Unix(0, 0).UTC()

// Spec says what an image holds and how it starts.
type Spec struct {
	Tag        string // REPOSITORY:TAG
	Entrypoint []string
	User       string // UID[:GID]
	Files      []File
}

// File is a regular file of this machine (Source) and its place in the image (Target, absolute).
type File struct {
	Source string
	Target string
}

// ParseFile reads SOURCE[:TARGET]. Without a target the file lies in the image's root folder.
func ParseFile(arg string) (File, error) {
	source, target, ok := strings.Cut(arg, ":")
	if !ok {
		target = "/" + filepath.Base(source)
	}
	if source == "" || !path.IsAbs(target) || path.Clean(target) != target || target == "/" {
		return File{}, fmt.Errorf("file %q: write PATH or PATH:/PLACE/IN/IMAGE", arg)
	}
	return File{Source: source, Target: target}, nil
}

// Build makes the image. Files are read when it is written.
func Build(s Spec) (v1.Image, error) {
	if len(s.Files) == 0 {
		return nil, fmt.Errorf("image %s: name at least one file", s.Tag)
	}
	for _, id := range strings.Split(s.User, ":") {
		if id == "" || strings.Trim(id, "0123456789") != "" {
			return nil, fmt.Errorf("image %s: user %q: write UID or UID:GID in digits, since the image has no list of names", s.Tag, s.User)
		}
	}
	files, err := withLibraries(s.Files)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	content, err := newLayer(files)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	built, err := mutate.AppendLayers(empty.Image, content)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	config, err := built.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: epoch}
	config.History = nil
	config.Config.Entrypoint = s.Entrypoint
	config.Config.User = s.User
	config.Config.Env = []string{"PATH=/"}
	return mutate.ConfigFile(built, config)
}

// Write writes the image as an archive that containerd and Docker load.
func Write(w io.Writer, s Spec) error {
	built, err := Build(s)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(s.Tag)
	if err != nil {
		return fmt.Errorf("image %q: %w", s.Tag, err)
	}
	if err := tarball.Write(tag, built, w); err != nil {
		return fmt.Errorf("write image %s: %w", s.Tag, err)
	}
	return nil
}
