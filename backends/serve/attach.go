package serve

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// AttachOthers makes a loop device of a file in a FUSE mount that another user made,
// and returns its name. Root alone may, and losetup(8) cannot: without allow_other,
// which /etc/fuse.conf keeps from ordinary users, the kernel lets nobody but that user
// open the file or see its size, root neither. So the file is opened, and given to the
// device that root opened, as that user; what the device reads and writes after that it
// does as the kernel.
//
// A new size of the file does not reach such a device: losetup --set-capacity, as root,
// would find none.
func AttachOthers(target, file string, readOnly bool) (device string, err error) {
	uid, gid, err := mounter(target)
	if err == nil {
		device, err = attach(file, readOnly, func(f func() error) error { return as(uid, gid, f) })
	}
	if err != nil {
		return "", fmt.Errorf("loop device of %s: %w", file, err)
	}
	return device, nil
}

// mounter returns which user made a FUSE mount, as the kernel has it.
func mounter(target string) (uid, gid int, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	if err != nil {
		return 0, 0, err
	}
	if len(mounts) == 0 {
		return 0, 0, fmt.Errorf("nothing is mounted on %s in this mount namespace: %w", target, unix.ENOENT)
	}
	uid, gid = -1, -1
	for option := range strings.SplitSeq(mounts[len(mounts)-1].VFSOptions, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "user_id":
			uid, err = strconv.Atoi(value)
		case "group_id":
			gid, err = strconv.Atoi(value)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("%s is no FUSE mount: %w", target, unix.EINVAL)
	}
	return uid, gid, nil
}

// as calls f as another user: with all ids that the kernel compares, and no more rights
// than that user has.
func as(uid, gid int, f func() error) error {
	result := make(chan error)
	go func() {
		// The thread is never unlocked, so that it ends with the goroutine, and nothing
		// else runs with its ids. The raw calls change those of this thread alone.
		runtime.LockOSThread()
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				result <- fmt.Errorf("become uid %d: %w", uid, errno)
				return
			}
		}
		result <- f()
	}()
	return <-result
}

// attach gives a file to a free loop device, with direct I/O. What concerns the file
// is done by as.
func attach(file string, readOnly bool, as func(func() error) error) (device string, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for range 64 { // somebody else may take the device that is free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find a free loop device: %w", err)
		}
		device = fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		err = as(func() error { return configure(loop, file, readOnly) })
		loop.Close() // nothing was written to it
		if !errors.Is(err, unix.EBUSY) {
			return device, err
		}
	}
	return "", fmt.Errorf("find a free loop device: %w", unix.EBUSY)
}

func configure(loop *os.File, file string, readOnly bool) error {
	c := unix.LoopConfig{Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO}}
	flags := os.O_RDWR
	if readOnly {
		flags, c.Info.Flags = os.O_RDONLY, c.Info.Flags|unix.LO_FLAGS_READ_ONLY
	}
	f, err := os.OpenFile(file, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close() // the device has it
	c.Fd = uint32(f.Fd())
	copy(c.Info.File_name[:len(c.Info.File_name)-1], file)
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &c); err != nil {
		return fmt.Errorf("configure %s: %w", loop.Name(), err)
	}
	return nil
}
