package dataset_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

func TestSparseFile(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", ""))
	m.must(m.write("f", 100*testRecord+10, "data"))
	a := m.stat("f")
	m.equal(a.Size, 100*testRecord+14)
	m.equal(a.Blocks, testRecord/512)
	n := m.at("f")
	defer m.Forget(n, 1)
	seek := func(off int64, whence int) int64 {
		at, err := m.Seek(n, off, whence)
		m.must(err)
		return at
	}
	m.equal(seek(0, unix.SEEK_DATA), 100*testRecord)
	m.equal(seek(100*testRecord+5, unix.SEEK_DATA), 100*testRecord+5)
	m.equal(seek(0, unix.SEEK_HOLE), 0)
	m.equal(seek(100*testRecord, unix.SEEK_HOLE), a.Size)
	_, err := m.Seek(n, a.Size, unix.SEEK_DATA)
	m.want(unix.ENXIO, err)
	m.must(m.truncate("f", 200*testRecord))
	_, err = m.Seek(n, 101*testRecord, unix.SEEK_DATA)
	m.want(unix.ENXIO, err)
	m.equal(seek(101*testRecord, unix.SEEK_HOLE), 101*testRecord)
	m.equal(strings.Trim(m.read("f"), "\x00"), "data")
}

// TestBlocksAreCountedWhateverIsKnown writes, to a file in use that has holes, what was
// just taken out of it.
func TestBlocksAreCountedWhateverIsKnown(t *testing.T) {
	for name, remove := range map[string]func(m *mount, n *dataset.Node) error{
		"punch":    func(m *mount, n *dataset.Node) error { return m.Fallocate(n, 3, 5*testRecord, testRecord, false) },
		"collapse": func(m *mount, n *dataset.Node) error { return m.Fallocate(n, 8, 5*testRecord, testRecord, false) },
		"insert":   func(m *mount, n *dataset.Node) error { return m.Fallocate(n, 32, 5*testRecord, testRecord, false) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t, dataset.Options{})
			m.must(m.create("f", ""))
			n := m.at("f")
			defer m.Forget(n, 1)
			m.must(m.truncate("f", 20*testRecord))
			m.must(m.write("f", 5*testRecord, "x"))
			m.must(remove(m, n))
			m.must(m.write("f", 5*testRecord, "y"))
			m.check(m.tree)
		})
	}
}

func TestTruncatedBytesAreZerosWhenTheFileGrows(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", text(3*testRecord, 1)))
	m.must(m.truncate("f", testRecord+100))
	m.check(m.tree)
	m.must(m.truncate("f", 3*testRecord))
	m.equal(m.read("f") == text(3*testRecord, 1)[:testRecord+100]+strings.Repeat("\x00", 2*testRecord-100), true)
	m.want(unix.EFBIG, m.truncate("f", farAway))
	m.want(unix.EISDIR, m.truncate("", 0))
}

// TestCrashWhileAHugeFileIsCut crashes after each piece of it.
func TestCrashWhileAHugeFileIsCut(t *testing.T) {
	m := newMount(t, dataset.Options{})
	const records = 20000
	m.must(m.create("f", text(records*testRecord, 1)))
	before := m.tree.Steps()
	m.must(m.truncate("f", 100))
	m.equal(m.stat("f").Blocks, 8)
	after := m.tree.Steps()
	if after-before < 4 {
		t.Fatalf("it took %d batches", after-before)
	}
	whole := m.tree
	for i := before; i <= after; i++ {
		m.remount(whole.Crash(i))
		if i == before {
			m.equal(m.stat("f").Size, records*testRecord)
			continue
		}
		m.equal(m.read("f"), text(100, 1))
		m.check(m.tree)
		m.must(m.truncate("f", 2*testRecord))
		m.equal(m.read("f"), text(100, 1)+strings.Repeat("\x00", 2*testRecord-100))
	}
}

// TestFileWhoseRestCouldNotGoDoesNotShowItAgain cuts a huge file while the records
// behind its new size cannot be removed: the file must not grow into them.
func TestFileWhoseRestCouldNotGoDoesNotShowItAgain(t *testing.T) {
	m := newMount(t, dataset.Options{})
	const records = 8300
	m.must(m.create("f", text(records*testRecord, 1)))
	m.must(m.create("g", "source"))
	first := m.tree.Steps() + 1
	m.tree.Before(func(n int, b *blockpool.Batch) error {
		if n > first && len(b.Zeros) > 0 {
			return memtree.ErrFailed
		}
		return nil
	})
	m.must(m.truncate("f", 100))
	m.equal(m.read("f"), text(100, 1))
	grow := []func() error{
		func() error { return m.truncate("f", 9000) },
		func() error { return m.write("f", 9000, "x") },
		func() error {
			return m.on("f", func(n *dataset.Node) error { return m.Fallocate(n, 0, 0, 9000, false) })
		},
		func() error {
			return m.on("g", func(src *dataset.Node) error {
				return m.on("f", func(dst *dataset.Node) error {
					_, err := m.CopyRange(src, dst, 0, 9000, 5, false)
					return err
				})
			})
		},
	}
	for _, f := range grow {
		m.want(unix.EIO, f())
	}
	m.equal(m.read("f"), text(100, 1))
	stuck := m.tree.Crash(m.tree.Steps())
	m.tree.Before(nil)
	for _, f := range grow {
		m.remount(stuck.Clone("stuck", 7))
		m.must(f())
		m.equal(strings.Trim(m.read("f")[100:], "\x00xsource"), "")
		m.check(m.tree)
	}
}

