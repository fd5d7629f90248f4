package override

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
)

const (
	file0600 = unix.S_IFREG | 0o600
	dir0700  = unix.S_IFDIR | 0o700
)

// Values as containers/storage and fuse-overlayfs write them.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		value    string
		inode    uint32
		uid, gid uint32
		mode     uint32
		rdev     uint64
	}{
		{"0:0:755", dir0700, 0, 0, unix.S_IFDIR | 0o755, 0},
		{"0:0:0755", file0600, 0, 0, unix.S_IFREG | 0o755, 0},
		{"1000:100:4755:file", file0600, 1000, 100, unix.S_IFREG | 0o4755, 0},
		{"5:6:100644:file", file0600, 5, 6, unix.S_IFREG | 0o644, 0},
		{"4294967294:0:1777:dir", dir0700, 4294967294, 0, unix.S_IFDIR | 0o1777, 0},
		{"0:0:644:pipe", file0600, 0, 0, unix.S_IFIFO | 0o644, 0},
		{"0:0:644:socket", file0600, 0, 0, unix.S_IFSOCK | 0o644, 0},
		{"0:6:660:block-8-1", file0600, 0, 6, unix.S_IFBLK | 0o660, unix.Mkdev(8, 1)},
		{"0:5:666:char1:3", file0600, 0, 5, unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)},
		// What an inode cannot be, it is not.
		{"1:2:755:dir", file0600, 1, 2, unix.S_IFREG | 0o755, 0},
		{"1:2:755:file", dir0700, 1, 2, unix.S_IFDIR | 0o755, 0},
		{"1:2:755:char-1-3", dir0700, 1, 2, unix.S_IFDIR | 0o755, 0},
		{"1:2:777:symlink", file0600, 1, 2, unix.S_IFREG | 0o777, 0},
	} {
		st := layer.Stat{Mode: c.inode, UID: 77, GID: 88}
		if !apply(&st, []byte(c.value)) {
			t.Errorf("%q is refused", c.value)
			continue
		}
		if st.UID != c.uid || st.GID != c.gid || st.Mode != c.mode || st.Rdev != c.rdev {
			t.Errorf("%q shows %d:%d %o device %x", c.value, st.UID, st.GID, st.Mode, st.Rdev)
		}
	}
	for _, bad := range []string{
		"", ":", "0", "0:0", "0:0:", "a:0:644", "0:0:999", "4294967296:0:644", "0:0:644:", "0:0:644:bogus",
		"0:0:644:char", "0:0:644:char-1", "0:0:644:char-1-x", "0:0:644:blocks", "0:0:644:file:more", " 0:0:644",
	} {
		st := layer.Stat{Mode: file0600, UID: 77, GID: 88}
		if before := st; apply(&st, []byte(bad)) || st != before {
			t.Errorf("%q is taken, and shows %d:%d %o", bad, st.UID, st.GID, st.Mode)
		}
	}
}

// Damage is told, never taken for another owner.
func TestDamagedValue(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	below := fs.Root()
	defer below.Close()
	f, err := below.OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	above := Wrap(below, Containers)
	for _, value := range []string{"root:root:644", "", strings.Repeat("1", 2000)} {
		if err := f.Setxattr(Containers.xattr, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		if st, err := above.StatAt("f"); err != unix.EIO {
			t.Errorf("value %.20q: %o, %v; want EIO", value, st.Mode, err)
		}
		if _, err := above.OpenFile("f", unix.O_RDONLY, 0); err != unix.EIO {
			t.Errorf("value %.20q: open gives %v; want EIO", value, err)
		}
	}
}

// Older layers name their attribute otherwise, and who looks at a layer must
// neither see nor change the attribute.
func TestAttributesOfLayers(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	below := fs.Root()
	defer below.Close()
	if err := below.Setxattr(legacy.xattr, []byte("3:4:755"), 0); err != nil {
		t.Fatal(err)
	}
	old := Wrap(below, Containers)
	if st, err := old.Stat(); err != nil || st.UID != 3 || st.GID != 4 {
		t.Errorf("an old layer's root is of %d:%d, %v; want 3:4", st.UID, st.GID, err)
	}
	if err := below.Setxattr(Containers.xattr, []byte("5:6:755:dir"), 0); err != nil {
		t.Fatal(err)
	}
	d := Wrap(below, Containers)
	if st, err := d.Stat(); err != nil || st.UID != 5 || st.GID != 6 {
		t.Errorf("the newer attribute shows %d:%d, %v; want 5:6", st.UID, st.GID, err)
	}
	if err := d.Setxattr(Containers.xattr, []byte("0:0:755:dir"), 0); err != unix.EPERM {
		t.Errorf("setting the attribute: %v, want EPERM", err)
	}
	if err := d.Removexattr(Containers.xattr); err != unix.EPERM {
		t.Errorf("removing the attribute: %v, want EPERM", err)
	}
	if _, err := d.Getxattr(Containers.xattr, nil); err != unix.ENODATA {
		t.Errorf("reading the attribute: %v, want ENODATA", err)
	}
	if err := d.Setxattr("security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		t.Errorf("a file capability: %v", err)
	}
	if n, err := below.Getxattr("user.containers.override_security.capability", nil); err != nil || n != 20 {
		t.Errorf("the capability is stored with %d bytes, %v", n, err)
	}
	forged := "user.containers.override_security.ima"
	if err := d.Setxattr(forged, []byte("x"), 0); err != nil {
		t.Errorf("an attribute called like a stored one: %v", err)
	}
	if _, err := d.Getxattr("security.ima", nil); err != unix.ENODATA {
		t.Errorf("it is shown as security.ima: %v", err)
	}
	if err := d.Removexattr(forged); err != nil {
		t.Errorf("removing it: %v", err)
	}
	buf := make([]byte, 512)
	n, err := d.Listxattr(buf)
	if got := string(buf[:n]); err != nil || got != "security.capability\x00user.fuseoverlayfs.override_stat\x00" && got != "user.fuseoverlayfs.override_stat\x00security.capability\x00" {
		t.Errorf("names %q, %v", got, err)
	}
}
