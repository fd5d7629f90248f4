//go:build integration

package kernel

import (
	"syscall"
	"unsafe"
)

// setIDs sets the effective id of this thread alone; the real and the saved one
// stay root's, which is the way back. (The functions of package syscall change
// all threads.)
func setIDs(call uintptr, id int) error {
	const keep = ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(call, keep, uintptr(id), keep); errno != 0 {
		return errno
	}
	return nil
}

func setGroups(groups []uint32) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 {
		return errno
	}
	return nil
}
