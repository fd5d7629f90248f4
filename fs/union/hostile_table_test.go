package union_test

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// redirected is a stack with a redirect that cannot be followed: the directory
// cannot be shown, because it would be shown without what belongs to it.
func redirected(name, value string) *hostile {
	return &hostile{
		name: "redirect " + name,
		layers: fmt.Sprintf(`
			l0/d/a  f "a"
			l0/d    d trusted.overlay.redirect=%q
			l1/d/b  f "b"
			l0/fine f "fine"
		`, value),
		want: map[string]string{"d": "EIO", "d/a": "EIO", "fine": `file "fine"`},
	}
}

var hostileRedirects = []*hostile{
	redirected("out by dots", "/../secret"),
	redirected("out by relative dots", ".."),
	redirected("out by a path", "../outside"),
	redirected("with dots inside", "/x/../../outside"),
	redirected("to itself", "."),
	redirected("empty", ""),
	redirected("to the root", "/"),
	redirected("with an empty component", "/a//b"),
	redirected("with a final slash", "/a/"),
	redirected("relative path", "a/b"),
	redirected("with NUL", "/a\x00b"),
	{
		name: "redirect too long a name",
		layers: `
			l0/d/a f "a"
			l0/d   d trusted.overlay.redirect="/` + strings.Repeat("x", 256) + `"
			l1/d/b f "b"
		`,
		want: map[string]string{"d": "dir a", "d/b": "ENOENT"},
	},
	{
		name: "redirect of a thousand components",
		layers: `
			l0/d/a f "a"
			l0/d   d trusted.overlay.redirect="` + strings.Repeat("/x", 1000) + `"
			l1/x/x/x/x/b f "b"
		`,
		want: map[string]string{"d": "dir a"},
	},
	{
		name: "redirect through a symlink",
		layers: `
			l0/d/a  f "a"
			l0/d    d trusted.overlay.redirect="/out/outside"
			l0/e/a  f "a"
			l0/e    d trusted.overlay.redirect="/out"
			l1/out  l /outside
			l2/out  l ..
		`,
		want: map[string]string{"d": "dir a", "e": "dir a", "out": "-> /outside", "out/secret": "ENOTDIR"},
	},
	{
		name: "redirects in a circle",
		layers: `
			l0/a/0  f "a0"
			l0/a    d trusted.overlay.redirect="/b"
			l0/b/0  f "b0"
			l0/b    d trusted.overlay.redirect="/a"
			l1/a/1  f "a1"
			l1/a    d trusted.overlay.redirect="/b"
			l1/b/1  f "b1"
			l1/b    d trusted.overlay.redirect="/a"
			l2/a/2  f "a2"
			l2/a    d trusted.overlay.redirect="/b"
			l2/b/2  f "b2"
		`,
		want: map[string]string{"a": "dir 0 1 2", "b/1": `file "a1"`, "a/1": `file "b1"`, "a/2": `file "a2"`, "b/2": `file "b2"`},
	},
	{
		name: "redirects below themselves",
		layers: `
			l0/a/0     f "a0"
			l0/a       d trusted.overlay.redirect="/a/b"
			l1/a/b/0   f "hidden"
			l1/a/b/1   f "ab1"
			l1/a/b     d trusted.overlay.redirect="/a/b/c"
			l2/a/b/c/2 f "abc2"
			l2/a/b/x   f "x"
		`,
		want: map[string]string{"a": "dir 0 1 2", "a/2": `file "abc2"`, "a/0": `file "a0"`},
	},
	{
		name: "redirect of a file and of the root",
		layers: `
			l0/f f "f" trusted.overlay.redirect="/../secret"
			l0/g f "g" trusted.overlay.redirect="/secret"
		`,
		want: map[string]string{"g": `file "g"`},
	},
	{
		name: "redirect to what is no directory",
		layers: `
			l0/d d trusted.overlay.redirect="/file"
			l0/e d trusted.overlay.redirect="/file/below"
			l0/p d trusted.overlay.redirect="/pipe"
			l1/file f "file"
			l1/pipe p
			l2/file/below f "below"
		`,
		want: map[string]string{"d": "dir", "e": "dir", "p": "dir"},
	},
	{
		name: "upper redirect out",
		layers: `
			up/d/a f "a"
			up/d   d trusted.overlay.redirect="/../outside"
			up/e/a f "a"
			up/e   d user.overlay.redirect="../outside"
		`,
		want: map[string]string{"d": "EIO", "e": "EIO"},
	},
}

