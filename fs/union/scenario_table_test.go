package union_test

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

func index(o *union.Options)    { o.Index = true }
func metacopy(o *union.Options) { o.Metacopy = true }

// formatHas limits scenarios to the formats that can express them: aufs names
// have no redirects, and nothing else that is said by an xattr.
func formatHas(v *variant) bool { return !v.aufs() }

// scenarios are all changes, those of copy-up first.
func scenarios() []*scenario {
	var all []*scenario
	for _, list := range [][]*scenario{
		copyUps, copyUpData, metacopies, creations, removals, fileRenames, dirRenames, hardLinks,
	} {
		all = append(all, list...)
	}
	return all
}

var copyUps = []*scenario{
	{name: "chmod lower file", op: chmod("f", 0o600)},
	{name: "chmod deep file", op: chmod("only/b/c", 0o600)},
	{name: "chmod upper file", op: chmod("own", 0o600)},
	{name: "chown lower file", root: true, op: chown("low", 1234)},
	{name: "touch lower file", op: touch("low", 77)},
	{name: "setxattr lower file", op: setxattr("low", "user.new", "value")},
	{name: "removexattr lower file", op: removexattr("f", "user.a")},
	{name: "chmod directory", op: chmod("dir", 0o700)},
	{name: "chmod single directory", op: chmod("only/b", 0o700)},
	{name: "chmod root", op: chmod("", 0o700)},
	{name: "setxattr directory", op: setxattr("dir/sub", "user.new", "value")},
	{name: "touch directory", op: touch("dir", 77)},
	{name: "chmod pipe", op: chmod("pipe", 0o666)},
	{name: "chmod socket", op: chmod("sock", 0o666)},
	{name: "chmod character device", root: true, op: chmod("null", 0o600)},
	{name: "chmod block device", root: true, op: chmod("blk", 0o600)},
	{name: "chown symlink", root: true, op: chown("link", 1234)},
	{name: "touch symlink", op: touch("link", 77)},
	{name: "setxattr symlink", root: true, op: setxattr("link", "trusted.new", "value")},
	{name: "link lower file", op: link("low", "dir/second")},
	{name: "link pipe", op: link("pipe", "second")},
	{name: "link symlink", op: link("link", "second")},
	{name: "link over whiteout", op: link("low", "gone")},
	{name: "link upper file", op: link("own", "dir/second")},
}

// big is more than what is copied by hand.
var big = "l1/big f \"" + strings.Repeat("0123456789abcde\\n", 20000) + "\"\n"

const sparse = "l1/sparse f size=1048576 4096=\"island\" 524288=\"another\"\n"

var copyUpData = []*scenario{
	{name: "write lower file", op: write("low", "WRITE", 2)},
	{name: "write upper file", op: write("own", "OW", 0)},
	{name: "write merged file", op: write("over", "OVER", 0)},
	{name: "write read-only file", op: write("ro", "SOMEBODY", 0)},
	{name: "write read-only upper file", op: write("ro2", "NOT", 0), crash: map[string]op{
		"an ordinary user opens it by way of the mode, and may crash there": chmod("ro2", 0o600)}},
	{name: "write and fsync", synced: true, op: seq(write("low", "WRITE", 2), fsync("low")),
		half: map[string]op{"the write is one change, fsync makes it last": write("low", "WRITE", 2)}},
	{name: "append and fsync", synced: true, torn: true, op: seq(write("low", "append", 10), fsync("low")),
		half: map[string]op{"the write is one change, fsync makes it last": write("low", "append", 10)}},
	{name: "fsync directory", prep: create("dir/new", 0o644, 0), op: fsync("dir")},
	{name: "write setuid file", op: write("suid", "x", 2), half: map[string]op{
		"privileges go before the data, as in the kernel": chmod("suid", 0o0755)}},
	{name: "truncate to nothing", op: truncate("low", 0)},
	{name: "truncate shorter", op: truncate("low", 4)},
	{name: "truncate longer", op: truncate("low", 100)},
	{name: "truncate upper", op: truncate("over", 4)},
	{name: "open with truncation", op: at("low", func(u *tree, n *union.Node) error { return u.PrepareWrite(n, true) })},
	{name: "open for writing", op: at("low", func(u *tree, n *union.Node) error { return u.PrepareWrite(n, false) })},
	{name: "allocate", op: at("low", func(u *tree, n *union.Node) error { return u.Fallocate(n, 0, 0, 9000, false) })},
	{name: "copy range", op: func(u *tree) error {
		return u.walk("over", func(src *union.Node) error {
			return u.walk("low", func(dst *union.Node) error {
				k, err := u.CopyRange(src, dst, 0, 0, 5, false)
				if err == nil && k != 5 {
					err = unix.EIO
				}
				return err
			})
		})
	}},
	{name: "copy large file", layers: big, op: write("big", "X", 1)},
	{name: "copy sparse file", layers: sparse, op: write("sparse", "I", 4096)},
	{name: "truncate sparse file", layers: sparse, op: truncate("sparse", 524290)},
	{name: "inode flags", op: at("low", func(u *tree, n *union.Node) error { return u.SetFlags(n, 0x40) })},
	{name: "two attributes", root: true, op: setattr("low", union.Change{UID: new(uint32), Mtime: &layer.Time{Sec: 7}}),
		half: map[string]op{"two system calls": chown("low", 0)}},
}

