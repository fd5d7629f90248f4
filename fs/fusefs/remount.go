package fusefs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// setReadOnly switches the mounted filesystem on target between read-only and
// writable. The kernel then refuses or admits changes by itself, and answers
// EBUSY while files are open for writing.
func setReadOnly(target string, readOnly bool) error {
	err := reconfigure(target, readOnly)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("remount %s: %w; only root, or the root of the user namespace that mounted it, may do that", target, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("remount %s: %w; see who has files open for writing with: fuser -vm %s", target, err, shellQuote(target))
	}
	return fmt.Errorf("remount %s: %w", target, err)
}

func reconfigure(target string, readOnly bool) error {
	fsfd, err := unix.Fspick(unix.AT_FDCWD, target, unix.FSPICK_CLOEXEC|unix.FSPICK_NO_AUTOMOUNT|unix.FSPICK_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fsfd)
	flag := "rw"
	if readOnly {
		flag = "ro"
	}
	if err := unix.FsconfigSetFlag(fsfd, flag); err != nil {
		return err
	}
	if err := unix.FsconfigReconfigure(fsfd); err != nil {
		return err
	}
	// The mount has a flag of its own beside that of the superblock.
	attr := unix.MountAttr{}
	if readOnly {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	} else {
		attr.Attr_clr = unix.MOUNT_ATTR_RDONLY
	}
	return unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &attr)
}

// Reflag has the kernel treat the mount as flags say from now on: whether it is
// read-only, whether programs, set-user-ID bits and devices count, and what it tells of
// access times. Other flags stay as they were mounted, and nothing is done to what is
// not in its place any more.
//
// EPERM tells that only root, or the root of the user namespace that mounted it, may do
// that. Where the filesystem itself refuses changes it is no error if the kernel does
// not, since files are open for writing or this user may not say so; nor are set-user-ID
// bits and devices that count for no ordinary user.
func (m *RawMount) Reflag(flags MountFlags) error {
	m.unmount.Lock()
	defer m.unmount.Unlock()
	old, target := m.dev.flags, m.info.Target
	const changeable = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR__ATIME
	was, is := old.attributes()&changeable, flags.attributes()&changeable
	if there, err := IsMounted(m.dev.devName(), target); was == is || err == nil && !there {
		return nil
	}
	var failed error
	if flags.ReadOnly != old.ReadOnly {
		failed = reconfigure(target, flags.ReadOnly)
		if flags.ReadOnly && (errors.Is(failed, unix.EBUSY) || errors.Is(failed, unix.EPERM)) {
			failed = nil
			flags.ReadOnly, is = false, is&^unix.MOUNT_ATTR_RDONLY
		}
	}
	if failed == nil {
		attr := unix.MountAttr{Attr_clr: changeable, Attr_set: uint64(is)}
		failed = unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &attr)
		if errors.Is(failed, unix.EPERM) && flags.NoExec == old.NoExec && flags.ReadOnly == old.ReadOnly {
			return nil
		}
	}
	if failed != nil {
		return fmt.Errorf("change the mount on %s: %w; what the kernel has to do is done when it is mounted the next time", target, failed)
	}
	m.dev.flags.ReadOnly, m.dev.flags.NoSuid, m.dev.flags.NoDev, m.dev.flags.NoExec = flags.ReadOnly, flags.NoSuid, flags.NoDev, flags.NoExec
	m.dev.flags.NoAtime, m.dev.flags.StrictAtime = flags.NoAtime, flags.StrictAtime
	return nil
}