var hostileWhiteouts = []*hostile{
	{
		name: "aufs whiteouts of all types",
		layers: `
			l0/.wh.a/x f "in the whiteout"
			l0/.wh.b   l /secret
			l0/.wh.c   c 0 0:0
			l0/.wh.d   p
			l0/.wh.e   f "not empty"
			l1/a f
			l1/b f
			l1/c f
			l1/d f
			l1/e f
			l1/f f "shown"
		`,
		want: map[string]string{"": "dir f", "a": "ENOENT", "c": "ENOENT", ".wh.a": "ENOENT", ".wh.a/x": "ENOENT", ".wh.b": "ENOENT"},
	},
	{
		name: "aufs names that say nothing",
		layers: `
			l0/.wh.       f
			l0/.wh..      f
			l0/.wh...     f
			l0/.wh..wh.   f
			l0/.wh..wh..opq/x f
			l0/.wh..wh.plnk/1 f
			l0/.wh..wh.aufs f
			l1/f f "f"
		`,
		want: map[string]string{"": "dir f"}, // that a root is opaque means nothing, as in the kernel
	},
	{
		name: "device whiteouts in an aufs layer",
		layers: `
			l0/.wh.a f
			l0/b     c 0 0:0
			l0/n     c 0 1:3
			l0/z     c 0666 0:0 uid=5
			l1/a     f
			l1/b     f
			l1/n     f
			l1/z/in  f
		`,
		want: map[string]string{"": "dir n", "a": "ENOENT", "b": "ENOENT", "z/in": "ENOENT"},
	},
	{
		name: "aufs names in an overlay upper",
		opt:  union.Options{Whiteouts: union.WhiteoutDevice},
		layers: `
			up/.wh.a f
			up/d/.wh..wh..opq f
			up/d/new f "new"
			l0/a     f
			l0/d/old f
		`,
		want: map[string]string{"": "dir d", "a": "ENOENT", "d": "dir new", ".wh.a": "ENOENT", "d/.wh..wh..opq": "ENOENT"},
	},
	{
		name: "aufs whiteout beside the object",
		layers: `
			l0/.wh.a f
			l0/a     f "top"
			l0/.wh.d f
			l0/d/0   f "0"
			l1/a     f "below"
			l1/d/1   f "1"
		`,
		want: map[string]string{"a": `file "top"`, "d/0": `file "0"`},
	},
	{
		name: "xattr whiteouts where none are allowed",
		layers: `
			l0/plain/a f trusted.overlay.whiteout="y"
			l0/marked  d trusted.overlay.opaque="x"
			l0/marked/a f trusted.overlay.whiteout="y"
			l0/marked/b f "not empty" trusted.overlay.whiteout="y"
			l0/marked/c/in f "in"
			l0/marked/c d trusted.overlay.whiteout="y"
			l0/marked/e f
			l1/plain/a f "plain"
			l1/marked/a f "marked"
			l1/marked/d f "d"
		`,
		want: map[string]string{
			"plain/a": `file ""`, "marked/a": "ENOENT", "marked/b": `file "not empty"`, "marked/c/in": `file "in"`,
			"marked": "dir b c d e",
		},
	},
	{
		name: "opaque marks that mean nothing",
		layers: `
			l0/a d trusted.overlay.opaque="Y"
			l0/b d trusted.overlay.opaque=""
			l0/c d trusted.overlay.opaque="yes"
			l0/e d trusted.overlay.opaque="y"
			l0/f f "f" trusted.overlay.opaque="y"
			l0/g d user.overlay.opaque="y"
			l1/a/1 f
			l1/b/1 f
			l1/c/1 f
			l1/e/1 f
			l1/g/1 f
		`,
		want: map[string]string{"a": "dir 1", "b": "dir 1", "c": "dir 1", "e": "dir", "f": `file "f"`, "g": "dir"},
	},
	{
		name: "whiteout and object of each type on top of each other",
		layers: `
			l0/a c 0 0:0
			l1/a/x f "x"
			l2/a f "a"
			l0/b/x f "x"
			l1/b c 0 0:0
			l2/b/y f "y"
			l0/c l b
			l1/c/x f
			l0/d/x f
			l1/d l /outside
			l2/d/y f
		`,
		want: map[string]string{"a": "ENOENT", "b": "dir x", "c": "-> b", "d": "dir x"},
	},
}

