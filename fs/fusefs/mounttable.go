package fusefs

import (
	"fmt"

	"github.com/moby/sys/mountinfo"
)

// IsMounted reports whether the filesystem with that device number ([Info].Dev) is
// mounted on path in this mount namespace, visibly or below another mount.
func IsMounted(dev, path string) (bool, error) {
	mounts, err := mountsOn(path)
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if devName(m) == dev {
			return true, nil
		}
	}
	return false, nil
}

// MountTable is [IsMounted] for many mounts, as they are at the time of the call.
func MountTable() (isMounted func(dev, path string) bool, err error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	type mount struct{ dev, path string }
	there := make(map[mount]bool, len(mounts))
	for _, m := range mounts {
		there[mount{devName(m), m.Mountpoint}] = true
	}
	return func(dev, path string) bool { return there[mount{dev, path}] }, nil
}

// mountsOn returns what is mounted on exactly that path in this mount
// namespace, the topmost last. It asks the kernel's table only: a server that
// hangs does not hold it up.
func mountsOn(path string) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return mounts, nil
}

func devName(m *mountinfo.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }
