package dataset_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
)

func TestXattrsOfAllSizes(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", ""))
	long := "user." + strings.Repeat("n", 250)
	for _, size := range []int{0, 1, 700, 1016, 1017, 1018, 1019, 5000, dataset.MaxXattr} {
		for _, name := range []string{"user.a", long} {
			m.must(m.setxattr("f", name, text(size, uint64(size))))
			m.check(m.tree)
			v, err := m.getxattr("f", name)
			m.must(err)
			m.equal(v == text(size, uint64(size)), true)
		}
	}
	m.want(unix.E2BIG, m.setxattr("f", "user.a", text(dataset.MaxXattr+1, 1)))
	for name, e := range map[string]unix.Errno{
		"user.": unix.EOPNOTSUPP, "a": unix.EOPNOTSUPP, "system.x": unix.EOPNOTSUPP, long + "x": unix.ERANGE,
	} {
		m.want(e, m.setxattr("f", name, "x"))
	}
	n := m.at("f")
	m.want(unix.EEXIST, m.Setxattr(n, "user.a", nil, unix.XATTR_CREATE, false))
	m.want(unix.ENODATA, m.Setxattr(n, "user.b", nil, unix.XATTR_REPLACE, false))
	m.want(unix.ENODATA, m.Removexattr(n, "user.b"))
	_, err := m.Getxattr(n, "user.a", make([]byte, 10))
	m.want(unix.ERANGE, err)
	_, err = m.Listxattr(n, make([]byte, 10))
	m.want(unix.ERANGE, err)
	m.must(m.Removexattr(n, "user.a"))
	m.Forget(n, 1)
	m.must(m.unlink("f"))
	m.Settle()
	m.equal(m.tree.Counted(), 1)
	m.equal(m.tree.Space().Referenced, 0)
}

// posixACL packs an ACL from entries of tag, permissions and id.
func posixACL(entries ...[3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

const (
	access, standard                            = "system.posix_acl_access", "system.posix_acl_default"
	userObj, user, groupObj, group, mask, other = 1, 2, 4, 8, 16, 32
	none                                        = 1<<32 - 1
)

func TestACLAndModeKeepInStep(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", ""))
	m.must(m.setxattr("f", access, posixACL([3]uint32{userObj, 7, none}, [3]uint32{user, 6, 5}, [3]uint32{groupObj, 5, none}, [3]uint32{mask, 4, none}, [3]uint32{other, 1, none})))
	m.equal(fmt.Sprintf("%o", m.stat("f").Mode&0o777), "741")
	m.must(m.chmod("f", 0o620))
	v, err := m.getxattr("f", access)
	m.must(err)
	m.equal(v == posixACL([3]uint32{userObj, 6, none}, [3]uint32{user, 6, 5}, [3]uint32{groupObj, 5, none}, [3]uint32{mask, 2, none}, [3]uint32{other, 0, none}), true)
	// One that the mode can say is not kept.
	m.must(m.setxattr("f", access, posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 4, none})))
	_, err = m.getxattr("f", access)
	m.want(unix.ENODATA, err)
	m.equal(fmt.Sprintf("%o", m.stat("f").Mode&0o777), "754")
	m.want(unix.EACCES, m.setxattr("f", standard, posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 4, none})))
	for _, bad := range []string{
		"x", "\x01\x00\x00\x00", posixACL([3]uint32{userObj, 7, none}),
		posixACL([3]uint32{userObj, 7, none}, [3]uint32{user, 6, 5}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 1, none}),
		posixACL([3]uint32{groupObj, 5, none}, [3]uint32{userObj, 7, none}, [3]uint32{other, 1, none}),
		posixACL([3]uint32{userObj, 8, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 1, none}),
		posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 1, none}, [3]uint32{other, 1, none}),
	} {
		m.want(unix.EINVAL, m.setxattr("f", access, bad))
	}
	m.must(m.chmod("f", 0o2755))
	m.must(m.on("f", func(n *dataset.Node) error {
		acl := posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 4, none})
		return m.Setxattr(n, access, []byte(acl), 0, true)
	}))
	m.equal(fmt.Sprintf("%o", m.stat("f").Mode&0o7777), "754")
}

func TestDefaultACLIsInherited(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("d"))
	def := posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 7, none}, [3]uint32{group, 7, 5}, [3]uint32{mask, 6, none}, [3]uint32{other, 5, none})
	m.must(m.setxattr("d", standard, def))
	m.must(m.create("d/f", ""))
	m.must(m.mkdir("d/e"))
	// The umask does not count, the mode asked for does: 0666.
	m.equal(fmt.Sprintf("%o", m.stat("d/f").Mode&0o777), "664")
	v, err := m.getxattr("d/f", access)
	m.must(err)
	m.equal(v == posixACL([3]uint32{userObj, 6, none}, [3]uint32{groupObj, 7, none}, [3]uint32{group, 7, 5}, [3]uint32{mask, 6, none}, [3]uint32{other, 4, none}), true)
	v, err = m.getxattr("d/e", standard)
	m.must(err)
	m.equal(v == def, true)
	_, err = m.getxattr("d/f", standard)
	m.want(unix.ENODATA, err)
	m.must(m.setxattr("d/e", standard, ""))
	m.must(m.create("d/e/f", ""))
	m.equal(fmt.Sprintf("%o", m.stat("d/e/f").Mode&0o777), "644")
	n, err := m.lookup("d/f")
	m.must(err)
	m.must(m.Removexattr(n, access))
	m.Forget(n, 1)
	m.must(m.symlink("x", "d/s"))
	m.equal(fmt.Sprintf("%o", m.stat("d/s").Mode&0o777), "777")
}