var metacopies = []*scenario{
	{name: "metacopy chmod", opt: metacopy, op: chmod("low", 0o600)},
	{name: "metacopy chown", root: true, opt: metacopy, op: chown("dir/sub/z", 1234)},
	{name: "metacopy link", opt: metacopy, op: link("low", "second")},
	{name: "metacopy write", opt: metacopy, prep: chmod("low", 0o600), op: write("low", "WRITE", 2)},
	{name: "metacopy write large", layers: big, opt: metacopy, prep: chmod("big", 0o600), op: write("big", "X", 1)},
	{name: "metacopy truncate", opt: metacopy, prep: chmod("low", 0o600), op: truncate("low", 4)},
	{name: "metacopy truncate longer", opt: metacopy, prep: chmod("low", 0o600), op: truncate("low", 100)},
	{name: "metacopy truncate to nothing", opt: metacopy, prep: chmod("low", 0o600), op: truncate("low", 0)},
	{name: "metacopy open", opt: metacopy, prep: chmod("low", 0o600),
		op: at("low", func(u *tree, n *union.Node) error { return u.PrepareWrite(n, false) })},
	{name: "metacopy rename", opt: metacopy, prep: chmod("low", 0o600), op: rename("low", "dir/moved", 0)},
	{name: "metacopy rename lower", opt: metacopy, op: rename("dir/y", "moved", 0)},
	{name: "metacopy write after rename", opt: metacopy, prep: rename("dir/y", "moved", 0), op: write("moved", "Y", 0)},
	{name: "metacopy unlink", opt: metacopy, prep: chmod("low", 0o600), op: unlink("low")},
	{name: "metacopy fsync", opt: metacopy, prep: chmod("low", 0o600), op: fsync("low")},
}

