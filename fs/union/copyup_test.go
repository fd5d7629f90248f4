package union

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A work directory below one with a default ACL hands that on to what is made in
// it. A copy has the mode of the file that it is of, and no ACL of anybody else's.
func TestCopyUpTakesNothingFromTheWorkDirectory(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild("low/file f 0666 text\nup d\nwork d")
	var closed []byte // user::rwx group::--- other::---
	closed = binary.LittleEndian.AppendUint32(closed, 2)
	for _, e := range [][2]uint16{{0x01, 7}, {0x04, 0}, {0x20, 0}} {
		closed = binary.LittleEndian.AppendUint16(closed, e[0])
		closed = binary.LittleEndian.AppendUint16(closed, e[1])
		closed = binary.LittleEndian.AppendUint32(closed, 1<<32-1)
	}
	if err := disk.Dir("work").Setxattr(aclDefault, closed, 0); err != nil {
		t.Fatal(err)
	}
	u, err := New(Config{
		Lowers: []Branch{{Name: "low", Root: disk.Dir("low")}},
		Upper:  &Branch{Name: "up", Root: disk.Dir("up")},
		Work:   &Branch{Name: "work", Root: disk.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	n, before, err := u.Lookup(u.Root(), "file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(n, []byte("T"), 0, false); err != nil {
		t.Fatal(err)
	}
	after, err := disk.Dir("up").StatAt("file")
	if err != nil || after.Mode != before.Mode {
		t.Errorf("the copy of a file of mode %o has mode %o, %v", before.Mode, after.Mode, err)
	}
	if _, err := disk.Dir("up").GetxattrAt("file", aclAccess, nil); err != unix.ENODATA {
		t.Errorf("access ACL of the copy: %v, want none", err)
	}
}
