package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls, as include/uapi/linux/btrfs.h has them: direction, size of the argument,
// type 0x94 and number.
const (
	iocSubvolCreate = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE, btrfs_ioctl_vol_args
	iocSnapDestroy  = 0x5000940f // BTRFS_IOC_SNAP_DESTROY, btrfs_ioctl_vol_args
	iocSnapCreate   = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2, btrfs_ioctl_vol_args_v2
	iocGetFlags     = 0x80089419 // BTRFS_IOC_SUBVOL_GETFLAGS, u64
	iocSetFlags     = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS, u64
	iocQuotaCtl     = 0xc0109428 // BTRFS_IOC_QUOTA_CTL, btrfs_ioctl_quota_ctl_args
	iocQgroupCreate = 0x4010942a // BTRFS_IOC_QGROUP_CREATE, btrfs_ioctl_qgroup_create_args
	iocQgroupLimit  = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT, btrfs_ioctl_qgroup_limit_args
	iocInoLookup    = 0xd0009412 // BTRFS_IOC_INO_LOOKUP, btrfs_ioctl_ino_lookup_args

	subvolReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
	quotaEnable    = 1      // BTRFS_QUOTA_CTL_ENABLE
	limitReferred  = 1 << 0 // BTRFS_QGROUP_LIMIT_MAX_RFER

	volArgsSize   = 4096 // of btrfs_ioctl_vol_args and its second version
	volArgsName   = 8    // where the name begins in the first
	volArgsV2Name = 56   // and in the second

	rootInode = 256 // BTRFS_FIRST_FREE_OBJECTID: of the root directory of each subvolume
)

// ioctl calls one on a directory.
func ioctl(dir string, request uintptr, arg []byte) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&arg[0])))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// byName calls an ioctl that takes a name in a directory.
func byName(request uintptr, path string, arg []byte, at int) error {
	dir, name := filepath.Split(path)
	if at+len(name) >= len(arg) {
		return fmt.Errorf("%s: %w", path, unix.ENAMETOOLONG)
	}
	copy(arg[at:], name)
	return ioctl(dir, request, arg)
}

// createSubvolume makes an empty subvolume, whose root is owned by this user.
func createSubvolume(path string) error {
	if err := byName(iocSubvolCreate, path, make([]byte, volArgsSize), volArgsName); err != nil {
		return fmt.Errorf("create subvolume %s: %w", path, err)
	}
	return nil
}

// snapshotSubvolume makes a writable snapshot.
func snapshotSubvolume(from, path string) error {
	fd, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	defer unix.Close(fd)
	arg := make([]byte, volArgsSize)
	binary.NativeEndian.PutUint64(arg, uint64(fd))
	if err := byName(iocSnapCreate, path, arg, volArgsV2Name); err != nil {
		return fmt.Errorf("snapshot subvolume %s to %s: %w", from, path, err)
	}
	return nil
}

// readOnly reports whether a subvolume cannot be changed.
func readOnly(path string) (bool, error) {
	arg := make([]byte, 8)
	if err := ioctl(path, iocGetFlags, arg); err != nil {
		return false, fmt.Errorf("flags of subvolume %s: %w", path, err)
	}
	return binary.NativeEndian.Uint64(arg)&subvolReadOnly != 0, nil
}

// setReadOnly makes a subvolume one that cannot be changed, or that can be again.
func setReadOnly(path string, on bool) error {
	is, err := readOnly(path)
	if err != nil || is == on {
		return err
	}
	arg := make([]byte, 8)
	if on {
		binary.NativeEndian.PutUint64(arg, subvolReadOnly)
	}
	if err := ioctl(path, iocSetFlags, arg); err != nil {
		return fmt.Errorf("flags of subvolume %s: %w", path, err)
	}
	return nil
}

// limitSubvolume bounds what a subvolume may refer to. Quotas are switched on for the
// filesystem when they are not, as btrfs quota enable does.
func limitSubvolume(path string, size int64) error {
	enable := make([]byte, 16)
	binary.NativeEndian.PutUint64(enable, quotaEnable)
	if err := ioctl(path, iocQuotaCtl, enable); err != nil && err != unix.EEXIST {
		return fmt.Errorf("enable quotas for %s: %w", path, err)
	}
	limit := make([]byte, 48) // the group 0 is that of the subvolume
	binary.NativeEndian.PutUint64(limit[8:], limitReferred)
	binary.NativeEndian.PutUint64(limit[16:], uint64(size))
	if err := ioctl(path, iocQgroupLimit, limit); err != nil {
		return fmt.Errorf("limit subvolume %s: %w", path, err)
	}
	return nil
}

// isSubvolume reports whether a path on btrfs is the root of a subvolume.
func isSubvolume(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == rootInode
}

// subvolumeID returns the number of a subvolume, which its quota group has too.
func subvolumeID(path string) (uint64, error) {
	arg := make([]byte, volArgsSize) // the tree 0 is that of the directory
	binary.NativeEndian.PutUint64(arg[8:], rootInode)
	if err := ioctl(path, iocInoLookup, arg); err != nil {
		return 0, fmt.Errorf("number of subvolume %s: %w", path, err)
	}
	return binary.NativeEndian.Uint64(arg), nil
}

// destroySubvolume deletes a subvolume and those that are nested in it, each with its
// quota group.
func destroySubvolume(path string) error {
	id, unknown := subvolumeID(path)
	if err := destroyTree(path); err != nil {
		return err
	}
	if unknown != nil {
		return nil
	}
	group := make([]byte, 16) // to be removed, not created
	binary.NativeEndian.PutUint64(group[8:], id)
	// It bounds nothing any more, so what is left of it only takes a line in a list:
	// without quotas there is none (ENOTCONN, ENOENT), not everybody may (EPERM), and
	// from 6.10 on the kernel refuses (EBUSY) and removes it with the last block of the
	// subvolume (btrfs_qgroup_cleanup_dropped_subvolume).
	_ = ioctl(filepath.Dir(path), iocQgroupCreate, group)
	return nil
}

// destroyTree deletes a subvolume. Who may not have the kernel do it (only root may,
// unless the filesystem is mounted with user_subvol_rm_allowed) empties it, and removes
// it then as a directory, which Linux allows from 4.18 on.
func destroyTree(path string) error {
	err := byName(iocSnapDestroy, path, make([]byte, volArgsSize), volArgsName)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTEMPTY):
		if err := destroyNested(path); err != nil {
			return err
		}
		err = byName(iocSnapDestroy, path, make([]byte, volArgsSize), volArgsName)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		if err = setReadOnly(path, false); err == nil {
			err = os.RemoveAll(path)
		}
	}
	if err != nil {
		return fmt.Errorf("destroy subvolume %s: %w", path, err)
	}
	return nil
}

// destroyNested deletes the subvolumes in a subvolume.
func destroyNested(path string) error {
	if err := setReadOnly(path, false); err != nil {
		return err
	}
	return filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err != nil || p == path || !e.IsDir() || !isSubvolume(p) {
			return err
		}
		if err := destroySubvolume(p); err != nil {
			return err
		}
		return filepath.SkipDir
	})
}
