package union_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// FuzzMarks puts any bytes into the marks of files and directories, in the
// upper and in lower layers, and uses what comes out.
func FuzzMarks(f *testing.F) {
	f.Add([]byte("/c"), []byte(""), []byte("\x00\xfb\x1d\x00\x01memlayer\x00\x00\x00\x00\x00\x10\x00\x00\x0c\x00\x00\x00"), []byte("U+1"), []byte("y"), byte(0))
	f.Add([]byte("b"), []byte("\x00\x04\x00\x00"), []byte(""), []byte("L-1"), []byte("x"), byte(1))
	f.Add([]byte("/../secret"), []byte("\x00\x24\x00\x01"), []byte("\x00"), []byte("U-2147483648"), []byte(""), byte(2))
	f.Add([]byte("/a/b/c"), []byte("\xff"), []byte("\x00\xfb\xff\xff"), []byte("U+2147483647"), []byte("n"), byte(7))
	f.Fuzz(func(t *testing.T, redirect, metacopy, origin, nlink, opaque []byte, how byte) {
		fs := memlayer.New(memlayer.Options{})
		fs.MustBuild(`
			up/d/1 f "1"
			up/f f "f"
			up/f2 h up/f
			up/m f size=4
			l0/d/2 f "2"
			l0/a/b/c/3 f "3"
			l0/m f size=4
			l0/h f "h"
			l0/h2 h l0/h
			l1/d/4 f "4"
			l1/b/5 f "5"
			l1/c/6 f "6"
			l1/m f "data"
			l2/a/b/c f "c"
			d/c f "data"
			work d
			secret f "` + secret + `"
		`)
		prefix := "trusted.overlay."
		if how&1 != 0 {
			prefix = "user.overlay."
		}
		marks := map[string][]byte{"redirect": redirect, "origin": origin, "nlink": nlink, "opaque": opaque, "impure": opaque, "whiteout": origin}
		for _, path := range []string{"up/d", "up/f", "l0/d", "l0/a", "l0/h", "l1/d"} {
			for name, v := range marks {
				mark(fs, path, prefix+name, v)
			}
		}
		for _, path := range []string{"up/m", "l0/m"} {
			mark(fs, path, prefix+"metacopy", metacopy)
			mark(fs, path, prefix+"redirect", redirect)
		}
		before := dumpDir(t, fs, "l0") + dumpDir(t, fs, "l1")
		h := hostile{opt: union.Options{Index: how&2 != 0, Metacopy: how&4 != 0, Redirect: how&8 == 0, NoFollow: how&16 != 0}}
		u, err := h.open(fs)
		if err != nil {
			check(t, err, "mount", "")
			if open := fs.Open(); len(open) > 0 {
				t.Errorf("mount failed with %v and left open: %q", err, open)
			}
			return
		}
		_ = u.remember() // its errors are those that ransack sees
		ransack(t, u)
		for i := len(u.held) - 1; i >= 0; i-- {
			u.Forget(u.held[i], 1)
		}
		u.Close()
		if open := fs.Open(); len(open) > 0 {
			t.Errorf("handles are left open: %q", open)
		}
		if after := dumpDir(t, fs, "l0") + dumpDir(t, fs, "l1"); after != before {
			t.Errorf("the lower layers have changed:\n%s", after)
		}
	})
}

// mark sets an xattr on layer/name; values that no filesystem takes are left out.
func mark(fs *memlayer.FS, path, attr string, value []byte) {
	in, name, _ := strings.Cut(path, "/")
	dir := fs.Dir(in)
	defer dir.Close()
	o, err := dir.Lookup(name)
	if err != nil {
		panic(err)
	}
	defer o.Close()
	if err := o.Setxattr(attr, value, 0); err != nil && err != unix.ENOSPC && err != unix.E2BIG {
		panic(err)
	}
}
