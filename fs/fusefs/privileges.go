package fusefs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A request to set nothing comes from chown(-1, -1), which takes suid and sgid
// away, and from writes that cost a file its privileges. With write-back the
// former comes with a time for a regular file, which alone is written to through
// the server; otherwise the two look the same.

// keepsPriv tells which of them leave suid and sgid: root's, whose write has cost
// the file its capabilities only (__remove_privs). The root of a user namespace
// keeps neither, as with kernel overlayfs.
func (r *rawFS[N]) keepsPriv(in *fuse.SetAttrIn) bool {
	if in.Valid != 0 || r.writeOut == nil || !r.initialRoot {
		return false
	}
	who, ok := callerOf(&in.Caller)
	return ok && who.uid == 0
}

// checkEmptyChown tells whether a request to set nothing takes suid and sgid away.
// A chown(-1, -1) by somebody who is neither the owner nor root must not, and
// gets EPERM: the kernel's FUSE side leaves out the check that comes with the
// change of the mode (setattr_prepare), and everybody could disarm su. What may be
// a write, through a descriptor from somebody else, is let through and takes
// nothing yet: the write itself says what it takes.
func (r *rawFS[N]) checkEmptyChown(n N, in *fuse.SetAttrIn) (kill bool, err error) {
	a, err := r.fs.GetAttr(n)
	if err != nil || a.IsDir() || a.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return false, err
	}
	isChown := in.Valid&fattrCtime != 0 || a.Mode&unix.S_IFMT != unix.S_IFREG
	if !isChown && r.keepsPriv(in) {
		return false, nil
	}
	if !isChown && (r.writeOut != nil || a.Mode&0o022 != 0) {
		return true, nil
	}
	who, ok := callerOf(&in.Caller)
	if !ok || who.uid == 0 || who.uid == r.owners.user.shown(a.UID) {
		return true, nil
	}
	if isChown {
		return false, unix.EPERM
	}
	return false, nil
}

// A caller is who makes a request.
type caller struct{ uid, gid uint32 }

// callerOf returns whose request it is, by the process where the kernel hides the
// user. It is false for a process that this one cannot see.
func callerOf(c *fuse.Caller) (caller, bool) {
	if c.Uid != unknownID {
		return caller{c.Uid, c.Gid}, true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid))
	if err != nil {
		return caller{}, false
	}
	var who caller
	found := 0
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		var real, effective, saved, fs uint32
		if n, _ := fmt.Sscanf(s.Text(), "Uid: %d %d %d %d", &real, &effective, &saved, &fs); n == 4 {
			who.uid = fs
			found++
		}
		if n, _ := fmt.Sscanf(s.Text(), "Gid: %d %d %d %d", &real, &effective, &saved, &fs); n == 4 {
			who.gid = fs
			found++
		}
	}
	return who, found == 2
}
