package fusefs

import (
	"bytes"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// A container whose root is the host's user 100000 must see the image's files
// as its own, and what it makes must be stored as the image's users.
func TestMappedOwners(t *testing.T) {
	o, err := mountopt.Parse("lowerdir=l,uidmapping=0:100000:1000:2000:5:1,gidmapping=0:200000:10")
	if err != nil {
		t.Fatal(err)
	}
	w := newOwners(OwnersOf(&o))
	w.user.self, w.group.self = 77, 88
	for _, c := range []struct{ stored, shown uint32 }{{0, 100000}, {999, 100999}, {1000, overflowID}, {2000, 5}, {1<<32 - 2, overflowID}} {
		if got := w.user.shown(c.stored); got != c.shown {
			t.Errorf("user %d is shown as %d, want %d", c.stored, got, c.shown)
		}
		if got, ok := w.user.stored(c.shown); c.shown != overflowID && (!ok || got != c.stored) {
			t.Errorf("user %d is stored as %d, %v; want %d", c.shown, got, ok, c.stored)
		}
	}
	for _, id := range []uint32{0, 99999, 101000, 6, overflowID, 1<<32 - 1} {
		if got, ok := w.user.stored(id); ok {
			t.Errorf("user %d, outside of the mapping, is stored as %d", id, got)
		}
	}
	h := &fuse.InHeader{}
	h.Uid, h.Gid = 100007, 200003
	if c, err := w.creator(h, 0o22); err != nil || c.UID != 7 || c.GID != 3 || c.Umask != 0o22 {
		t.Errorf("creator %v, %v; want 7:3", c, err)
	}
	h.Uid, h.Gid = 77, 88
	if c, err := w.creator(h, 0); err != nil || c.UID != 77 || c.GID != 88 {
		t.Errorf("the server's own user makes files of %v, %v; want 77:88", c, err)
	}
	h.Gid = 3
	if _, err := w.creator(h, 0); err != unix.EOVERFLOW {
		t.Errorf("a group that cannot be stored: %v, want EOVERFLOW", err)
	}
	if _, err := w.user.change(1); err != unix.EOVERFLOW {
		t.Errorf("chown to an owner that cannot be stored: %v, want EOVERFLOW", err)
	}
}

func TestSquashedOwners(t *testing.T) {
	for _, c := range []struct {
		options  string
		uid, gid uint32
	}{
		{"lowerdir=l", 7, 8},
		{"lowerdir=l,squash_to_root", 0, 0},
		{"lowerdir=l,squash_to_uid=12", 12, 8},
		{"lowerdir=l,squash_to_gid=0", 7, 0},
		{"lowerdir=l,squash_to_root,squash_to_gid=34", 0, 34},
		{"lowerdir=l,squash_to_uid=12,uidmapping=0:1000:50,gidmapping=0:1000:50", 12, 1008},
	} {
		o, err := mountopt.Parse(c.options)
		if err != nil {
			t.Fatal(err)
		}
		w := newOwners(OwnersOf(&o))
		if uid, gid := w.user.shown(7), w.group.shown(8); uid != c.uid || gid != c.gid {
			t.Errorf("%s: 7:8 is shown as %d:%d, want %d:%d", c.options, uid, gid, c.uid, c.gid)
		}
	}
	twelve := uint32(12)
	squash := idTable{all: &twelve}
	if id, err := squash.change(12); id != nil || err != nil {
		t.Errorf("giving a file to the owner that it is shown with: %v, %v; want no change", id, err)
	}
	if id, err := squash.change(3); err != nil || id == nil || *id != 3 {
		t.Errorf("giving a squashed file away: %v, %v; want it stored", id, err)
	}
}

// What an ACL says of a stored user it must say of the shown one.
func TestMappedACL(t *testing.T) {
	o, err := mountopt.Parse("lowerdir=l,uidmapping=0:100000:1000,gidmapping=0:200000:1000")
	if err != nil {
		t.Fatal(err)
	}
	w := newOwners(OwnersOf(&o))
	acl := func(user, group byte, userBase, groupBase byte) []byte {
		return []byte{2, 0, 0, 0,
			1, 0, 7, 0, 255, 255, 255, 255, // the owner
			2, 0, 6, 0, user, userBase, userBase >> 7, 0, // a named user
			8, 0, 5, 0, group, groupBase, groupBase >> 6, 0, // a named group
			32, 0, 0, 0, 255, 255, 255, 255} // others
	}
	stored := acl(9, 4, 0, 0)
	shown := append([]byte(nil), stored...)
	w.showACL(shown)
	back, err := w.storeACL(shown)
	if err != nil || !bytes.Equal(back, stored) {
		t.Errorf("stored %x, shown as %x, stored again as %x, %v", stored, shown, back, err)
	}
	if bytes.Equal(shown, stored) || !bytes.Equal(shown[4:12], stored[4:12]) {
		t.Errorf("shown as %x: named users and groups must change, the owner's entry must not", shown)
	}
	if _, err := w.storeACL(stored); err != unix.EINVAL {
		t.Errorf("an ACL that names users outside of the mapping: %v, want EINVAL", err)
	}
	// What is cut off is left to the kernel to refuse.
	w.showACL(stored[:17])
	w.showACL(nil)
}
