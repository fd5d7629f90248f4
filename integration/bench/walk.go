package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// walk visits every name below dir as `find -printf` with sizes and times does:
// getdents until the end, one fstatat per name, depth first. It makes these
// system calls itself, so that what is timed is the filesystem and not the
// process start and formatting of a command. It returns the number of names.
func walk(ctx context.Context, dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return walkOpen(ctx, fd, dir)
}

// walkOpen walks and closes fd.
func walkOpen(ctx context.Context, fd int, dir string) (int, error) {
	defer unix.Close(fd) // opened for reading: nothing can be lost
	names, err := readNames(fd)
	if err != nil {
		return 0, &os.PathError{Op: "getdents", Path: dir, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	count := len(names)
	var st unix.Stat_t
	for _, name := range names {
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, &os.PathError{Op: "stat", Path: filepath.Join(dir, name), Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: filepath.Join(dir, name), Err: err}
		}
		n, err := walkOpen(ctx, sub, filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		count += n
	}
	return count, nil
}

// readNames reads a directory with the buffer that glibc's readdir uses.
func readNames(fd int) ([]string, error) {
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// readFile opens, reads to the end and closes, as cat does.
func readFile(name string, buf []byte) (int64, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd) // opened for reading: nothing can be lost
	var total int64
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return total, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return total, nil
		}
		total += int64(n)
	}
}

// check compares what a mount shows with what the layers hold. A filesystem that
// shows less has less to do, and its times would mean nothing.
func (t *tree) check(ctx context.Context, mnt string) error {
	n, err := walk(ctx, filepath.Join(mnt, "tree"))
	if err != nil {
		return err
	}
	if n != t.entries() {
		return fmt.Errorf("shows %d names where the layers have %d", n, t.entries())
	}
	var total int64
	buf := make([]byte, 64<<10)
	for _, name := range t.files {
		n, err := readFile(filepath.Join(mnt, name), buf)
		if err != nil {
			return err
		}
		total += n
	}
	if total != t.bytes {
		return fmt.Errorf("shows files of %d bytes where the layers have %d", total, t.bytes)
	}
	return nil
}
