package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// libraryDirs is where the dynamic linkers of the distributions look.
var libraryDirs = []string{
	"/lib/*-linux-gnu", "/usr/lib/*-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// withLibraries adds, for programs that are linked dynamically (Envoy), the dynamic linker and the libraries of this
// machine that they name, at the same places.
func withLibraries(files []File) ([]File, error) {
	all := slices.Clone(files)
	seen := map[string]bool{}
	for i := 0; i < len(all); i++ {
		needs, err := needed(all[i].Source)
		if err != nil {
			return nil, err
		}
		for _, library := range needs {
			if !seen[library] {
				seen[library] = true
				all = append(all, File{Source: library, Target: library})
			}
		}
	}
	return all, nil
}

// needed lists what a program or library asks the dynamic linker for. A file that is no ELF file needs nothing.
func needed(path string) ([]string, error) {
	var format *elf.FormatError
	f, err := elf.Open(path)
	if errors.As(err, &format) {
		return nil, nil
	}
	if err != nil {
		if info, statErr := os.Stat(path); statErr == nil && info.Size() < 16 {
			return nil, nil // too short to be one, which elf reports as an unexpected end
		}
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	var found []string
	for _, program := range f.Progs {
		if program.Type != elf.PT_INTERP {
			continue
		}
		raw := make([]byte, program.Filesz)
		if _, err := program.ReadAt(raw, 0); err != nil {
			return nil, fmt.Errorf("read the dynamic linker's name of %s: %w", path, err)
		}
		found = append(found, string(raw[:len(raw)-1]))
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("read the libraries of %s: %w", path, err)
	}
	for _, name := range names {
		library, err := find(name, f.Machine)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		found = append(found, library)
	}
	return found, nil
}

func find(name string, machine elf.Machine) (string, error) {
	for _, pattern := range libraryDirs {
		matches, err := filepath.Glob(filepath.Join(pattern, name))
		if err != nil {
			return "", err
		}
		for _, match := range matches {
			f, err := elf.Open(match)
			if err != nil {
				continue
			}
			same := f.Machine == machine
			_ = f.Close()
			if same {
				return match, nil
			}
		}
	}
	return "", fmt.Errorf("library %s is not on this machine: install it, or use a program that is linked statically", name)
}