var hostileMetacopies = []*hostile{
	{
		name: "metacopy files without data",
		layers: `
			l0/none f size=10 trusted.overlay.metacopy=""
			l0/out  f size=10 trusted.overlay.metacopy="" trusted.overlay.redirect="/../secret"
			l0/dir  f size=10 trusted.overlay.metacopy=""
			l0/link f size=10 trusted.overlay.metacopy=""
			l0/pipe f size=10 trusted.overlay.metacopy=""
			l0/sub  f size=10 trusted.overlay.metacopy="" trusted.overlay.redirect="/link/secret"
			l0/gone f size=10 trusted.overlay.metacopy=""
			l1/dir/x f
			l1/link  l /outside
			l1/pipe  p
			l1/gone  c 0 0:0
			l2/gone  f "deleted"
		`,
		want: map[string]string{"none": "EIO", "out": "EIO", "dir": "EIO", "link": "EIO", "pipe": "EIO", "sub": "EIO", "gone": "EIO"},
	},
	{
		name: "metacopy files that lead to each other",
		layers: `
			l0/a f size=1 trusted.overlay.metacopy="" trusted.overlay.redirect="/b"
			l0/b f size=1 trusted.overlay.metacopy="" trusted.overlay.redirect="/a"
			l1/a f size=1 trusted.overlay.metacopy="" trusted.overlay.redirect="/b"
			l1/b f size=1 trusted.overlay.metacopy="" trusted.overlay.redirect="/a"
			l2/a f size=1 trusted.overlay.metacopy="" trusted.overlay.redirect="/b"
			l2/b f "B"
		`,
		want: map[string]string{"b": `file "B"`, "a": "EIO"},
	},
	{
		name: "metacopy marks that cannot be read",
		layers: `
			l0/a f size=4 trusted.overlay.metacopy="x"
			l0/b f size=4 trusted.overlay.metacopy="\x00\xff\x00\x00"
			l0/c f size=4 trusted.overlay.metacopy="` + strings.Repeat("m", 300) + `"
			l1/a f "data"
			l1/b f "data"
			l1/c f "data"
		`,
		want: map[string]string{"a": "EIO", "b": "EIO", "c": "EIO"},
	},
	{
		name: "metacopy size that is not the data's",
		layers: `
			l0/long  f size=1099511627776 trusted.overlay.metacopy=""
			l0/short f size=2 trusted.overlay.metacopy=""
			l1/long  f "data"
			l1/short f "data"
		`,
		want: map[string]string{"long": `file "data"`, "short": `file "da"`},
	},
	{
		name: "data-only layer",
		layers: `
			l0/good f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/data"
			l0/out  f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/../secret"
			l0/dir  f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/sub"
			l0/link f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/link"
			l0/via  f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/up/secret"
			l0/pipe f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/pipe"
			l0/wh   f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="/wh"
			l0/rel  f size=4 trusted.overlay.metacopy="" trusted.overlay.redirect="data"
			d/data  f "data"
			d/sub/x f "x"
			d/link  l /secret
			d/up    l /outside
			d/pipe  p
			d/wh    c 0 0:0
		`,
		want: map[string]string{
			"good": `file "data"`, "out": "EIO", "dir": "EIO", "link": "EIO", "via": "EIO", "pipe": "EIO", "wh": "EIO", "rel": "EIO",
			"data": "ENOENT", "sub": "ENOENT",
		},
	},
	{
		name: "marks of identity that are wrong",
		opt:  union.Options{Index: true},
		layers: `
			up/a f "a" trusted.overlay.origin="" trusted.overlay.nlink="U+2147483647"
			up/b f "b" trusted.overlay.origin="\x00" trusted.overlay.nlink="U-2147483648"
			up/b2 h up/b
			up/c f "c" trusted.overlay.origin="\x00\xfb\xff\x00\xffffffffffffffff" trusted.overlay.nlink="L+1"
			up/c2 h up/c
			up/d f "d" trusted.overlay.nlink="nonsense"
			up/d2 h up/d
			up/e d trusted.overlay.impure="whatever" trusted.overlay.origin="junk"
			up/e/x f "x" trusted.overlay.origin="junk"
			up d trusted.overlay.impure="y" trusted.overlay.nlink="U+9"
		`,
		want: map[string]string{"a": `file "a"`, "b": `file "b"`, "b2": `file "b"`, "c2": `file "c"`, "d": `file "d"`, "e/x": `file "x"`},
	},
}

var longName = strings.Repeat("n", layer.NameMax)

var hostileNames = []*hostile{
	{
		name: "names of all bytes",
		layers: `
			"l0/\xff\xfe\xfd" f "bytes"
			"l0/line\nbreak"  f "line"
			"l0/ "            f "blank"
			l0/` + longName + ` f "long"
			l1/` + longName + ` f "below"
			"l0/.wh.\xff"     f
			"l1/\xff"         f
			"l1/-rf"          f "option"
		`,
		want: map[string]string{"\xff\xfe\xfd": `file "bytes"`, "line\nbreak": `file "line"`, " ": `file "blank"`, longName: `file "long"`,
			"\xff": "ENOENT", longName + "n": "ENAMETOOLONG", "-rf": `file "option"`},
	},
	{
		name:   "long names with aufs whiteouts",
		opt:    union.Options{Whiteouts: union.WhiteoutAufs},
		layers: `l0/` + longName + ` f "long"` + "\nl0/" + longName[:251] + ` f "short enough"`,
		want:   map[string]string{longName: `file "long"`, longName[:251]: `file "short enough"`},
	},
	{
		name: "links out of the layers",
		layers: `
			l0/abs  l /secret
			l0/rel  l ../secret
			l0/dir  l ../outside
			l0/self l self
			l0/root l /
			l1/dir/x f "x"
			up/out  l ../../../../../../etc
			l0/out/passwd f "layer"
		`,
		want: map[string]string{"abs": "-> /secret", "rel": "-> ../secret", "dir": "-> ../outside", "dir/secret": "ENOTDIR", "dir/x": "ENOTDIR",
			"out": "-> ../../../../../../etc", "out/passwd": "ENOTDIR", "self": "-> self"},
	},
	{
		name: "devices of the host",
		layers: `
			l0/sda b 0666 8:0
			l0/mem c 0666 1:1
			l0/wh  c 0666 0:0
			l0/set f 06777 "#!" uid=0
		`,
		want: map[string]string{"sda": "type 060000", "mem": "type 020000", "wh": "ENOENT"},
	},
}
