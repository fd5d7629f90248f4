package serve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DeadLoops returns the loop devices over volumes whose server was killed while
// target was where it showed them. All I/O on such a device fails. Where its mount
// is gone too, the kernel knows the name of the file below that only, so whether
// it is one of these volumes is told by its name and size; nothing but a dead
// filesystem over FUSE answers as the file of such a device does. Looking needs
// root, who alone has loop devices; others find none.
func DeadLoops(volumes Volumes, target string) (dead []Loop) {
	if os.Geteuid() != 0 {
		return nil
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // fails for a bad pattern only
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it was detached meanwhile
		}
		dir := filepath.Dir(filepath.Dir(f)) // /sys/block/loop3
		file := strings.TrimSuffix(string(text), "\n")
		name := strings.TrimPrefix(strings.TrimPrefix(file, strings.TrimSuffix(target, "/")), "/")
		info, err := volumes.Stat(name)
		if err != nil || info.Size/512 != sectorsOf(dir) {
			continue
		}
		l := Loop{Device: "/dev/" + filepath.Base(dir), File: name, Mounts: mountsOf(dir)}
		if l.Dead() {
			dead = append(dead, l)
		}
	}
	return dead
}

// sectorsOf returns the size of a block device in sectors of 512 bytes, and -1 if it
// is not known.
func sectorsOf(sysDir string) int64 {
	text, err := os.ReadFile(filepath.Join(sysDir, "size"))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Dead reports whether the device is still there, over a file that nobody serves: to
// tell of the device the kernel looks at the file.
func (l Loop) Dead() bool {
	err := l.control(func(fd int) error { _, err := unix.IoctlLoopGetStatus64(fd); return err })
	return errors.Is(err, unix.ENOTCONN)
}

// InUse reports whether the device is mounted, or part of another one.
func (l Loop) InUse() bool {
	holders, _ := filepath.Glob(filepath.Join("/sys/block", filepath.Base(l.Device), "holders/*")) // fails for a bad pattern only
	return len(l.Mounts)+len(holders) > 0
}

// Detach takes the device away from its file, as losetup -d does: at once, or when
// the last who has it open closes it.
func (l Loop) Detach() error {
	err := l.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0) })
	if err != nil {
		return fmt.Errorf("detach %s: %w", l.Device, err)
	}
	return nil
}

func (l Loop) control(f func(fd int) error) error {
	d, err := os.OpenFile(l.Device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}