func TestFallocate(t *testing.T) {
	const r = testRecord
	content := text(10*r+100, 1)
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	for _, c := range []struct {
		name        string
		mode        uint32
		off, length int64
		want        string
		err         unix.Errno
	}{
		{"allocate", 0, 5, 100, content, 0},
		{"extend", 0, 10 * r, 2 * r, content + zeros(2*r-100), 0},
		{"keep size", unix.FALLOC_FL_KEEP_SIZE, 10 * r, 2 * r, content, 0},
		{"unshare", unix.FALLOC_FL_UNSHARE_RANGE, 0, r, content, 0},
		{"punch", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 100, 3 * r, content[:100] + zeros(3*r) + content[3*r+100:], 0},
		{"punch within", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 100, 50, content[:100] + zeros(50) + content[150:], 0},
		{"punch the end", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 9 * r, 5 * r, content[:9*r] + zeros(r+100), 0},
		{"punch behind", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 20 * r, 5 * r, content, 0},
		{"punch and grow", unix.FALLOC_FL_PUNCH_HOLE, 0, r, content, unix.EOPNOTSUPP},
		{"zero", unix.FALLOC_FL_ZERO_RANGE, 10 * r, r, content[:10*r] + zeros(r), 0},
		{"zero, keep size", unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, 10 * r, r, content[:10*r] + zeros(100), 0},
		{"collapse", unix.FALLOC_FL_COLLAPSE_RANGE, r, 2 * r, content[:r] + content[3*r:], 0},
		{"collapse the end", unix.FALLOC_FL_COLLAPSE_RANGE, 9 * r, 2 * r, content, unix.EINVAL},
		{"collapse odd", unix.FALLOC_FL_COLLAPSE_RANGE, 1, r, content, unix.EINVAL},
		{"insert", unix.FALLOC_FL_INSERT_RANGE, r, 2 * r, content[:r] + zeros(2*r) + content[r:], 0},
		{"insert at the end", unix.FALLOC_FL_INSERT_RANGE, 11 * r, r, content, unix.EINVAL},
		{"both", unix.FALLOC_FL_COLLAPSE_RANGE | unix.FALLOC_FL_INSERT_RANGE, 0, r, content, unix.EINVAL},
		{"unknown", 1 << 20, 0, r, content, unix.EOPNOTSUPP},
		{"nothing", 0, 0, 0, content, unix.EINVAL},
		{"negative", 0, -1, 5, content, unix.EINVAL},
		{"too far", 0, 0, farAway, content, unix.EFBIG},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t, dataset.Options{})
			m.must(m.create("f", content))
			err := m.on("f", func(n *dataset.Node) error { return m.Fallocate(n, c.mode, c.off, c.length, false) })
			if c.err != 0 {
				m.want(c.err, err)
			} else {
				m.must(err)
			}
			if m.read("f") != c.want {
				t.Error("the content is another one")
			}
			m.remount(m.tree)
			if m.read("f") != c.want {
				t.Error("the content is another one after remounting")
			}
		})
	}
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", ""))
	m.tree.SetRoom(100 * r)
	fallocate := func(n int64) error {
		return m.on("f", func(f *dataset.Node) error { return m.Fallocate(f, 0, 0, n, false) })
	}
	m.must(fallocate(100 * r))
	m.want(unix.ENOSPC, fallocate(101*r))
}

