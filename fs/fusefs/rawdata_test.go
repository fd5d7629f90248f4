package fusefs

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// What cannot be kept is refused: a project id that was taken and forgotten
// would be a quota that holds nobody.
func TestSettingWhatIsNotKeptIsRefused(t *testing.T) {
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	for what, c := range map[string]struct {
		fsx  []uint32 // xflags, extsize, nextents, projid, cowextsize
		want uint32
		err  error
	}{
		"append-only":        {[]uint32{0x10}, appendOnly, nil},
		"what was read":      {[]uint32{0x80000008, 0, 7}, immutable, nil},
		"nothing":            {nil, 0, nil},
		"a project":          {[]uint32{0, 0, 0, 16}, 0, unix.EOPNOTSUPP},
		"an extent size":     {[]uint32{0, 4096}, 0, unix.EOPNOTSUPP},
		"a CoW extent size":  {[]uint32{0, 0, 0, 0, 4096}, 0, unix.EOPNOTSUPP},
		"inherit a project":  {[]uint32{0x200}, 0, unix.EOPNOTSUPP},
		"a flag of tomorrow": {[]uint32{0x40000000}, 0, unix.EOPNOTSUPP},
	} {
		fsx := make([]byte, fsxattrSize)
		for i, v := range c.fsx {
			binary.LittleEndian.PutUint32(fsx[4*i:], v)
		}
		if got, err := setXFlags(immutable, fsx); got != c.want || err != c.err {
			t.Errorf("%s: flags %#x, %v; want %#x, %v", what, got, err, c.want, c.err)
		}
	}
	if _, err := setXFlags(0, make([]byte, fsxattrSize-1)); err != unix.EINVAL {
		t.Errorf("half a structure: %v", err)
	}
}
