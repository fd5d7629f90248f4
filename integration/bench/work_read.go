package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Workloads that read names and small files. "Warm" has done the same once
// before through the same mount; "first time" has a new mount over layers that
// are in the page cache; "cold" has nothing in any cache.

func listRoot(r *repetition) error {
	_, err := os.ReadDir(r.stack.target)
	return err
}

// warmLayers brings the lower files into the page cache, not through the mount.
func (r *repetition) warmLayers() error {
	buf := make([]byte, 64<<10)
	for _, layer := range r.tree.layers {
		if _, err := walk(r.ctx, layer); err != nil {
			return err
		}
		for _, name := range r.tree.files {
			if _, err := readFile(filepath.Join(layer, name), buf); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return r.ctx.Err()
}

func (r *repetition) walkTree() error {
	n, err := walk(r.ctx, r.path("tree"))
	if err == nil && n != r.tree.entries() {
		err = fmt.Errorf("walk: found %d names of %d", n, r.tree.entries())
	}
	return err
}

func (r *repetition) readTree() error {
	buf := make([]byte, 64<<10)
	return r.each(r.tree.files, func(path string) error {
		_, err := readFile(path, buf)
		return err
	})
}

// mountCold mounts with empty caches. The directories above the mount and the
// server's program are read again by mounting, before the clock starts.
func (r *repetition) mountCold() error {
	if err := r.caches.drop(); err != nil {
		return err
	}
	return r.mount()
}

func walkWarm(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.walkTree(); err != nil {
		return err
	}
	return r.measure(func() error {
		for range r.scale.passes {
			if err := r.walkTree(); err != nil {
				return err
			}
		}
		return nil
	})
}

func statWarm(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.walkTree(); err != nil {
		return err
	}
	var st unix.Stat_t
	return r.measure(func() error {
		for range r.scale.passes {
			err := r.each(r.tree.files, func(path string) error { return unix.Lstat(path, &st) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func readWarm(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.readTree(); err != nil {
		return err
	}
	return r.measure(r.readTree)
}

// tarWarm writes to a pipe: tar does not read files when it sees /dev/null.
func tarWarm(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.readTree(); err != nil {
		return err
	}
	return r.measure(func() error {
		return r.run(r.stack.target, "sh", "-c", "tar -cf - tree | cat >/dev/null")
	})
}

func grepFirst(r *repetition) error {
	if err := r.warmLayers(); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error {
		err := r.run(r.stack.target, "grep", "-r", "a word that is in no file", "tree")
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 {
			return nil // grep's way to say that nothing matched
		}
		return err
	})
}

// walkParallel has four walkers share the directories: a server with one thread
// or one lock serves them one after the other.
func walkParallel(r *repetition) error {
	const walkers = 4
	if err := r.warmLayers(); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error {
		errs := make([]error, walkers)
		var wg sync.WaitGroup
		for i := range walkers {
			wg.Go(func() {
				for j := i; j < len(r.tree.tops) && errs[i] == nil; j += walkers {
					_, errs[i] = walk(r.ctx, r.path(r.tree.tops[j]))
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

func walkCold(r *repetition) error {
	if err := r.mountCold(); err != nil {
		return err
	}
	return r.measure(r.walkTree)
}

func readCold(r *repetition) error {
	if err := r.mountCold(); err != nil {
		return err
	}
	return r.measure(r.readTree)
}

// run runs a command in dir and puts what it said into its error.
func (r *repetition) run(dir, name string, args ...string) error {
	cmd := exec.CommandContext(r.ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, firstLine(string(out)))
	}
	return nil
}
