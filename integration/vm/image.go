package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// left out of the machine: what no test looks at.
var leftOut = []string{
	"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion", "usr/share/zoneinfo",
	"usr/share/i18n", "usr/share/perl", "usr/share/zfs", "usr/share/initramfs-tools", "usr/lib/python3", "usr/lib/python3.11", "usr/share/python3",
	"usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/systemd", "usr/lib/udev/hwdb.d", "boot",
}

// leftOutNames are large files that are needed by none of the programs used.
var leftOutNames = []string{"libicudata", "libicui18n", "libicuuc", "perl", "python3"}

// modulesKept are the directories of the kernel's modules that machines get.
var modulesKept = []string{"arch", "crypto", "lib", "fs", "drivers/block", "drivers/md", "drivers/virtio", "drivers/dax", "drivers/nvdimm"}

// kernelOf returns the version of the only kernel in an unpacked tree.
func kernelOf(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("kernels in %s: %q, want one", dir, found)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// base makes the archive of the root filesystem that all runs share, with the
// modules in extra added; it returns its path.
func (c *cache) base(kernel, name, extra string) (string, error) {
	path := c.path("base-" + name + "-" + kernel + ".cpio")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	guest := c.path("guest")
	modules := filepath.Join(guest, "usr/lib/modules", kernel)
	if extra != "" {
		if err := copyFiles(extra, filepath.Join(modules, "updates")); err != nil {
			return "", err
		}
	}
	t := tree{c.path("tools"), c.dir}
	depmod := t.command("/usr/sbin/depmod", "-b", t.inside(guest), kernel)
	depmod.Stdout, depmod.Stderr = c.log, c.log
	if err := depmod.Run(); err != nil {
		return "", fmt.Errorf("depmod: %w; see %s", err, c.log.Name())
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return "", err
	}
	w := newCpio(f)
	err = errors.Join(w.tree(guest, "", func(rel string) bool { return inMachine(rel, kernel) }), w.close(), f.Close())
	if err != nil {
		return "", fmt.Errorf("make the root filesystem: %w", err)
	}
	return path, os.Rename(path+".new", path)
}

// inMachine decides what of the unpacked packages is part of a machine.
func inMachine(rel, kernel string) bool {
	for _, dir := range leftOut {
		if rel == dir {
			return false
		}
	}
	for _, name := range leftOutNames {
		if strings.HasPrefix(filepath.Base(rel), name) {
			return false
		}
	}
	inner, ok := strings.CutPrefix(rel, "usr/lib/modules/"+kernel+"/kernel/")
	if !ok {
		return true
	}
	for _, dir := range modulesKept {
		if inner == dir || strings.HasPrefix(inner, dir+"/") || strings.HasPrefix(dir, inner+"/") {
			return true
		}
	}
	return false
}

func copyFiles(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A cpio is an archive as the kernel takes it for an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	w   *bufio.Writer
	off int64
	ino int
}

func newCpio(w io.Writer) *cpio { return &cpio{w: bufio.NewWriterSize(w, 1<<20)} }

// tree adds what is in a directory, below prefix, as far as keep says so.
func (c *cpio) tree(dir, prefix string, keep func(rel string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if !keep(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		name := filepath.Join(prefix, rel)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return c.add(name, st.Mode, 0, nil)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return c.add(name, st.Mode, int64(len(target)), strings.NewReader(target))
		case unix.S_IFREG:
			return c.file(name, path, st.Mode)
		}
		return nil // devices are devtmpfs's
	})
}

// file adds a file of the host.
func (c *cpio) file(name, path string, mode uint32) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return c.add(name, mode, st.Size(), f)
}

// bytes adds a regular file.
func (c *cpio) bytes(name, text string) error {
	return c.add(name, unix.S_IFREG|0o644, int64(len(text)), strings.NewReader(text))
}

func (c *cpio) add(name string, mode uint32, size int64, data io.Reader) error {
	c.ino++
	// Magic, inode, mode, owner, group, links, time, size, device, device of a node, length of the name, checksum.
	n, err := fmt.Fprintf(c.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	c.off += int64(n)
	if err != nil {
		return err
	}
	if err := c.pad(); err != nil || data == nil {
		return err
	}
	copied, err := io.CopyN(c.w, data, size)
	c.off += copied
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return c.pad()
}

func (c *cpio) pad() error {
	for c.off%4 != 0 {
		if err := c.w.WriteByte(0); err != nil {
			return err
		}
		c.off++
	}
	return nil
}

// close ends the archive. Another one may follow it.
func (c *cpio) close() error {
	if err := c.add("TRAILER!!!", 0, 0, nil); err != nil {
		return err
	}
	return c.w.Flush()
}
