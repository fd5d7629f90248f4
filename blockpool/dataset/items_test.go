package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// TestSipHash is the example of the paper, and the first vectors of its reference
// implementation: names of datasets of other versions must be found.
func TestSipHash(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	b := make([]byte, 15)
	for i := range b {
		b[i] = byte(i)
	}
	for n, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5} {
		if got := sipHash(k0, k1, string(b[:n])); got != want {
			t.Errorf("hash of %d bytes is %x, want %x", n, got, want)
		}
	}
}

// TestGoldenItems keeps the layout: a dataset outlives versions.
func TestGoldenItems(t *testing.T) {
	in := inode{
		mode: unix.S_IFREG | 0o644, uid: 1000, gid: 100, nlink: 2, flags: flagNodump, gen: 7, size: 5000, mapped: 2, parent: 1, pos: 256,
		atime: Time{-1, 5}, mtime: Time{1 << 33, 0}, ctime: Time{0, 1}, btime: Time{1, 1}, xattrs: 3,
		extra: []byte{200, 1, 'x'},
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"inode", in.pack(), "010103a483020202e807030164040102050288270701400802010509068080808040000a020001" + "0b0202010c01070d01010e0280020f0102110103c80178"},
		{"entry", (&entry{typ: unix.S_IFDIR, object: 300, name: "d"}).pack(), "04ac0264"},
		{"subvolume", (&entry{subvol: true, object: 9, name: "s"}).pack(), "800973"},
		{"attribute", (&xattr{name: "user.a", value: []byte("v")}).pack(), "0006757365722e6176"},
		{"large attribute", (&xattr{name: "user.a", object: 300}).pack(), "0106757365722e61ac02"},
		{"superblock", (&superblock{seed: [16]byte{1, 15: 2}, bits: 54}).pack(), "01" + "011001000000000000000000000000000002" + "020136"},
		{"key of a name", entryKey(2, 3), "8100000000000000020000000000000003"},
		{"key of a link", linkKey(1, 2, 3), "85000000000000000100000000000000020000000000000003"},
	} {
		if got := fmt.Sprintf("%x", c.got); got != c.want {
			t.Errorf("%s is packed as\n%s, want\n%s", c.name, got, c.want)
		}
	}
}

// TestUnknownFieldsOfInodesAreKept lets an older version change a file of a newer
// one.
func TestUnknownFieldsOfInodesAreKept(t *testing.T) {
	in := inode{mode: unix.S_IFREG, nlink: 1, extra: []byte{99, 2, 'h', 'i', 100, 0}}
	out, err := unpackInode(in.pack())
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Fatalf("%+v comes back as %+v, %v", in, out, err)
	}
}

func TestTargetThatIsInlineFitsTheItem(t *testing.T) {
	const most = 1<<64 - 1
	in := inode{
		mode: unix.S_IFLNK | 0o7777, uid: 1<<32 - 1, gid: 1<<32 - 1, nlink: 1<<32 - 1, flags: 1<<32 - 1, gen: 1<<32 - 1, rdev: 1<<32 - 1,
		xattrs: 1<<32 - 1, size: maxInlineTarget, mapped: maxRecords, parent: blockpool.MaxObject, pos: most, trim: true,
		target: strings.Repeat("x", maxInlineTarget),
	}
	for _, p := range []*Time{&in.atime, &in.mtime, &in.ctime, &in.btime} {
		*p = Time{-1 << 63, 999999999}
	}
	if n := len(in.pack()); n > blockpool.MaxItemValue {
		t.Fatalf("the inode has %d bytes", n)
	}
	if out, err := unpackInode(in.pack()); err != nil || out.target != in.target {
		t.Fatal(err)
	}
}

// damageIsTold fails unless an error of a decoder says that it is damage.
func damageIsTold(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, blockpool.ErrDamaged) && !errors.Is(err, blockpool.ErrNewer) {
		t.Fatalf("error is %v, which does not tell of damage", err)
	}
}

func FuzzInode(f *testing.F) {
	in := inode{mode: unix.S_IFREG | 0o644, nlink: 1, size: 5, mtime: Time{5, 6}, extra: []byte{200, 0}}
	f.Add(in.pack())
	f.Add([]byte{1, 1, 3, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := unpackInode(b)
		if err != nil {
			damageIsTold(t, err)
			return
		}
		again, err := unpackInode(in.pack())
		if err != nil || !reflect.DeepEqual(in, again) {
			t.Fatalf("%+v comes back as %+v, %v", in, again, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add((&entry{typ: unix.S_IFDIR, object: 300, name: "d"}).pack())
	f.Add([]byte{128, 9, 's'})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := unpackEntry(b)
		if err != nil {
			damageIsTold(t, err)
			return
		}
		if again, err := unpackEntry(e.pack()); err != nil || again != e {
			t.Fatalf("%+v comes back as %+v, %v", e, again, err)
		}
	})
}

func FuzzXattr(f *testing.F) {
	f.Add((&xattr{name: "user.a", value: []byte("v")}).pack())
	f.Add((&xattr{name: "user.a", object: 300}).pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := unpackXattr(b)
		if err != nil {
			damageIsTold(t, err)
			return
		}
		if again, err := unpackXattr(x.pack()); err != nil || again.name != x.name || !bytes.Equal(again.value, x.value) || again.object != x.object {
			t.Fatalf("%+v comes back as %+v, %v", x, again, err)
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	f.Add((&superblock{bits: 54}).pack())
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := unpackSuper(b)
		if err != nil {
			damageIsTold(t, err)
			return
		}
		if again, err := unpackSuper(s.pack()); err != nil || again != s {
			t.Fatalf("%+v comes back as %+v, %v", s, again, err)
		}
	})
}

func FuzzACL(f *testing.F) {
	f.Add(acl{{aclUserObj, 7, 0}, {aclGroupObj, 5, 0}, {aclOther, 0, 0}}.pack(), uint32(0o640))
	f.Add(acl{{aclUserObj, 7, 0}, {aclUser, 5, 9}, {aclGroupObj, 5, 0}, {aclMask, 5, 0}, {aclOther, 0, 0}}.pack(), uint32(0o777))
	f.Fuzz(func(t *testing.T, b []byte, mode uint32) {
		a, err := unpackACL(b)
		if err != nil || len(a) == 0 {
			return
		}
		a.chmod(mode)
		if a.mode() != mode&0o777 {
			t.Fatalf("chmod %o makes it %o", mode, a.mode())
		}
		a.limit(0o700)
		if a.mode() != mode&0o700 {
			t.Fatalf("limited to 0700 %o becomes %o", mode, a.mode())
		}
		if again, err := unpackACL(a.pack()); err != nil || !reflect.DeepEqual(again, a) {
			t.Fatalf("%v comes back as %v, %v", a, again, err)
		}
	})
}
