package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stack is what one mount is made of. All paths are absolute.
type stack struct {
	lowers      []string // the topmost first
	upper, work string
	target      string
	volatile    bool // the data may be lost in a crash: no syncing needed
}

// subject is a union filesystem that can be mounted.
type subject struct {
	name    string
	version string
	problem string // why it cannot be measured; empty if it can
	// command gives the program and arguments that mount s and return once it is
	// usable. It runs in the scratch directory.
	command func(s stack) []string
}

// mount runs the command and waits until the target is another filesystem that
// answers. The command's output goes to a file and not to a pipe: a server that
// keeps its descriptors open in the background must not make us wait.
func (s *subject) mount(ctx context.Context, st stack, scratch string) error {
	before, err := deviceOf(st.target)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(scratch, "mount.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	argv := s.command(st)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = scratch
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, readErr := os.ReadFile(log.Name())
		if readErr != nil {
			said = []byte(readErr.Error())
		}
		return fmt.Errorf("mount %s: %s: %w: %s", s.name, filepath.Base(argv[0]), err, lastLine(string(said)))
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		now, err := deviceOf(st.target)
		if err == nil && now != before {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("mount %s: %w", s.name, ctx.Err())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("mount %s: %s exited with success but nothing usable is mounted after %v", s.name, argv[0], patience)
		}
	}
}

// unmount ends the mount and its server. A target that stays busy is detached, so
// that the next mount finds its place free, and that is an error.
func unmount(target string) error {
	err := tryUnmount(target)
	if err != nil {
		err = errors.Join(fmt.Errorf("unmount %s: %w", target, err), unix.Unmount(target, unix.MNT_DETACH))
	}
	if !awaitChildren(patience) {
		err = errors.Join(err, fmt.Errorf("the server still ran %v after unmounting", patience), endChildren())
	}
	return err
}

// tryUnmount gives asynchronous users of the mount, such as a release that the
// server has not answered yet, a moment to finish.
func tryUnmount(target string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Unmount(target, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func deviceOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Dev, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
