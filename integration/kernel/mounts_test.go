//go:build integration

package kernel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A stack is the layers of one mount.
type stack struct {
	lowers      []string // the top first
	upper, work string
}

func (s stack) options() string {
	return fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(s.lowers, ":"), s.upper, s.work)
}

// makeUpper makes an empty upper and work directory.
func (s stack) makeUpper() error {
	for _, d := range []string{s.upper, s.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
		if err := setTime(d, past); err != nil {
			return err
		}
	}
	return nil
}

// An engine mounts stacks on its directory.
type engine interface {
	mount(s stack) error
	unmount() error
	dir() string
}

// kernelMount is kernel overlayfs.
type kernelMount struct {
	target  string
	options string
	mounted bool
}

var _ engine = (*kernelMount)(nil)

func (k *kernelMount) dir() string { return k.target }

func (k *kernelMount) mount(s stack) error {
	// What a volatile mount leaves to say that it may have lost data.
	os.RemoveAll(filepath.Join(s.work, "work", "incompat"))
	data := s.options() + k.options
	if rootless {
		data += ",userxattr"
	}
	for range 5 {
		if err := unix.Mount("overlay", k.target, "overlay", 0, data); err != nil {
			return fmt.Errorf("mount -t overlay -o %s: %w", data, err)
		}
		k.mounted = true
		var st unix.Statfs_t
		if err := unix.Statfs(k.target, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
			return err
		}
		// It could not clear its work directory, and goes on read-only.
		if err := k.unmount(); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("mount -t overlay -o %s: read-only each time: what is in %s/work?", data, s.work)
}

func (k *kernelMount) unmount() error {
	if !k.mounted {
		return nil
	}
	k.mounted = false
	return unmount(k.target)
}

// laminaMount is lamina's FUSE server.
type laminaMount struct {
	target  string
	options string
	state   string // LAMINA_RUNTIME_DIR
	pid     int
}

var _ engine = (*laminaMount)(nil)

func (l *laminaMount) dir() string { return l.target }

func (l *laminaMount) command(args ...string) ([]byte, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LAMINA_RUNTIME_DIR="+l.state)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lamina %s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return out, nil
}

func (l *laminaMount) mount(s stack) error {
	os.RemoveAll(filepath.Join(s.work, "work", "incompat"))
	options := s.options() + ",allow_other,default_permissions,suid,dev" + l.options
	if rootless {
		options += ",userxattr"
	}
	out, err := l.command("mount", "--engine", "fuse", "--json", "-o", options, l.target)
	if err != nil {
		return err
	}
	var info struct{ PID int }
	if err := json.Unmarshal(out, &info); err != nil || info.PID <= 0 {
		return fmt.Errorf("lamina mount --json printed %s: %w", out, err)
	}
	l.pid = info.PID
	return nil
}

// unmount returns when the server has ended, and with it its work on the upper.
func (l *laminaMount) unmount() error {
	if l.pid == 0 {
		return nil
	}
	pid := l.pid
	l.pid = 0
	if err := unmount(l.target); err != nil {
		return err
	}
	return waitEnd(pid)
}

// kill ends the server as a crash does and takes the dead mount away.
func (l *laminaMount) kill() error {
	pid := l.pid
	l.pid = 0
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	return errors.Join(unix.Unmount(l.target, unix.MNT_DETACH), waitEnd(pid))
}

func unmount(target string) (err error) {
	for range 100 {
		if err = unix.Unmount(target, 0); err != unix.EBUSY {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	unix.Unmount(target, unix.MNT_DETACH)
	return fmt.Errorf("unmount %s: %w", target, err)
}

// waitEnd waits until a process, of whomever's child, has ended.
func waitEnd(pid int) error {
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, _ := bytes.Cut(stat, []byte(") ")); err != nil || bytes.HasPrefix(state, []byte("Z")) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("server %d still runs 2 s after its mount has gone", pid)
}
