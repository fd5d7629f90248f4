package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// inTreeArg has this program be what runs another in an unpacked tree.
const inTreeArg = "in-tree"

// A tree is a directory with unpacked packages, whose programs run in it.
type tree struct{ dir, cache string }

// cacheInTree is where the cache is seen by programs of a tree.
const cacheInTree = "/cache"

// inside returns the path of a file of the cache for programs of the tree.
func (t tree) inside(path string) string {
	rel, err := filepath.Rel(t.cache, path)
	if err != nil {
		return path
	}
	return filepath.Join(cacheInTree, rel)
}

// command prepares a program of the tree, which sees the tree as its root, the
// machine's /dev and /proc, and the cache. It needs a user namespace where the
// caller is not root. The process that is started is the program's.
func (t tree) command(argv ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{inTreeArg, t.dir, t.cache}, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/", "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// enterTree is what the started process does first.
func enterTree(dir, cache string, argv []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ from, to string }{{"/dev", "dev"}, {"/proc", "proc"}, {cache, cacheInTree}} {
		to := filepath.Join(dir, m.to)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s to %s: %w", m.from, to, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return err
	}
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("chroot %s: %w", dir, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("run %s in %s: %w", argv[0], dir, unix.Exec(argv[0], argv, os.Environ()))
}
