package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bench is what all repetitions of a run share.
type bench struct {
	config  config
	scale   scale
	scratch string
	tree    *tree
	many    []string // lowers with many entries
	archive string   // tar file that is unpacked
	caches  interface{ drop() error }
	away    int // trees put away
}

// repetition is one subject doing one workload once, on an upper of its own.
type repetition struct {
	*bench
	ctx     context.Context
	subject *subject
	stack   stack
	mounted bool
	value   float64 // seconds measured, or megabytes
}

// repeat runs body on a fresh upper and returns what it measured. Whatever
// happens, nothing is mounted and no process runs afterwards. When time is up or
// the run is interrupted, killing the children is what lets a system call that
// waits for a server return.
func (b *bench) repeat(parent context.Context, s *subject, body func(*repetition) error) (value float64, err error) {
	ctx, cancel := context.WithTimeoutCause(parent, b.config.Limit, fmt.Errorf("gave up after %v (--limit)", b.config.Limit))
	defer cancel()
	r := &repetition{bench: b, ctx: ctx, subject: s}
	stop := context.AfterFunc(ctx, func() {
		_ = signalChildren(unix.SIGKILL) // a child that is left is ended below, with its error
	})
	defer func() {
		stop()
		if r.mounted {
			err = errors.Join(err, unmount(r.stack.target))
		}
		err = errors.Join(err, endChildren(), b.putAway(filepath.Join(b.scratch, "rw")))
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	if err := r.makeStack(); err != nil {
		return 0, err
	}
	if err := body(r); err != nil {
		return 0, err
	}
	if r.value <= 0 {
		return 0, errors.New("nothing was measured")
	}
	return r.value, nil
}

// putAway takes what a repetition wrote out of the way of the next one and frees
// most of its space. Small files stay until the end of the run: for a minute
// ext4 passes by the inodes of removed files, one after the other, whenever it
// looks for a free one, so that who comes next would pay for the removal.
func (b *bench) putAway(dir string) error {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(name, 0o700) // also where a workload has taken permissions away
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 1<<20 {
			return os.Truncate(name, 0)
		}
		return nil
	})
	b.away++
	return errors.Join(err, os.Rename(dir, filepath.Join(b.scratch, fmt.Sprintf("done%d", b.away))))
}

// makeStack makes empty upper, work and target directories.
func (r *repetition) makeStack() error {
	rw := filepath.Join(r.scratch, "rw")
	r.stack = stack{
		lowers: r.tree.layers,
		upper:  filepath.Join(rw, "upper"),
		work:   filepath.Join(rw, "work"),
		target: filepath.Join(rw, "mnt"),
	}
	for _, dir := range []string{r.stack.upper, r.stack.work, r.stack.target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make stack: %w", err)
		}
	}
	return nil
}

// mount mounts the stack of the repetition.
func (r *repetition) mount() error {
	if err := r.subject.mount(r.ctx, r.stack, r.scratch); err != nil {
		// A server may have mounted and died, or mounted too late.
		if unix.Unmount(r.stack.target, unix.MNT_DETACH) == nil {
			err = fmt.Errorf("%w (and left something mounted)", err)
		}
		return err
	}
	r.mounted = true
	return nil
}

func (r *repetition) unmount() error {
	r.mounted = false
	return unmount(r.stack.target)
}

// measure adds the duration of f to the value. What earlier steps left dirty is
// written before the clock starts, and garbage of this process is collected.
func (r *repetition) measure(f func() error) error {
	if err := syncFilesystem(r.scratch); err != nil {
		return err
	}
	runtime.GC()
	start := time.Now()
	err := f()
	r.value += time.Since(start).Seconds()
	if err != nil {
		return err
	}
	return r.ctx.Err()
}

// path is a name in the mount.
func (r *repetition) path(name string) string {
	return filepath.Join(r.stack.target, name)
}

// each calls f with the path in the mount of each name, until an error or the
// end of the run.
func (r *repetition) each(names []string, f func(path string) error) error {
	for _, name := range names {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := f(r.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func syncFilesystem(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd) // opened for reading: nothing can be lost
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
