package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A workload takes the time of something; what it needs before is not timed.
type workload struct {
	name      string
	reference string
	only      map[string]bool
	before    func(*mounted, options) error
	run       func(*mounted, options) error
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

var (
	all      = set("btrfs", "ext4", "dataset", "dataset-zstd", "dataset-1000")
	single   = set("btrfs", "ext4", "dataset", "dataset-zstd")
	sharing  = set("btrfs", "dataset")
	datasets = set("dataset")
)

var workloads = []workload{
	{"untar", "btrfs", all, nil, unpack},
	{"stat all, warm", "btrfs", all, warmed, walk},
	{"read all, warm", "btrfs", all, warmed, func(m *mounted, _ options) error {
		return command(m.dir, "find", "tree", "-type", "f", "-exec", "cat", "{}", "+")
	}},
	{"rm -rf", "btrfs", all, warmed, func(m *mounted, _ options) error { return command(m.dir, "rm", "-rf", "tree") }},
	{"sequential write + fsync", "btrfs", single, nil, copyLarge},
	{"sequential read, warm", "btrfs", single, read, read},
	{"random 4K write, fsync each", "btrfs", single, copyLarge, writeAndSync},
	{"snapshot of many files", "btrfs", sharing, manyFiles, func(m *mounted, _ options) error { return m.snapshot("now") }},
	{"diff after 10 changes", "dataset", datasets, changed, func(m *mounted, _ options) error { return m.diff("before") }},
}

func unpack(m *mounted, o options) error { return command(m.dir, "tar", "-xf", o.archive) }

func walk(m *mounted, _ options) error {
	return command(m.dir, "find", "tree", "-printf", "%s %m %U %p\n")
}

// warmed unpacks the tree, reads all of it, and looks at all of it then: reading makes
// the kernel forget a file's access time on FUSE, so that looking before would warm
// nothing.
func warmed(m *mounted, o options) error {
	if err := unpack(m, o); err != nil {
		return err
	}
	err := filepath.WalkDir(filepath.Join(m.dir, "tree"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return err
	}
	return walk(m, o)
}

func copyLarge(m *mounted, o options) error {
	return command(m.dir, "dd", "if="+o.large, "of=large", "bs=1M", "conv=fsync")
}

// read reads the large file, which it makes where there is none.
func read(m *mounted, o options) error {
	if _, err := os.Stat(filepath.Join(m.dir, "large")); errors.Is(err, os.ErrNotExist) {
		if err := copyLarge(m, o); err != nil {
			return err
		}
	}
	return command(m.dir, "dd", "if=large", "of=/dev/null", "bs=1M")
}

func writeAndSync(m *mounted, o options) error {
	f, err := os.OpenFile(filepath.Join(m.dir, "large"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	rng, p := rand.New(rand.NewPCG(1, 2)), make([]byte, 4096)
	for i := range o.ops {
		p[0] = byte(i)
		if _, err := f.WriteAt(p, rng.Int64N(o.size/4096)*4096); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// manyFiles makes a tree of small files.
func manyFiles(m *mounted, o options) error {
	for i := range o.many {
		dir := filepath.Join(m.dir, fmt.Sprintf("d%d", i/200))
		if i%200 == 0 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte("small\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// changed changes ten of many files, of which there is a snapshot.
func changed(m *mounted, o options) error {
	if err := manyFiles(m, o); err != nil {
		return err
	}
	if err := m.sync(); err != nil {
		return err
	}
	if err := m.snapshot("before"); err != nil {
		return err
	}
	for i := range 10 {
		n := i * (o.many / 10)
		if err := os.WriteFile(filepath.Join(m.dir, fmt.Sprintf("d%d/f%d", n/200, n)), []byte("changed\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what the workloads unpack and copy.
func (o *options) prepare(dir string) error {
	o.archive, o.large = filepath.Join(dir, "tree.tar"), filepath.Join(dir, "large")
	rng := rand.NewChaCha8([32]byte{1})
	large, err := os.Create(o.large)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(large, rng, o.size); err != nil {
		return errors.Join(err, large.Close())
	}
	if err := large.Close(); err != nil {
		return err
	}
	f, err := os.Create(o.archive)
	if err != nil {
		return err
	}
	return errors.Join(writeTree(tar.NewWriter(f), rng, o.files), f.Close())
}

// writeTree writes a tree of files with sizes as those of a system have them: most
// are small, half of their content is text.
func writeTree(w *tar.Writer, random *rand.ChaCha8, files int) error {
	rng := rand.New(random)
	for i := range files {
		b := make([]byte, int(rng.ExpFloat64()*8000))
		random.Read(b[:len(b)/2])
		for at := len(b) / 2; at < len(b); at++ {
			b[at] = "the quick brown fox jumps over the lazy dog\n"[(at+i)%44]
		}
		h := &tar.Header{Name: fmt.Sprintf("tree/d%d/f%d", i%300, i), Mode: 0o644, Size: int64(len(b)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Close()
}
