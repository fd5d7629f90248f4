package fusefs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// A request to set nothing comes from chown(-1, -1), which takes suid and sgid
// away, and from writes that cost a file its privileges. With write-back the
// former comes with a time; otherwise the two look the same.

// keepsPriv tells which of them leave suid and sgid: root's, whose write has cost
// the file its capabilities only (__remove_privs). The root of a user namespace
// keeps neither, as with kernel overlayfs.
func (r *rawFS) keepsPriv(in *fuse.SetAttrIn) bool {
	if in.Valid != 0 || r.writeOut == nil || !r.initialRoot {
		return false
	}
	who, ok := callerOf(&in.Caller)
	return ok && who.uid == 0
}

// checkEmptyChown returns EPERM for a chown(-1, -1) of a file with privileges by
// somebody who is neither its owner nor root. The kernel's FUSE side leaves out
// the check that comes with the change of the mode (setattr_prepare); without it
// everybody could disarm su. What may be a write is let through.
func (r *rawFS) checkEmptyChown(n *union.Node, in *fuse.SetAttrIn) error {
	a, err := r.union.GetAttr(n)
	if err != nil || a.IsDir() || a.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 || in.Valid&fattrCtime == 0 && (r.writeOut != nil || a.Mode&0o022 != 0) {
		return err
	}
	who, ok := callerOf(&in.Caller)
	if !ok || who.uid == 0 || who.uid == r.owners.user.shown(a.UID) {
		return nil
	}
	return unix.EPERM
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
