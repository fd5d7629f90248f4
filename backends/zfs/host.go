package zfs

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// A host is what the native engine asks of the system.
type host interface {
	// zfs runs the command zfs(8) and returns what it prints.
	zfs(args ...string) (string, error)
	// zpool does the same for zpool(8).
	zpool(args ...string) (string, error)
	// mount mounts a dataset whose mountpoint is legacy, with options of mount(8).
	mount(dataset, target, options string) error
	unmount(target string) error
}

// A commandError is a command that failed, in its own words.
type commandError struct {
	command string
	said    string
	cause   error
}

func (e *commandError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("%s: %v", e.command, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.command, e.said)
}

func (e *commandError) Unwrap() error { return e.cause }

// What zfs(8) says of an object that is there, or is not (lib/libzfs/libzfs_util.c).
const (
	saysExists  = "dataset already exists"
	saysMissing = "does not exist"
)

// says reports whether a command failed with certain words.
func says(err error, words string) bool {
	var e *commandError
	return errors.As(err, &e) && strings.Contains(e.said, words)
}

// system is this machine.
type system struct{}

func (system) zfs(args ...string) (string, error)   { return run("zfs", args...) }
func (system) zpool(args ...string) (string, error) { return run("zpool", args...) }

func run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C") // its words are looked at
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", &commandError{name + " " + strings.Join(args, " "), strings.TrimSpace(said.String()), err}
	}
	return out.String(), nil
}

func (system) mount(dataset, target, options string) error {
	if options != "" {
		_, err := run("mount", "-t", "zfs", "-o", options, dataset, target)
		return err
	}
	if err := unix.Mount(dataset, target, "zfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", dataset, target, err)
	}
	return nil
}

func (system) unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}