var creations = []*scenario{
	{name: "create", op: create("new", 0o666, 0)},
	{name: "create in lower directory", op: create("only/b/new", 0o666, 0)},
	{name: "create in setgid directory", op: create("dir/new", 0o666, 0)},
	{name: "create by another user", root: true, op: create("dir/new", 0o666, 1000)},
	{name: "create over whiteout", op: create("gone", 0o640, 0)},
	{name: "create over whited out directory", root: true, op: create("gonedir", 0o640, 1000)},
	{name: "create over own whiteout", prep: unlink("low"), op: create("low", 0o600, 0)},
	{name: "create over own whiteout by another user", root: true, prep: unlink("low"), op: create("low", 0o4600, 1000)},
	{name: "mkdir", empty: "/new/", op: mkdir("new", 0o777, 0)},
	{name: "mkdir by another user", root: true, empty: "/dir/new/", op: mkdir("dir/new", 0o777, 1000)},
	{name: "mkdir over whiteout", empty: "/gone/", op: mkdir("gone", 0o777, 0)},
	{name: "mkdir over whited out directory", empty: "/gonedir/", op: mkdir("gonedir", 0o777, 0)},
	{name: "mkdir over own whiteout", prep: rmdir("void"), empty: "/void/", op: mkdir("void", 0o777, 0)},
	{name: "mkdir over own whiteout by another user", root: true, prep: rmdir("void"), empty: "/void/", op: mkdir("void", 0o777, 1000)},
	{name: "mkdir over own whiteout of a full directory", empty: "/only/", op: mkdir("only", 0o777, 0),
		prep: seq(unlink("only/b/c"), rmdir("only/b"), unlink("only/a"), rmdir("only"))},
	{name: "create over own whiteout of a full directory", op: create("only", 0o600, 0),
		prep: seq(unlink("only/b/c"), rmdir("only/b"), unlink("only/a"), rmdir("only"))},
	{name: "mkdir in new directory", prep: mkdir("new", 0o777, 0), empty: "/new/sub/", op: mkdir("new/sub", 0o777, 0)},
	{name: "mknod pipe", op: mknod("new", unix.S_IFIFO|0o600, 0, 0)},
	{name: "mknod pipe over whiteout", root: true, op: mknod("gone", unix.S_IFIFO|0o600, 0, 1000)},
	{name: "mknod device by another user", root: true, op: mknod("dir/new", unix.S_IFCHR|0o600, 0x103, 1000)},
	{name: "mknod socket over own whiteout", prep: unlink("sock"), op: mknod("sock", unix.S_IFSOCK|0o600, 0, 0)},
	{name: "symlink", op: symlink("target", "new", 0)},
	{name: "symlink over own whiteout", prep: unlink("link"), op: symlink("target", "link", 0)},
	{name: "symlink by another user", root: true, op: symlink("target", "gone", 1000)},
	{name: "create with default ACL", prep: setxattr("dir", "system.posix_acl_default", defaultACL), op: create("dir/new", 0o666, 0)},
	{name: "mkdir with default ACL by another user", root: true, prep: setxattr("dir", "system.posix_acl_default", defaultACL),
		op: mkdir("dir/new", 0o777, 1000)},
	{name: "file without a name gets one", root: true, op: tmpfile("dir/new", "text"), only: func(v *variant) bool { return !v.mem.NoTmpFile }},
}

// defaultACL is u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---.
const defaultACL = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" +
	"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

var removals = []*scenario{
	{name: "unlink lower file", op: unlink("low")},
	{name: "unlink file of two lowers", op: unlink("f")},
	{name: "unlink file of all layers", op: unlink("over")},
	{name: "unlink upper file", op: unlink("own")},
	{name: "unlink in merged directory", op: unlink("dir/x")},
	{name: "unlink deep", op: unlink("only/b/c")},
	{name: "unlink copied up", prep: chmod("low", 0o600), op: unlink("low")},
	{name: "unlink made over whiteout", prep: create("gone", 0o600, 0), op: unlink("gone")},
	{name: "unlink symlink", op: unlink("link")},
	{name: "unlink pipe", op: unlink("pipe")},
	{name: "unlink device", root: true, op: unlink("null")},
	{name: "unlink another after one", prep: unlink("low"), op: unlink("f")},
	{name: "unlink in opaque directory", op: unlink("opq/new")},
	{name: "rmdir lower directory", op: rmdir("void")},
	{name: "rmdir merged lower directory", op: rmdir("void2")},
	{name: "rmdir upper directory", op: rmdir("empty")},
	{name: "rmdir directory of all layers", prep: chmod("void2", 0o755), op: rmdir("void2")},
	{name: "rmdir emptied merged directory", prep: seq(unlink("only/b/c"), rmdir("only/b"), unlink("only/a")), op: rmdir("only")},
	{name: "rmdir emptied opaque directory", prep: unlink("opq/new"), op: rmdir("opq")},
	{name: "rmdir new directory over a deleted one", prep: mkdir("gonedir", 0o755, 0), op: rmdir("gonedir")},
	{name: "rmdir directory full of whiteouts", prep: seq(mkdir("owndir/d", 0o755, 0), rename("merged/l", "owndir/l", unix.RENAME_WHITEOUT),
		rename("owndir/l", "owndir/d/l", unix.RENAME_WHITEOUT), rename("owndir/d/l", "l2", unix.RENAME_WHITEOUT)), op: rmdir("owndir/d"),
		only: func(v *variant) bool { return !v.aufs() }},
}