func TestCopyRangeSharesWholeRecords(t *testing.T) {
	m := newMount(t, dataset.Options{})
	content := text(1<<20+5000, 1)
	copyRange := func(from, to string, off, at int64, n int) (done int, err error) {
		err = m.on(from, func(src *dataset.Node) error {
			return m.on(to, func(dst *dataset.Node) error {
				done, err = m.CopyRange(src, dst, off, at, n, false)
				return err
			})
		})
		return done, err
	}
	m.must(m.create("a", content))
	m.must(m.create("b", ""))
	n, err := copyRange("a", "b", 0, 0, 1<<30)
	m.must(err)
	m.equal(n, len(content))
	m.equal(m.read("b") == content, true)
	m.equal(m.Stats().Shared.Load(), len(content))
	m.equal(m.stat("b").Blocks, m.stat("a").Blocks)
	m.check(m.tree)

	m.must(m.write("b", 0, "other"))
	m.equal(m.read("a") == content, true)

	// Within a file, not on the borders of records, over what is there.
	n, err = copyRange("a", "a", 100, 100+512<<10, 400<<10)
	m.must(err)
	m.equal(n, 400<<10)
	at := 100 + 512<<10
	m.equal(m.read("a") == content[:at]+content[100:100+400<<10]+content[at+400<<10:], true)
	_, err = copyRange("a", "a", 0, 10, 100)
	m.want(unix.EINVAL, err)
	n, err = copyRange("a", "b", 1<<30, 0, 10)
	m.must(err)
	m.equal(n, 0)

	// Holes stay holes.
	m.must(m.create("sparse", ""))
	m.must(m.write("sparse", 3<<20+1, "x"))
	m.must(m.truncate("sparse", 4<<20))
	m.must(m.create("dense", text(4<<20, 2)))
	for _, off := range []int64{0, 1} {
		n, err = copyRange("sparse", "dense", off, 0, 4<<20)
		m.must(err)
		m.equal(n, 4<<20-off)
		want := m.read("sparse")[off:] + text(4<<20, 2)[4<<20-off:]
		if off == 1 {
			want = m.read("sparse")[off:] + "\x00"
		}
		m.equal(m.read("dense") == want, true)
		m.check(m.tree)
	}
}

func TestWritingTakesPrivileges(t *testing.T) {
	m := newMount(t, dataset.Options{})
	for _, c := range []struct {
		what    string
		do      func(n *dataset.Node) error
		mode    uint32
		keepCap bool
	}{
		{"write by the owner", func(n *dataset.Node) error { _, err := m.Write(n, []byte("x"), 0, false); return err }, 0o6755, false},
		{"write", func(n *dataset.Node) error { _, err := m.Write(n, []byte("x"), 0, true); return err }, 0o755, false},
		{"truncate", func(n *dataset.Node) error {
			size := int64(0)
			_, err := m.SetAttr(n, dataset.Change{Size: &size, KillPriv: true})
			return err
		}, 0o755, false},
		{"chown", func(n *dataset.Node) error {
			uid := uint32(5)
			_, err := m.SetAttr(n, dataset.Change{UID: &uid})
			return err
		}, 0o755, false},
		{"fallocate", func(n *dataset.Node) error { return m.Fallocate(n, 0, 0, 10, true) }, 0o755, false},
		{"copy", func(n *dataset.Node) error {
			return m.on("source", func(src *dataset.Node) error {
				_, err := m.CopyRange(src, n, 0, 0, 10, true)
				return err
			})
		}, 0o755, false},
		{"chmod", func(n *dataset.Node) error {
			mode := uint32(0o4711)
			_, err := m.SetAttr(n, dataset.Change{Mode: &mode})
			return err
		}, 0o4711, true},
	} {
		m.must(m.create("source", "0123456789"))
		m.must(m.create("f", "y"))
		m.must(m.chmod("f", 0o6755))
		m.must(m.setxattr("f", "security.capability", "caps"))
		m.must(m.on("f", c.do))
		if mode := m.stat("f").Mode & 0o7777; mode != c.mode {
			t.Errorf("%s leaves mode %o, want %o", c.what, mode, c.mode)
		}
		if _, err := m.getxattr("f", "security.capability"); (err == nil) != c.keepCap {
			t.Errorf("%s: capabilities: %v", c.what, err)
		}
		m.must(m.unlink("f"))
		m.must(m.unlink("source"))
	}
}

