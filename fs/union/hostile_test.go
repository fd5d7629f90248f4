package union_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// secret lies beside the layers. No layer may lead there.
const secret = "the password of the host"

// A hostile stack is made by someone who wants more than to be mounted: to read
// what lies outside of the layers, to stop the server, to show what was deleted.
type hostile struct {
	name   string
	layers string // of l0 (on top), l1 and l2, d (data-only) and up
	opt    union.Options
	want   map[string]string // by path, what look gives
}

// mount mounts a stack whose upper, where it has one, comes from a stranger too.
func (h *hostile) mount(t testing.TB) (*tree, disks) {
	t.Helper()
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild("l0 d\nl1 d\nl2 d\nd d\nup d\nwork d\nsecret f \"" + secret + "\"\noutside/secret f \"" + secret + "\"")
	fs.MustBuild(h.layers)
	u, err := h.open(fs)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	return u, disks{fs, fs}
}

func (h *hostile) open(fs *memlayer.FS) (*tree, error) {
	cfg := union.Config{
		Upper: &union.Branch{Name: "up", Root: fs.Dir("up")}, Work: &union.Branch{Name: "work", Root: fs.Dir("work")},
		DataOnly: []union.Branch{{Name: "d", Root: fs.Dir("d")}},
		Options:  h.opt,
	}
	for _, name := range []string{"l0", "l1", "l2"} {
		cfg.Lowers = append(cfg.Lowers, union.Branch{Name: name, Root: fs.Dir(name)})
	}
	fsys, err := union.New(cfg)
	return &tree{FS: fsys}, err
}

// look describes what a path of a union leads to: the errno of failing, the
// names in a directory, the content of a file, the target of a link.
func look(u *tree, path string) (found string) {
	err := u.walk(path, func(n *union.Node) error {
		a, err := u.GetAttr(n)
		if err != nil {
			return err
		}
		switch a.Type() {
		case unix.S_IFDIR:
			found = "dir"
			names, err := list(u, n)
			if err != nil {
				found += " " + reply(err)
			}
			for _, name := range names {
				found += " " + name
			}
		case unix.S_IFREG:
			p := make([]byte, 100)
			k, err := u.Read(n, p, 0)
			if found = fmt.Sprintf("file %q", p[:k]); err != nil {
				found = "file " + reply(err)
			}
		case unix.S_IFLNK:
			target, err := u.Readlink(n)
			if found = "-> " + target; err != nil {
				found = "-> " + reply(err)
			}
		default:
			found = fmt.Sprintf("type %#o", a.Type())
		}
		return nil
	})
	if err != nil {
		return reply(err)
	}
	return found
}

// reply is the errno that a program gets.
func reply(err error) string {
	if e := errnoOf(err); e != 0 {
		return unix.ErrnoName(e)
	}
	return "EIO"
}

func list(u *tree, n *union.Node) (names []string, err error) {
	err = u.ReadDir(n, 0, func(l union.Listed) bool { names = append(names, l.Name); return true })
	slices.Sort(names)
	return names, err
}

// ransack uses everything in a union: reads, changes, and in the end removes
// it. Errors are fine, each with an errno, but never the secret, a listed name
// that leads to another one, or the end of the process.
func ransack(t testing.TB, u *tree) {
	t.Helper()
	var down func(path string, depth int)
	down = func(path string, depth int) {
		if depth > 20 {
			t.Fatalf("no end at %s", path)
		}
		var names []string
		err := u.walk(path, func(n *union.Node) (err error) { names, err = list(u, n); return err })
		check(t, err, "list", path)
		for _, name := range names {
			sub := path + "/" + name
			if found := look(u, sub); strings.Contains(found, secret) {
				t.Errorf("%s leads outside: %s", sub, found)
			} else if strings.HasPrefix(found, "dir") {
				down(sub, depth+1)
			}
			check(t, setxattr(sub, "user.x", "x")(u), "setxattr", sub)
			check(t, chmod(sub, 0o755)(u), "chmod", sub)
			check(t, write(sub, "x", 0)(u), "write", sub)
			check(t, truncate(sub, 1)(u), "truncate", sub)
			check(t, link(sub, sub+"+")(u), "link", sub)
			check(t, rename(sub, sub+"-", 0)(u), "rename", sub)
			if found := look(u, sub+"-"); strings.Contains(found, secret) {
				t.Errorf("%s leads outside after a rename: %s", sub, found)
			}
			check(t, rename(sub+"-", sub, 0)(u), "rename", sub)
			check(t, unlink(sub+"+")(u), "unlink", sub)
			if err := unlink(sub)(u); err != nil {
				check(t, err, "unlink", sub)
				check(t, rmdir(sub)(u), "rmdir", sub)
			}
		}
	}
	down("", 0)
}

// check wants an error to have an errno, or to tell of a mark that makes no
// sense; users are told EIO then.
func check(t testing.TB, err error, op, path string) {
	t.Helper()
	if err != nil && errnoOf(err) == 0 && !errors.Is(err, whiteout.ErrMalformed) {
		t.Errorf("%s %s: an error without an errno: %v", op, path, err)
	}
}

// TestHostileLayers mounts what strangers make, looks at it, uses it and mounts
// it once more.
func TestHostileLayers(t *testing.T) {
	for _, list := range [][]*hostile{hostileRedirects, hostileWhiteouts, hostileMetacopies, hostileNames} {
		for _, h := range list {
			t.Run(h.name, func(t *testing.T) {
				u, d := h.mount(t)
				before := dumpDir(t, d.lower, "l0") + dumpDir(t, d.lower, "l1") + dumpDir(t, d.lower, "l2") + dumpDir(t, d.lower, "d")
				h.expect(t, u)
				u.unmount(t, d)
				u, err := h.open(d.upper)
				if err != nil {
					t.Fatalf("second mount: %v", err)
				}
				check(t, u.remember(), "remember", "") // lookups know nothing else than listings
				h.expect(t, u)
				ransack(t, u)
				u.unmount(t, d)
				if u, err = h.open(d.upper); err != nil {
					t.Fatalf("mount after use: %v", err)
				}
				ransack(t, u)
				u.unmount(t, d)
				after := dumpDir(t, d.lower, "l0") + dumpDir(t, d.lower, "l1") + dumpDir(t, d.lower, "l2") + dumpDir(t, d.lower, "d")
				if before != after {
					t.Errorf("the lower layers have changed:\n%s", after)
				}
			})
		}
	}
}

func (h *hostile) expect(t *testing.T, u *tree) {
	t.Helper()
	for path, want := range h.want {
		if got := look(u, path); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}
