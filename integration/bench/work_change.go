package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Workloads that change names, attributes and small files.

// writeArchive makes a tar file with n small files, all owned by root: in a user
// namespace that is the only user there is.
func writeArchive(name string, n int) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g := newGenerator()
	w := tar.NewWriter(f)
	for i := range n {
		data := g.content(1_000_000 + i)
		data = data[:min(len(data), 4096)]
		if i%50 == 0 {
			dir := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%03d/", i/50), Mode: 0o755}
			if err := w.WriteHeader(dir); err != nil {
				return fmt.Errorf("write archive: %w", err)
			}
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%03d/f%05d", i/50, i), Mode: 0o644, Size: int64(len(data))}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
	}
	return w.Close()
}

func untar(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := os.Mkdir(r.path("new"), 0o755); err != nil {
		return err
	}
	return r.measure(func() error { return r.run(r.path("new"), "tar", "-xf", r.archive) })
}

// renameFiles renames files that were made through the mount: what is timed is
// renaming and not copying up.
func renameFiles(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	const perDir = 100
	var names []string
	for i := range r.scale.touched {
		name := fmt.Sprintf("new%03d/f%05d", i/perDir, i)
		if err := writeFile(r.path(name), []byte(name)); err != nil {
			return err
		}
		names = append(names, name)
	}
	return r.measure(func() error {
		return r.each(names, func(path string) error { return os.Rename(path, path+".renamed") })
	})
}

func removeLower(r *repetition) error {
	if err := r.warmLayers(); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error { return r.run(r.stack.target, "rm", "-rf", "tree") })
}

// appendLower makes every touched file be copied up with its data.
func appendLower(volatile bool) func(*repetition) error {
	return func(r *repetition) error {
		if err := r.warmLayers(); err != nil {
			return err
		}
		r.stack.volatile = volatile
		if err := r.mount(); err != nil {
			return err
		}
		line := []byte("one more line\n")
		return r.measure(func() error {
			return r.each(r.tree.files[:r.scale.touched], func(path string) error { return appendTo(path, line) })
		})
	}
}

func appendTo(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = unix.Write(fd, data)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return &os.PathError{Op: "append", Path: path, Err: err}
	}
	return nil
}

func chmodLower(r *repetition) error {
	if err := r.warmLayers(); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error { return r.run(r.stack.target, "chmod", "-R", "go-rwx", "tree") })
}

// touchBig changes one byte, which makes the whole file be copied up.
func touchBig(r *repetition) error {
	bottom := r.tree.layers[layerCount-1]
	if _, err := readFile(filepath.Join(bottom, "big"), make([]byte, 1<<20)); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error {
		return withFile(r.path("big"), os.O_WRONLY, func(f *os.File) error {
			if _, err := f.WriteAt([]byte("B"), 0); err != nil {
				return err
			}
			return f.Sync()
		})
	})
}

// compile has the compiler read sources and headers of different lower layers
// and write objects beside them. Most of its time is the compiler's own.
func compile(r *repetition) error {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return errors.New("needs a C compiler: cc is not in PATH")
	}
	if err := r.mount(); err != nil {
		return err
	}
	var objects []string
	return r.measure(func() error {
		for i := range r.scale.sources {
			part := fmt.Sprintf("part%d", i)
			if err := r.run(r.path("src"), cc, "-O1", "-c", part+".c", "-o", part+".o"); err != nil {
				return err
			}
			objects = append(objects, part+".o")
		}
		return r.run(r.path("src"), cc, append([]string{"-o", "prog", "main.c"}, objects...)...)
	})
}

// withFile opens a file, creating it if flag says so, and closes it after f.
func withFile(name string, flag int, f func(*os.File) error) (err error) {
	file, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return f(file)
}
