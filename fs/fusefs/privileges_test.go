package fusefs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// A package manager that rewrites a setuid program with file capabilities finds
// it setuid afterwards; anybody else's write, and chown(-1, -1), makes it plain.
func TestRootKeepsSetuidOfFilesWithCapabilities(t *testing.T) {
	for _, c := range []struct {
		name      string
		valid     uint32
		uid       uint32
		writeBack bool
		keeps     bool
	}{
		{"root's write", 0, 0, true, true},
		{"a user's write", 0, 1000, true, false},
		{"root's chown(-1, -1)", fattrCtime, 0, true, false},
		{"without write-back the two look the same", 0, 0, false, false},
		{"a change of the mode", fuse.FATTR_MODE, 0, true, false},
	} {
		r := &rawFS[*union.Node]{initialRoot: true}
		if c.writeBack {
			r.writeOut = func(uint64) {}
		}
		in := &fuse.SetAttrIn{}
		in.Valid, in.Caller.Uid = c.valid, c.uid
		if got := r.keepsPriv(in); got != c.keeps {
			t.Errorf("%s: keeps setuid: %v, want %v", c.name, got, c.keeps)
		}
	}
}

// A file that a group may use with the group's rights loses them when someone
// else writes to it, in whatever way (xfstests generic/683 to 685).
func TestStrangersWritesClearSgid(t *testing.T) {
	for _, c := range []struct {
		who        string
		uid, gid   uint32
		mode, want uint32
	}{
		{"a stranger", 1000, 1000, 0o2666, 0o666},
		{"a stranger", 1000, 1000, 0o6766, 0o766},
		{"a stranger", 1000, 1000, 0o2676, 0o676},
		{"a member", 1000, 5, 0o2666, 0o2666},
		{"root", 0, 0, 0o6676, 0o6676},
		{"whom the kernel hides", unknownID, unknownID, 0o6676, 0o6676},
	} {
		for what, write := range map[string]func(r *rawFS[*union.Node], n *union.Node) fuse.Status{
			"fallocate": func(r *rawFS[*union.Node], n *union.Node) fuse.Status {
				in := fuse.FallocateIn{Length: 1, Mode: unix.FALLOC_FL_KEEP_SIZE}
				in.NodeId, in.Uid, in.Gid = n.ID(), c.uid, c.gid
				return r.Fallocate(nil, &in)
			},
			"copy_file_range": func(r *rawFS[*union.Node], n *union.Node) fuse.Status {
				in := fuse.CopyFileRangeIn{NodeIdOut: n.ID(), Len: 1, OffOut: 8}
				in.NodeId, in.Uid, in.Gid = n.ID(), c.uid, c.gid
				_, st := r.CopyFileRange(nil, &in)
				return st
			},
		} {
			r, n := rawFile(t)
			gid := uint32(5)
			if _, err := r.fs.SetAttr(n, union.Change{GID: &gid}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.fs.SetAttr(n, union.Change{Mode: &c.mode}); err != nil {
				t.Fatal(err)
			}
			if st := write(r, n); st != fuse.OK {
				t.Fatalf("%s: %v", what, st)
			}
			if a, err := r.fs.GetAttr(n); err != nil || a.Mode&0o7777 != c.want {
				t.Errorf("%s by %s leaves %#o of %#o, want %#o (%v)", what, c.who, a.Mode&0o7777, c.mode, c.want, err)
			}
		}
	}
}

// Nobody but its owner and root can disarm a setuid program by a chown to the
// owner that it has.
func TestStrangersChownClearsNothing(t *testing.T) {
	for _, c := range []struct {
		who       string
		uid       uint32
		valid     uint32
		writeBack bool
		want      fuse.Status
		mode      uint32
	}{
		{"a stranger", 1000, fattrCtime, true, fuse.EPERM, 0o4755},
		{"a stranger, without write-back", 1000, 0, false, fuse.OK, 0o4755},
		{"a stranger's write", 1000, 0, true, fuse.OK, 0o755},
		{"the owner", 7, fattrCtime, true, fuse.OK, 0o755},
		{"root", 0, fattrCtime, true, fuse.OK, 0o755},
	} {
		r, n := rawFile(t)
		if c.writeBack {
			r.writeOut = func(uint64) {}
		}
		owner, mode := uint32(7), uint32(0o4755)
		if _, err := r.fs.SetAttr(n, union.Change{UID: &owner}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.fs.SetAttr(n, union.Change{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		in := fuse.SetAttrIn{}
		in.NodeId, in.Valid, in.Caller.Uid = n.ID(), c.valid, c.uid
		var out fuse.AttrOut
		if st := r.SetAttr(nil, &in, &out); st != c.want {
			t.Errorf("%s: %v, want %v", c.who, st, c.want)
		}
		if a, err := r.fs.GetAttr(n); err != nil || a.Mode&0o7777 != c.mode {
			t.Errorf("%s leaves %#o, want %#o (%v)", c.who, a.Mode&0o7777, c.mode, err)
		}
	}
}

// Of what is no regular file the kernel keeps no times, so that a chown(-1, -1)
// looks as a write to a regular one does.
func TestEmptyChownOfSpecialFiles(t *testing.T) {
	for _, writeBack := range []bool{true, false} {
		r, _ := rawFile(t)
		r.initialRoot = true
		if writeBack {
			r.writeOut = func(uint64) {}
		}
		n, _, err := r.fs.Mknod(r.fs.Node(fuse.FUSE_ROOT_ID), "fifo", unix.S_IFIFO|0o755, 0, union.Caller{})
		if err != nil {
			t.Fatal(err)
		}
		mode := uint32(0o6775)
		if _, err := r.fs.SetAttr(n, union.Change{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		in, out := fuse.SetAttrIn{}, fuse.AttrOut{}
		in.NodeId = n.ID()
		if st := r.SetAttr(nil, &in, &out); st != fuse.OK || out.Mode&0o7777 != 0o775 {
			t.Errorf("write-back %v: %v, mode %#o, want 0775", writeBack, st, out.Mode&0o7777)
		}
	}
}
