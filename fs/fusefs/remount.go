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
