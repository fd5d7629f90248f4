package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A mounted is a filesystem that is measured.
type mounted struct {
	dir      string // where it is to be seen
	snapshot func(name string) error
	diff     func(name string) error // of a snapshot and what is there now
	close    func() error
}

// sync waits for the disk, so that nobody pays for what was done before.
func (m *mounted) sync() error {
	f, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// A subject makes filesystems in a directory.
type subject struct {
	name string
	make func(dir string, o options) (*mounted, error)
}

var subjects = []subject{
	{"btrfs", btrfs},
	{"ext4", func(dir string, o options) (*mounted, error) { return loop(dir, o, "mkfs.ext4", "-q") }},
	{"dataset", dataset()},
	{"dataset-zstd", dataset("-o", "compression=zstd")},
	{"dataset-1000", oneOfMany},
}

// command runs a program; its error has what the program said.
func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// room is how large the filesystems are: enough for all that workloads write.
func room(o options) int64 { return 4*o.size + int64(o.many)*32<<10 + 4<<30 }

func loop(dir string, o options, mkfs ...string) (*mounted, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting it needs root")
	}
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, room(o)); err != nil {
		return nil, err
	}
	if err := command(dir, mkfs[0], append(mkfs[1:], image)...); err != nil {
		return nil, err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return nil, err
	}
	if err := command(dir, "mount", "-o", "loop,noatime", image, mnt); err != nil {
		return nil, err
	}
	return &mounted{dir: mnt, close: func() error { return command(dir, "umount", mnt) }}, nil
}

func btrfs(dir string, o options) (*mounted, error) {
	m, err := loop(dir, o, "mkfs.btrfs", "-q")
	if err != nil {
		return nil, err
	}
	top := m.dir
	m.dir = filepath.Join(top, "set")
	if err := command(top, "btrfs", "subvolume", "create", m.dir); err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.snapshot = func(name string) error {
		return command(top, "btrfs", "subvolume", "snapshot", "-r", m.dir, filepath.Join(top, name))
	}
	return m, nil
}

// dataset returns what makes a pool with a dataset.
func dataset(set ...string) func(dir string, o options) (*mounted, error) {
	return func(dir string, o options) (*mounted, error) {
		root, mnt := filepath.Join(dir, "pools"), filepath.Join(dir, "mnt")
		lamina := func(args ...string) error {
			return command(dir, o.lamina, append([]string{args[0], args[1], "--root", root}, args[2:]...)...)
		}
		create := append([]string{"dataset", "create", "--pool-size", fmt.Sprint(room(o))}, set...)
		if err := lamina(append(create, "--mount", mnt, "tank/set")...); err != nil {
			return nil, err
		}
		return &mounted{
			dir:      mnt,
			snapshot: func(name string) error { return lamina("dataset", "snapshot", "tank/set@"+name) },
			diff:     func(name string) error { return lamina("dataset", "diff", "tank/set@"+name, "tank/set") },
			close: func() error {
				return errors.Join(lamina("dataset", "umount", "tank/set"), lamina("pool", "stop", "tank"))
			},
		}, nil
	}
}

// oneOfMany is a clone of a dataset that has a tree, beside a thousand others.
func oneOfMany(dir string, o options) (*mounted, error) {
	m, err := dataset()(dir, o)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "pools")
	clone := func() error {
		if err := command(m.dir, "tar", "-xf", o.archive); err != nil {
			return err
		}
		if err := m.snapshot("origin"); err != nil {
			return err
		}
		for i := range o.clones {
			if err := command(dir, o.lamina, "dataset", "clone", "--root", root, "tank/set@origin", fmt.Sprintf("tank/clone%d", i)); err != nil {
				return err
			}
		}
		return command(m.dir, "rm", "-rf", "tree")
	}
	if err := clone(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}