func TestFlagsOfChattr(t *testing.T) {
	m := newMount(t, dataset.Options{})
	const immutable, appendOnly = unix.STATX_ATTR_IMMUTABLE, unix.STATX_ATTR_APPEND
	m.must(m.create("f", "0123"))
	m.must(m.mkdir("d"))
	m.must(m.create("d/x", ""))
	m.must(m.mkdir("d/full"))
	m.must(m.create("d/full/x", ""))
	flag := func(path string, flags uint32) {
		t.Helper()
		m.must(m.on(path, func(n *dataset.Node) error { return m.SetFlags(n, flags) }))
	}
	flag("f", immutable)
	for _, err := range []error{
		m.write("f", 4, "x"), m.truncate("f", 0), m.chmod("f", 0), m.link("f", "g"), m.unlink("f"), m.rename("f", "g", 0),
		m.setxattr("f", "user.a", "x"), m.rename("d/x", "f", 0),
	} {
		m.want(unix.EPERM, err)
	}
	flag("f", appendOnly)
	m.must(m.write("f", 4, "45"))
	m.must(m.write("f", 2, "23456")) // what write-back sends begins in the file
	m.want(unix.EPERM, m.write("f", 2, "xx"))
	m.want(unix.EPERM, m.write("f", 9, "x"))
	m.want(unix.EPERM, m.truncate("f", 0))
	m.want(unix.EPERM, m.unlink("f"))
	m.equal(m.read("f"), "0123456")
	now := dataset.Time{Nsec: unix.UTIME_NOW}
	m.must(m.on("f", func(n *dataset.Node) error {
		_, err := m.SetAttr(n, dataset.Change{Atime: &now, Mtime: &now})
		return err
	}))
	flag("f", 0)
	flag("d", immutable)
	m.want(unix.EPERM, m.create("d/y", ""))
	m.want(unix.EPERM, m.unlink("d/x"))
	m.want(unix.EPERM, m.rmdir("d/full")) // not what else is in the way
	m.want(unix.EPERM, m.rename("d/x", "y", 0))
	m.want(unix.EPERM, m.rename("f", "d/y", 0))
	flag("d", appendOnly)
	m.must(m.create("d/y", ""))
	m.want(unix.EPERM, m.unlink("d/y"))
	flag("d", 0x40|0x80)
	m.must(m.mkdir("d/sub"))
	flags, err := m.Flags(m.at("d/sub"))
	m.must(err)
	m.equal(flags, 0x40|0x80)
	m.want(unix.EOPNOTSUPP, m.on("f", func(n *dataset.Node) error { return m.SetFlags(n, 0x4) }))
	m.must(m.symlink("f", "s"))
	m.want(unix.ENOTTY, m.on("s", func(n *dataset.Node) error { return m.SetFlags(n, 0) }))
}

func TestAccessTime(t *testing.T) {
	m := newMount(t, dataset.Options{Atime: true})
	m.must(m.create("f", "x"))
	old := dataset.Time{Sec: 5, Nsec: 7}
	set := func(c dataset.Change) {
		m.must(m.on("f", func(n *dataset.Node) error { _, err := m.SetAttr(n, c); return err }))
	}
	set(dataset.Change{Atime: &old})
	m.read("f")
	first := m.stat("f").Atime
	if first == old {
		t.Fatal("a read leaves the access time")
	}
	m.read("f")
	m.equal(m.stat("f").Atime, first) // relatime
	m.must(m.on("f", func(n *dataset.Node) error { return m.SetFlags(n, 0x80) }))
	set(dataset.Change{Atime: &old})
	m.read("f")
	m.equal(m.stat("f").Atime, old)
	before := dataset.Time{Sec: -1 << 35, Nsec: 999999999}
	set(dataset.Change{Atime: &before, Mtime: &dataset.Time{Nsec: unix.UTIME_OMIT}})
	m.remount(m.tree)
	m.equal(m.stat("f").Atime, before)
}

func TestFullPoolRefusesWritesAndLetsRemove(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.tree.SetRoom(100 * testRecord)
	m.must(m.create("f", text(60*testRecord, 1)))
	m.want(unix.ENOSPC, m.create("g", text(60*testRecord, 2)))
	m.equal(m.read("g"), "")
	m.must(m.unlink("f"))
	m.must(m.write("g", 0, text(60*testRecord, 2))) // as soon as the other one is reclaimed
	st, err := m.Statfs()
	m.must(err)
	m.equal([]uint64{st.Blocks, st.Bfree}, []uint64{100, 40})
}

// A live mount becomes read-only and writable again, and reads move access times as its
// options say by then.
func TestOptionsOfALiveMount(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	m := newMount(t, dataset.Options{ReadOnly: true, Now: func() time.Time { return now }})
	m.want(unix.EROFS, m.create("f", ""))
	m.must(m.SetOptions(dataset.Options{}))
	m.must(m.create("f", "text"))
	m.must(m.create("g", "text"))
	m.must(m.SetOptions(dataset.Options{ReadOnly: true}))
	m.want(unix.EROFS, m.create("h", ""))
	m.want(unix.EROFS, m.write("f", 0, "x"))
	m.want(unix.EROFS, m.unlink("f"))
	m.must(m.SetOptions(dataset.Options{MaxInodes: 4}))
	m.must(m.create("h", ""))
	m.want(unix.EDQUOT, m.create("i", ""))

	for _, c := range []struct {
		o     dataset.Options
		moves bool
	}{{dataset.Options{}, false}, {dataset.Options{Atime: true}, false}, {dataset.Options{Atime: true, StrictAtime: true}, true}} {
		m.must(m.SetOptions(dataset.Options{Atime: true}))
		now = now.Add(time.Minute)
		m.read("f") // after its last change: a further one within a day moves nothing
		before := m.stat("f").Atime
		m.must(m.SetOptions(c.o))
		now = now.Add(time.Minute)
		m.read("f")
		m.equal(m.stat("f").Atime != before, c.moves)
	}
}
