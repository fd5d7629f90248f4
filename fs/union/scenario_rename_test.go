package union_test

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

var fileRenames = []*scenario{
	{name: "rename lower file", op: rename("low", "new", 0)},
	{name: "rename lower file elsewhere", op: rename("dir/sub/z", "only/z", 0)},
	{name: "rename lower over lower", from: "low", over: "f", op: rename("low", "f", 0)},
	{name: "rename lower over merged", from: "low", over: "over", op: rename("low", "over", 0)},
	{name: "rename lower over upper", from: "low", over: "own", op: rename("low", "own", 0)},
	{name: "rename lower over whiteout", op: rename("low", "gone", 0)},
	{name: "rename merged file", op: rename("over", "dir/new", 0)},
	{name: "rename upper file", op: rename("own", "new", 0)},
	{name: "rename upper over lower", op: rename("own", "low", 0)},
	{name: "rename upper over merged", op: rename("own", "over", 0)},
	{name: "rename upper over whiteout", op: rename("own", "gone", 0)},
	{name: "rename upper over copied up", prep: chmod("low", 0o600), op: rename("own", "low", 0)},
	{name: "rename symlink", op: rename("link", "dir/new", 0)},
	{name: "rename pipe over file", from: "pipe", over: "low", op: rename("pipe", "low", 0)},
	{name: "rename with NOREPLACE", op: rename("low", "new", unix.RENAME_NOREPLACE)},
	{name: "rename upper with NOREPLACE over whiteout", op: rename("own", "gone", unix.RENAME_NOREPLACE)},
	{name: "exchange lower files", op: rename("low", "f", unix.RENAME_EXCHANGE)},
	{name: "exchange lower and upper file", op: rename("low", "own", unix.RENAME_EXCHANGE)},
	{name: "exchange across directories", op: rename("dir/x", "only/a", unix.RENAME_EXCHANGE)},
	{name: "exchange file and upper directory", op: rename("own", "owndir", unix.RENAME_EXCHANGE)},
	{name: "exchange file and merged directory", op: rename("dir/sub/z", "dir", unix.RENAME_EXCHANGE), only: never},
	{name: "exchange lower file and lower directory", op: rename("low", "only", unix.RENAME_EXCHANGE), only: formatHas},
	{name: "rename and leave a whiteout", op: rename("own", "new", unix.RENAME_WHITEOUT)},
	{name: "rename lower and leave a whiteout", op: rename("low", "new", unix.RENAME_WHITEOUT)},
	{name: "rename and leave a whiteout over a file", from: "own", over: "low", op: rename("own", "low", unix.RENAME_WHITEOUT)},
}

// never keeps a line that would be refused: a directory cannot come below itself.
func never(*variant) bool { return false }

var dirRenames = []*scenario{
	{name: "rename upper directory", op: rename("owndir", "new", 0)},
	{name: "rename upper directory into merged one", op: rename("owndir", "dir/new", 0)},
	{name: "rename upper directory over whiteout", op: rename("owndir", "gone", 0)},
	{name: "rename upper directory over whited out directory", op: rename("owndir", "gonedir", 0)},
	{name: "rename upper directory over lower one", op: rename("owndir", "void", 0)},
	{name: "rename upper directory over merged one", op: rename("owndir", "void2", 0)},
	{name: "rename upper directory over copied up one", prep: chmod("void", 0o755), op: rename("owndir", "void", 0)},
	{name: "rename upper directory over upper one", op: rename("owndir", "empty", 0)},
	{name: "rename directory over one full of whiteouts", renewed: "/only", op: rename("owndir", "only", 0),
		prep: seq(unlink("only/b/c"), rmdir("only/b"), unlink("only/a"))},
	{name: "rename directory made over whiteout", prep: mkdir("gonedir", 0o755, 0), op: rename("gonedir", "new", 0)},
	{name: "rename lower directory", op: rename("only", "new", 0), only: formatHas},
	{name: "rename merged directory", op: rename("dir", "new", 0), only: formatHas},
	{name: "rename merged directory elsewhere", op: rename("dir", "only/new", 0), only: formatHas},
	{name: "rename lower directory over whiteout", op: rename("only", "gonedir", 0), only: formatHas},
	{name: "rename lower directory over empty one", from: "only", over: "void", op: rename("only", "void", 0), only: formatHas},
	{name: "rename lower directory over upper one", from: "only", over: "empty", op: rename("only", "empty", 0), only: formatHas},
	{name: "rename opaque directory", op: rename("opq", "new", 0), only: formatHas},
	{name: "rename below a renamed directory", prep: rename("only", "new", 0), op: rename("new/b", "dir/b", 0),
		only: formatHas},
	{name: "rename again", prep: rename("dir", "new", 0), op: rename("new", "only/third", 0), only: formatHas},
	{name: "rename back", prep: rename("only", "new", 0), op: rename("new", "only", 0), only: formatHas},
	{name: "exchange directories", op: rename("dir", "only", unix.RENAME_EXCHANGE), only: formatHas},
	{name: "exchange upper and lower directory", op: rename("owndir", "only", unix.RENAME_EXCHANGE), only: formatHas},
	{name: "exchange deep directories", op: rename("dir/sub", "only/b", unix.RENAME_EXCHANGE), only: formatHas},
	{name: "copy up below a renamed directory", prep: rename("only", "new", 0), op: chmod("new/b/c", 0o600), only: formatHas},
	{name: "rename directory and leave a whiteout", op: rename("only", "new", unix.RENAME_WHITEOUT), only: formatHas},
}

