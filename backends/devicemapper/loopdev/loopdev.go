// Package loopdev makes block devices of files by the kernel's loop devices. A
// device goes away by itself with the last one who has it open (LO_FLAGS_AUTOCLEAR),
// so nothing is left of a process that was killed.
package loopdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Loop is a device that this process holds.
type Loop struct {
	f    *os.File
	rdev uint64
}

// Options say how a device is made.
type Options struct {
	ReadOnly bool
	// Direct passes by the page cache of the file's filesystem, where that can do
	// it (O_DIRECT).
	Direct bool
}

// Attach makes a device of a file. It is the caller's until [Loop.Close], and then
// stays for as long as others have it open.
func Attach(file string, o Options) (*Loop, error) {
	l, err := attach(file, o)
	if err != nil {
		return nil, fmt.Errorf("loop device over %s: %w", file, err)
	}
	return l, nil
}

func attach(file string, o Options) (*Loop, error) {
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	back, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:unix.LO_NAME_SIZE-1], file)
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.Direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		f, err := openNode(n)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil {
				f.Close()
				return nil, err
			}
			return &Loop{f, st.Rdev}, nil
		}
		f.Close()
		if err != unix.EBUSY { // somebody was faster
			return nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
}

// openNode opens a device that the kernel has just made, whose node devtmpfs or udev
// may still be about to make.
func openNode(n int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil || !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
			return f, err
		}
	}
}

// Path returns the node of the device.
func (l *Loop) Path() string { return l.f.Name() }

// Number is the device as tables of device-mapper name it.
func (l *Loop) Number() string {
	return fmt.Sprintf("%d:%d", unix.Major(l.rdev), unix.Minor(l.rdev))
}

// Close lets go of the device.
func (l *Loop) Close() error { return l.f.Close() }

// Over returns the nodes of the devices over a file, those of files that are gone
// left out.
func Over(file string) ([]string, error) {
	var want unix.Stat_t
	if err := unix.Stat(file, &want); err != nil {
		return nil, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // fails for a bad pattern only
	var found []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it was detached meanwhile
		}
		var st unix.Stat_t
		if unix.Stat(strings.TrimSuffix(string(text), "\n"), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return found, nil
}

// WaitFree returns when no device is over a file any more.
func WaitFree(file string, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		over, err := Over(file)
		switch {
		case err != nil || len(over) == 0:
			return err
		case time.Now().After(end):
			return fmt.Errorf("%s is over %s: %w; see who uses it with: lsblk %s", over[0], file, unix.EBUSY, over[0])
		}
	}
}

// Join opens a device that is over a file already. ENXIO tells that it no longer is.
func Join(node, file string) (*Loop, error) {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l := &Loop{f: f}
	if l.rdev, err = l.over(file); err != nil {
		f.Close()
		return nil, fmt.Errorf("loop device %s over %s: %w", node, file, err)
	}
	return l, nil
}

// over checks that an open device is over a file, and returns its number.
func (l *Loop) over(file string) (rdev uint64, err error) {
	var want, dev unix.Stat_t
	if err := unix.Stat(file, &want); err != nil {
		return 0, err
	}
	if err := unix.Fstat(int(l.f.Fd()), &dev); err != nil {
		return 0, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(l.f.Fd()))
	if err != nil {
		return 0, err
	}
	if info.Inode != want.Ino || info.Device != want.Dev {
		return 0, unix.ENXIO
	}
	return dev.Rdev, nil
}
