package stacks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/tarlayer"
)

func isFile(text string) bool {
	path, _ := splitRef(text)
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// splitRef takes the reference off FILE:REF. A file whose name has the colon
// itself wins.
func splitRef(text string) (path, ref string) {
	if _, err := os.Lstat(text); err == nil {
		return text, ""
	}
	for i, c := range text {
		if c == ':' {
			if _, err := os.Lstat(text[:i]); err == nil {
				return text[:i], text[i+1:]
			}
		}
	}
	return text, ""
}

// opened is an archive that is in use.
type opened struct {
	fs   *tarlayer.FS
	file *os.File
}

func (a *opened) Close() error { return errors.Join(a.fs.Close(), a.file.Close()) }

func openTarFile(path string, o *Options) (*opened, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file; archives are read at any place, not from a pipe", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	fs, err := tarlayer.Open(path, f, st.Size(), o.tar(path, false))
	if err != nil {
		f.Close()
		return nil, err
	}
	return &opened{fs, f}, nil
}

func (o *Options) tar(name string, image bool) tarlayer.Options {
	t := tarlayer.Options{Image: image, TempDir: o.TempDir}
	if o.Progress != nil {
		t.Progress = func(done, total int64) { o.Progress(name, done, total) }
	}
	return t
}

// openTar takes the archive for one layer, whatever is in it.
func openTar(text string, o *Options) (*inspect.Stack, error) {
	a, err := openTarFile(text, o)
	if err != nil {
		return nil, err
	}
	return a.single(text), nil
}

func (a *opened) single(text string) *inspect.Stack {
	st, _ := a.file.Stat() // of an open file; only a size that is shown
	var packed int64
	if st != nil {
		packed = st.Size()
	}
	return &inspect.Stack{
		Name: text,
		Layers: []inspect.Layer{{
			Name: text, Packed: packed, Problems: a.fs.Problems(),
			Open: func() (layer.Dir, error) { return a.fs.Root(), nil },
		}},
		Closers: []func() error{a.Close},
	}
}

// openArchive takes the archive for an image if it holds one, else for one
// layer.
func openArchive(text string, o *Options) (*inspect.Stack, error) {
	path, ref := splitRef(text)
	a, err := openTarFile(path, o)
	if err != nil {
		return nil, err
	}
	s, err := openImage(text, a.fs.Root(), ref, o)
	switch {
	case errors.Is(err, errNoImage) && ref == "":
		return a.single(path), nil
	case err != nil:
		a.Close()
		return nil, err
	}
	s.Closers = append(s.Closers, a.Close)
	return s, nil
}

func isLayout(text string) bool {
	path, _ := splitRef(text)
	st, err := os.Stat(path + "/oci-layout")
	return err == nil && st.Mode().IsRegular()
}

// openLayout reads an OCI image layout in a directory.
func openLayout(text string, o *Options) (*inspect.Stack, error) {
	path, ref := splitRef(text)
	d, err := layer.OpenHost(path)
	if err != nil {
		return nil, err
	}
	s, err := openImage(text, d, ref, o)
	if err != nil {
		d.Close()
		return nil, err
	}
	s.Closers = append(s.Closers, d.Close)
	return s, nil
}

// readerAt makes an [io.ReaderAt] of a layer's file.
type readerAt struct{ layer.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := r.File.ReadAt(p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// openPath opens a file below d. Symbolic links are followed, a few and inside
// of d only: old docker-archives have them.
func openPath(d layer.Dir, path string) (layer.File, layer.Stat, error) {
	for range 8 {
		f, st, target, err := openNoFollow(d, path)
		if target == "" {
			return f, st, err
		}
		up := path[:strings.LastIndexByte(path, '/')+1]
		path = cleanInside(up, target)
	}
	return nil, layer.Stat{}, fmt.Errorf("%q: more than 8 symbolic links", path)
}

// cleanInside returns where a link in directory up leads, never above the top.
func cleanInside(up, target string) string {
	if strings.HasPrefix(target, "/") {
		up = ""
	}
	var parts []string
	for c := range strings.SplitSeq(up+target, "/") {
		switch c {
		case "", ".":
		case "..":
			parts = parts[:max(len(parts)-1, 0)]
		default:
			parts = append(parts, c)
		}
	}
	return strings.Join(parts, "/")
}

func openNoFollow(d layer.Dir, path string) (layer.File, layer.Stat, string, error) {
	dir, rest := d, path
	defer func() {
		if dir != d {
			dir.Close()
		}
	}()
	for {
		name, below, more := strings.Cut(rest, "/")
		st, err := dir.StatAt(name)
		if err != nil {
			return nil, st, "", fmt.Errorf("%q: %w", path, err)
		}
		if !more {
			if target, err := dir.ReadlinkAt(name); err == nil && target != "" {
				return nil, st, target, nil
			}
			f, err := dir.OpenFile(name, 0, 0)
			if err != nil {
				err = fmt.Errorf("%q: %w", path, err)
			}
			return f, st, "", err
		}
		sub, err := dir.OpenDir(name)
		if err != nil {
			return nil, st, "", fmt.Errorf("%q: %w", path, err)
		}
		if dir != d {
			dir.Close()
		}
		dir, rest = sub, below
	}
}
