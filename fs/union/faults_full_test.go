package union_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// TestFullDisk runs each change on a disk with a little space left. Unlike a
// call that fails once, a full disk also fails what takes space on the way
// back, and lets writes go half way.
func TestFullDisk(t *testing.T) {
	cases, refused := 0, 0
	eachLab(t, func(t *testing.T, i int, l *lab) {
		if l.name == "allocate" {
			return // ext4 changes the time of a file for which it finds no space
		}
		for _, free := range []int64{0, 1, 2, 3, 5} {
			if !sampled(int(free) + i) {
				continue
			}
			cases++
			b := l.begin(t)
			dir := b.d.upper.Dir("up")
			st, err := dir.Statfs()
			if err != nil {
				t.Fatal(err)
			}
			dir.Close()
			b.d.upper.SetLimits(int64(st.Blocks-st.Bfree)+free, 0)
			err = l.op(b.u)
			b.d.upper.SetLimits(0, 0)
			if err != nil {
				refused++
			}
			b.retried(err)
		}
	})
	t.Logf("%d cases, %d refused", cases, refused)
	if refused == 0 {
		t.Error("no change was refused: this tests nothing")
	}
}

// TestLimitsRefuseWithoutDamage is TestFullDisk for size= and inodes=, which
// refuse before anything is done.
func TestLimitsRefuseWithoutDamage(t *testing.T) {
	cases, refused := 0, 0
	eachLab(t, func(t *testing.T, i int, l *lab) {
		if l.v.opt.Inodes == 0 || l.prep != nil {
			return // a preparation may take more than it leaves
		}
		for _, room := range []struct{ bytes, inodes int64 }{{0, 1 << 20}, {1 << 30, 0}, {1, 1}, {2, 2}} {
			b := l.begin(t)
			bytes, inodes := b.u.Usage()
			b.end()
			tight := *l.v
			tight.opt.Size, tight.opt.Inodes = bytes+room.bytes<<12, inodes+room.inodes
			tightLab := *l
			tightLab.v = &tight
			b = tightLab.begin(t)
			cases++
			err := l.op(b.u)
			if err != nil {
				refused++
			}
			if used, objects := b.u.Usage(); used > tight.opt.Size || objects > tight.opt.Inodes {
				t.Errorf("%d bytes of %d and %d objects of %d are used", used, tight.opt.Size, objects, tight.opt.Inodes)
			}
			b.lab = l
			if err == nil {
				b.want(l.after, b.show(), "the op worked")
			} else if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("with room for %d bytes and %d objects: %v, want ENOSPC", room.bytes<<12, room.inodes, err)
			} else {
				b.clock.dirsNow = true
				b.wantOld(b.show(), err)
			}
			b.end()
		}
	})
	t.Logf("%d cases, %d refused", cases, refused)
	if refused == 0 {
		t.Error("no change was refused: this tests nothing")
	}
}

// retried checks the tree after an op that may have failed for lack of space,
// and that it works when there is some.
func (b *bench) retried(err error) {
	b.t.Helper()
	b.clock.dirsNow = true
	if err != nil {
		if !errors.Is(err, unix.ENOSPC) {
			b.t.Errorf("on a full disk: %v, want ENOSPC", err)
		}
		b.wantOld(b.show(), err)
		if err := b.op(b.u); err != nil {
			b.t.Fatalf("with space again: %v", err)
		}
	}
	b.want(b.after, b.show(), "with space again")
	b.end()
	b.want(b.after, b.remounted(b.d), "remounted")
}

