package layer

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Who looks into a million files makes a few system calls for each: here are those
// on a name of a directory, without an allocation and, for xattrs, without the way
// over /proc/self/fd, which costs more than the call itself.

// A cname is a name as system calls take it. Names were checked to fit.
type cname [NameMax + 1]byte

func statxAt(fd int, name string, flags int, sx *unix.Statx_t) error {
	var c cname
	copy(c[:NameMax], name)
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&c)), uintptr(flags), statxMask, uintptr(unsafe.Pointer(sx)), 0)
	return callError(e)
}

// callError turns no error into nil, and does not allocate for the usual ones.
func callError(e unix.Errno) error {
	switch e {
	case 0:
		return nil
	case unix.ENOENT:
		return unix.ENOENT
	case unix.ENODATA:
		return unix.ENODATA
	}
	return e
}

// xattrsAt tells whether the kernel has getxattrat(2) and listxattrat(2), which came
// with Linux 6.13. A filter for system calls may answer anything for one that it does
// not know, so what counts is that it works.
var xattrsAt = sync.OnceValue(func() bool {
	if pointerSize != 8 {
		return false // where the pointer lies in xattrArgs depends on the machine
	}
	_, err := listxattrAt(unix.AT_FDCWD, "/", nil)
	return err == nil || err == unix.EOPNOTSUPP
})

func listxattrAt(fd int, name string, dest []byte) (int, error) {
	var c cname
	copy(c[:NameMax], name)
	n, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(&c)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(unsafe.SliceData(dest))), uintptr(len(dest)), 0)
	return int(n), callError(e)
}

// xattrArgs is struct xattr_args of linux/xattr.h. The value is a pointer and not a
// number, so that it follows a buffer on a stack that moves.
type xattrArgs struct {
	value unsafe.Pointer
	_     [8 - pointerSize]byte
	size  uint32
	flags uint32
}

const pointerSize = unsafe.Sizeof(uintptr(0))

func getxattrAt(fd int, name, attr string, dest []byte) (int, error) {
	var c, a cname
	if len(attr) > NameMax { // XATTR_NAME_MAX is the same
		return 0, unix.ERANGE
	}
	copy(c[:NameMax], name)
	copy(a[:NameMax], attr)
	args := xattrArgs{value: unsafe.Pointer(unsafe.SliceData(dest)), size: uint32(len(dest))}
	n, _, e := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(&c)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	return int(n), callError(e)
}