// Without an index the copy of one of several names is a file of its own, with
// the attributes that it had.
var apart = map[string]op{"copied up, which parts the names (index=off)": chmod("h1", 0o644)}

var hardLinks = []*scenario{
	{name: "chmod one of several names", op: chmod("h1", 0o600), half: apart},
	{name: "write one of several names", op: write("h1", "LINK", 0), half: apart},
	{name: "rename one of several names", op: rename("h1", "new", 0), half: apart},
	{name: "unlink one of several names", op: unlink("h1")},
	{name: "indexed chmod", opt: index, op: chmod("h1", 0o600)},
	{name: "indexed write", opt: index, op: write("dir/h3", "LINK", 0)},
	{name: "indexed metacopy", opt: func(o *union.Options) { o.Index, o.Metacopy = true, true }, op: chmod("h1", 0o600)},
	{name: "indexed metacopy write", opt: func(o *union.Options) { o.Index, o.Metacopy = true, true }, prep: chmod("h1", 0o600),
		op: write("h2", "LINK", 0)},
	{name: "indexed chown of symlink", opt: index, layers: "l1/h4 h l1/link", op: chown("h4", 11), only: takesMarks},
	{name: "indexed chmod of alias of pipe", opt: index, layers: "l1/h4 h l1/pipe", prep: chmod("h4", 0o640), op: chmod("pipe", 0o600), only: takesMarks},
	{name: "indexed unlink of copy of device", opt: index, layers: "l1/h4 h l1/null", prep: chmod("h4", 0o640), op: unlink("h4"), only: takesMarks},
	{name: "indexed unlink", opt: index, op: unlink("h1")},
	{name: "indexed unlink second", opt: index, prep: unlink("h1"), op: unlink("h2")},
	{name: "indexed unlink last", opt: index, prep: seq(unlink("h1"), unlink("h2")), op: unlink("dir/h3")},
	{name: "indexed chmod after unlink", opt: index, prep: unlink("h1"), op: chmod("h2", 0o600)},
	{name: "indexed unlink of copy", opt: index, prep: chmod("h1", 0o600), op: unlink("h1")},
	{name: "indexed unlink of alias", opt: index, prep: chmod("h1", 0o600), op: unlink("h2")},
	{name: "indexed unlink of last alias", opt: index, prep: seq(chmod("h1", 0o600), unlink("h1"), unlink("h2")), op: unlink("dir/h3")},
	{name: "indexed unlink of last copy", opt: index, prep: seq(chmod("h1", 0o600), unlink("dir/h3"), unlink("h2")), op: unlink("h1")},
	{name: "indexed chmod of alias", opt: index, prep: chmod("h1", 0o600), op: chmod("h2", 0o640)},
	{name: "indexed link", opt: index, op: link("h1", "new")},
	{name: "indexed link of copy", opt: index, prep: chmod("h1", 0o600), op: link("h2", "new")},
	{name: "indexed rename", opt: index, op: rename("h1", "new", 0)},
	{name: "indexed rename of alias", opt: index, prep: chmod("h1", 0o600), op: rename("h2", "new", 0)},
	{name: "indexed rename over alias", countless: true, opt: index, prep: chmod("h1", 0o600), op: rename("own", "h2", 0)},
	{name: "indexed rename over copy", opt: index, prep: chmod("h1", 0o600), op: rename("own", "h1", 0)},
	{name: "indexed rename over lower", countless: true, opt: index, op: rename("own", "h1", 0)},
	{name: "indexed exchange", opt: index, prep: chmod("h1", 0o600), op: rename("h2", "own", unix.RENAME_EXCHANGE)},
}

// takesMarks tells that files of all types can be marked as copies of something.
func takesMarks(v *variant) bool { return v.opt.Prefix != whiteout.User && !v.aufs() }