// TestRemovedFilesMakeRoom is the life of a container with size= and inodes=:
// what it removes it can make again.
func TestRemovedFilesMakeRoom(t *testing.T) {
	s := &scenario{opt: func(o *union.Options) { o.Size, o.Inodes = 256<<10, 40 }}
	d := s.disks(variants[0])
	u := s.mustMount(t, variants[0], d)
	large := make([]byte, 100<<10)
	fill := func(path string) error {
		return seq(create(path, 0o600, 0), write(path, string(large), 0))(u)
	}
	if err := seq(func(*tree) error { return fill("a") })(u); err != nil {
		t.Fatal(err)
	}
	bytes, inodes := u.Usage()
	for k := range 50 { // much more than the limits in all
		if err := fill("b"); err != nil {
			t.Fatalf("round %d: %v", k, err)
		}
		if err := fill("c"); errnoOf(err) != unix.ENOSPC {
			t.Fatalf("round %d: a third file of 100 KiB in 256 KiB: %v, want ENOSPC", k, err)
		}
		ops := []op{
			seq(unlink("b"), unlink("c")),
			seq(rename("own", "b", 0), create("own", 0o644, 0), unlink("b"), unlink("c")),
			seq(truncate("b", 0), unlink("b"), unlink("c")),
			seq(link("b", "b2"), unlink("b"), unlink("c"), unlink("b2")),
			seq(mkdir("dir/sub/n", 0o755, 0), rename("b", "dir/sub/n/b", 0), unlink("dir/sub/n/b"), rmdir("dir/sub/n"), unlink("c")),
		}
		if err := ops[k%len(ops)](u); err != nil {
			t.Fatalf("round %d: %v", k, err)
		}
	}
	// A file in use goes on counting.
	if err := fill("b"); err != nil {
		t.Fatal(err)
	}
	n, _, err := u.Lookup(u.Root(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := unlink("b")(u); err != nil {
		t.Fatal(err)
	}
	if err := fill("c"); errnoOf(err) != unix.ENOSPC {
		t.Errorf("while a removed file is in use: %v, want ENOSPC", err)
	}
	u.Forget(n, 1)
	if err := seq(unlink("c"), func(*tree) error { return fill("c") }, unlink("c"))(u); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	bytes2, inodes2 := u.Usage()
	u.unmount(t, d)
	u = s.mustMount(t, variants[0], d)
	bytes3, inodes3 := u.Usage()
	if bytes2 != bytes3 || inodes2 != inodes3 {
		t.Errorf("counted %d bytes and %d objects, the next mount counts %d and %d", bytes2, inodes2, bytes3, inodes3)
	}
	if bytes2 > bytes+3*4096 || inodes2 > inodes+3 {
		t.Errorf("%d bytes and %d objects are left of what was removed", bytes2-bytes, inodes2-inodes)
	}
	u.unmount(t, d)
}

// TestReadingFailsOrShowsTheTree lets each call of a walk through the tree fail
// in turn. A failure must not pass for an absent name or mark, and it must not
// be remembered: the next walk shows everything.
func TestReadingFailsOrShowsTheTree(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			s := &scenario{opt: index, prep: seq(unlink("low"), chmod("h1", 0o600), unlink("h2"), rmdir("void"), create("void", 0o600, 0),
				chmod("dir/sub/z", 0o600), unlink("dir/x"), rename("f", "dir/f", 0))}
			l := &lab{scenario: s, v: v}
			b := l.begin(t)
			want := b.show()
			l.known = want.identity()
			b.end()
			calls := 0
			for n := 1; ; n++ {
				if !sampled(n) {
					continue
				}
				errno := faults[n/6%len(faults)]
				u := s.mustMount(t, v, b.d)
				var failed memlayer.Call
				hook := memlayer.FailNth(n, errno)
				b.d.each(func(fs *memlayer.FS) {
					fs.OnCall(func(c memlayer.Call) error {
						err := hook(c)
						if err != nil {
							failed = c
						}
						return err
					})
				})
				got, err := show(u, l.known, "low", "absent", "z")
				b.quiet()
				b.u, b.failed, b.errno = u, failed, errno
				switch {
				case failed.Op == "Handle" && errno == unix.EPERM: // where handles are not permitted there is no index
				case err == nil:
					if diff := b.differ(want, got); diff != "" {
						t.Errorf("%v fails with %v, but the walk shows:%s", failed, errno, diff)
					}
				case errnoOf(err) != errno:
					t.Errorf("%v: the error is %v, want %v", failed, err, errno)
				}
				b.want(want, b.show(), "the walk after it")
				u.unmount(t, b.d)
				if failed.Op == "" {
					break // all calls have had their turn
				}
				calls = n
			}
			if calls < 100 {
				t.Errorf("%d calls can fail: this tests nothing", calls)
			}
		})
	}
}
