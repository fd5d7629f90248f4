package devicemapper

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkDiscard is BLKDISCARD of a range in bytes.
func blkDiscard(f *os.File, off, n uint64) error {
	arg := [2]uint64{off, n}
	return ioctl(f, unix.BLKDISCARD, unsafe.Pointer(&arg))
}
