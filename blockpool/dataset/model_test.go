package dataset_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
)

// A world is where the dataset of a model lies.
type world interface {
	open() dataset.Tree
	// snapshot takes one and returns what opens it.
	snapshot() func() dataset.Differ
	// crash ends the process or the machine after one of these steps, and returns
	// which.
	crash(rng *rand.Rand, among []int) int
	// steps returns how many batches there were.
	steps() int
}

// A model does random things to a dataset and knows what must come out.
type model struct {
	testing.TB
	world world
	rng   *rand.Rand
	fs    *dataset.FS
	opt   dataset.Options
	root  *thing
	unit  int // size of records
	open  []opened
	past  []moment
	snaps []taken
	log   []string
}

// opened is a file that is in use, with or without a name.
type opened struct {
	node *dataset.Node
	t    *thing
}

// A moment is what the model was after a step.
type moment struct {
	steps int
	root  *thing
	multi bool // it took several batches
}

type taken struct {
	open func() dataset.Differ
	want string
}

func (m *model) mount() {
	tree := m.world.open()
	m.unit = tree.RecordSize()
	fs, err := dataset.New(tree, m.opt)
	if err != nil {
		m.Fatal(err)
	}
	m.fs, m.open = fs, nil
}

func runModel(t testing.TB, w world, o dataset.Options, seed uint64, steps int) {
	m := &model{TB: t, world: w, opt: o, rng: rand.New(rand.NewPCG(seed, 1)), root: newThing(unix.S_IFDIR, 0o755)}
	m.root.uid, m.root.gid = 0, 0
	m.mount()
	m.remember(false)
	for range steps {
		if err := m.step(); err != nil {
			t.Fatalf("seed %d: %v\nafter\n%s", seed, err, strings.Join(m.log, "\n"))
		}
	}
	if err := m.compare(); err != nil {
		t.Fatalf("seed %d: %v\nafter\n%s", seed, err, strings.Join(m.log, "\n"))
	}
	m.fs.Close()
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
	if len(m.log) > 40 {
		m.log = m.log[1:]
	}
}

// remember keeps what a crash may go back to.
func (m *model) remember(multi bool) {
	m.past = append(m.past, moment{m.world.steps(), copyTree(m.root), multi})
	if len(m.past) > 30 {
		m.past = m.past[1:]
	}
}

// step does one random thing.
func (m *model) step() error {
	multi := false
	var err error
	switch k := m.rng.IntN(1000); {
	case k < 180:
		err = m.make()
	case k < 230:
		err = m.link()
	case k < 330:
		err = m.remove()
	case k < 450:
		err = m.rename()
	case k < 620:
		err = m.change()
	case k < 660:
		multi = true
		err = m.copyRange()
	case k < 740:
		err = m.attributes()
	case k < 800:
		err = m.xattr()
	case k < 860:
		err = m.use()
	case k < 900:
		m.note("fsync")
		err = m.fs.Fsync(m.fs.Root(), false)
	case k < 925:
		return m.compare()
	case k < 940:
		return m.takeSnapshot()
	case k < 960:
		m.note("remount")
		m.fs.Close()
		m.mount()
	case k < 985:
		return m.crash()
	default:
		return m.check()
	}
	m.remember(multi)
	return err
}

// same compares an error with the one that must come.
func same(got error, want syscall.Errno) error {
	if want == 0 && got == nil || want != 0 && errors.Is(got, want) {
		return nil
	}
	return fmt.Errorf("error is %v, want %v", got, want)
}

// anywhere returns a random directory, with its path.
func (m *model) anywhere() (*thing, string) {
	t, path := m.root, ""
	for m.rng.IntN(3) > 0 {
		var dirs []string
		for i := range modelNames {
			if c := t.names[nameOf(i)]; c != nil && c.isDir() {
				dirs = append(dirs, nameOf(i))
			}
		}
		if len(dirs) == 0 {
			break
		}
		name := dirs[m.rng.IntN(len(dirs))]
		t = t.names[name]
		path += "/" + name
	}
	return t, strings.TrimPrefix(path, "/")
}

const modelNames = 7

func nameOf(i int) string { return string(rune('a' + i)) }

// place returns a random name in a random directory: its directory, the path of
// that, the name.
func (m *model) place() (*thing, string, string) {
	d, path := m.anywhere()
	return d, path, nameOf(m.rng.IntN(modelNames))
}

// object returns a random object that there is, and its path.
func (m *model) object(ok func(*thing) bool) (*thing, string) {
	for range 20 {
		d, path, name := m.place()
		if t := d.names[name]; t != nil && ok(t) {
			return t, strings.TrimPrefix(path+"/"+name, "/")
		}
	}
	return nil, ""
}

func isFile(t *thing) bool { return t.typ == unix.S_IFREG }
func isAny(*thing) bool    { return true }

// helper returns the mount for its path functions.
func (m *model) at() *mount { return &mount{TB: m.TB, FS: m.fs} }

func (m *model) make() error {
	d, dir, name := m.place()
	kind := m.rng.IntN(10)
	perm := uint32(m.rng.IntN(0o1000))
	m.note("make %s/%s %d", dir, name, kind)
	t := newThing(unix.S_IFREG, perm&^0o022)
	want := syscall.Errno(0)
	if d.names[name] != nil {
		want = unix.EEXIST
	}
	var node *dataset.Node
	err := m.at().on(dir, func(p *dataset.Node) (err error) {
		switch {
		case kind < 4:
			node, _, err = m.fs.Create(p, name, perm, me)
		case kind < 7:
			t = newThing(unix.S_IFDIR, perm&^0o022)
			node, _, err = m.fs.Mkdir(p, name, perm, me)
		case kind < 8:
			t = newThing(unix.S_IFLNK, 0o777)
			t.target = strings.Repeat("t", 1+m.rng.IntN(2000))
			node, _, err = m.fs.Symlink(p, name, t.target, me)
		case kind < 9:
			t = newThing(unix.S_IFCHR, perm&^0o022)
			t.rdev = uint64(m.rng.IntN(1000))
			node, _, err = m.fs.Mknod(p, name, unix.S_IFCHR|perm, t.rdev, me)
		default:
			t.links = 0
			node, _, err = m.fs.Tmpfile(p, perm, me)
			if err == nil && m.rng.IntN(2) == 0 {
				m.open = append(m.open, opened{node, t})
				want, node = 0, nil
				return nil
			}
			if err == nil {
				_, err = m.fs.Link(node, p, name)
				if err == nil {
					m.fs.Forget(node, 1)
					t.links = 1
				} else {
					m.fs.Forget(node, 1)
					node = nil
				}
			}
		}
		return err
	})
	if e := same(err, want); e != nil || node == nil {
		return e
	}
	d.enter(name, t)
	if isFile(t) && m.rng.IntN(3) == 0 {
		m.open = append(m.open, opened{node, t})
	} else {
		m.fs.Forget(node, 1)
	}
	return nil
}

func (m *model) link() error {
	t, old := m.object(isAny)
	if t == nil {
		return nil
	}
	d, dir, name := m.place()
	m.note("link %s %s/%s", old, dir, name)
	want := syscall.Errno(0)
	switch {
	case t.isDir():
		want = unix.EPERM
	case d.names[name] != nil:
		want = unix.EEXIST
	}
	if err := same(m.at().link(old, strings.TrimPrefix(dir+"/"+name, "/")), want); err != nil || want != 0 {
		return err
	}
	d.enter(name, t)
	t.links++
	return nil
}

func (m *model) remove() error {
	d, dir, name := m.place()
	path := strings.TrimPrefix(dir+"/"+name, "/")
	t := d.names[name]
	want := syscall.Errno(0)
	rmdir := m.rng.IntN(2) == 0
	if t != nil && m.rng.IntN(4) > 0 {
		rmdir = t.isDir()
	}
	m.note("remove %s, directory: %v", path, rmdir)
	switch {
	case t == nil:
		want = unix.ENOENT
	case t.isDir() && !rmdir:
		want = unix.EISDIR
	case !t.isDir() && rmdir:
		want = unix.ENOTDIR
	case len(t.names) > 0:
		want = unix.ENOTEMPTY
	}
	var err error
	if rmdir {
		err = m.at().rmdir(path)
	} else {
		err = m.at().unlink(path)
	}
	if e := same(err, want); e != nil || want != 0 {
		return e
	}
	d.leave(name)
	t.unname()
	return nil
}

func (m *model) rename() error {
	sd, sdir, sname := m.place()
	dd, ddir, dname := m.place()
	if m.rng.IntN(3) == 0 {
		dd, ddir = sd, sdir
	}
	flags := []uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT}[m.rng.IntN(6)]
	from, to := strings.TrimPrefix(sdir+"/"+sname, "/"), strings.TrimPrefix(ddir+"/"+dname, "/")
	m.note("rename %s %s %d", from, to, flags)
	want, nothing := m.renamed(sd, sname, dd, dname, flags)
	if err := same(m.at().rename(from, to, flags), want); err != nil || want != 0 || nothing {
		return err
	}
	src, dst := sd.names[sname], dd.names[dname]
	sd.leave(sname)
	if dst != nil {
		dd.leave(dname)
	}
	dd.enter(dname, src)
	switch {
	case flags == unix.RENAME_EXCHANGE:
		sd.enter(sname, dst)
	case dst != nil:
		dst.unname()
	}
	if flags == unix.RENAME_WHITEOUT {
		w := newThing(unix.S_IFCHR, 0)
		w.uid, w.gid = 0, 0
		sd.enter(sname, w)
	}
	return nil
}

// renamed returns the error that a rename must give, and whether it does nothing.
func (m *model) renamed(sd *thing, sname string, dd *thing, dname string, flags uint) (want syscall.Errno, nothing bool) {
	src, dst := sd.names[sname], dd.names[dname]
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case src == nil, dst == nil && exchange:
		return unix.ENOENT, false
	case src.isDir() && dd.within(src):
		return unix.EINVAL, false
	case dst != nil && dst.isDir() && sd.within(dst) && exchange:
		return unix.EINVAL, false
	case dst != nil && dst.isDir() && sd.within(dst) && (src.isDir() || dst == sd):
		return unix.ENOTEMPTY, false
	case dst != nil && flags == unix.RENAME_NOREPLACE:
		return unix.EEXIST, false
	case src == dst:
		return 0, true
	case dst == nil || exchange:
		return 0, false
	case src.isDir() && !dst.isDir():
		return unix.ENOTDIR, false
	case !src.isDir() && dst.isDir():
		return unix.EISDIR, false
	case len(dst.names) > 0:
		return unix.ENOTEMPTY, false
	}
	return 0, false
}

// file calls f with a random file, by a name or in use.
func (m *model) file(f func(n *dataset.Node, t *thing) error) error {
	if len(m.open) > 0 && m.rng.IntN(2) == 0 {
		o := m.open[m.rng.IntN(len(m.open))]
		m.note("  in use, %d links", o.t.links)
		return f(o.node, o.t)
	}
	t, path := m.object(isFile)
	if t == nil {
		return nil
	}
	m.note("  %s", path)
	return m.at().on(path, func(n *dataset.Node) error { return f(n, t) })
}

// maxFile is how far into a file most things are done.
func (m *model) maxFile() int { return max(60000, 4*m.unit) }

// change changes the content of a file.
func (m *model) change() error {
	return m.file(func(n *dataset.Node, t *thing) error {
		off, k := m.rng.IntN(m.maxFile()), 1+m.rng.IntN(max(10000, 2*m.unit))
		if m.rng.IntN(2) == 0 {
			off, k = off/m.unit*m.unit, (k+m.unit-1)/m.unit*m.unit
		}
		if m.rng.IntN(4) == 0 {
			off = len(t.data)
		}
		zeros := strings.Repeat("\x00", k)
		punch := func() string { return zeros[:max(0, min(off+k, len(t.data))-off)] }
		switch m.rng.IntN(10) {
		case 0:
			size := int64(off)
			m.note("truncate %d", off)
			t.truncate(off)
			_, err := m.fs.SetAttr(n, dataset.Change{Size: &size})
			return err
		case 1:
			m.note("punch %d+%d", off, k)
			if p := punch(); p != "" {
				t.write(p, off)
			}
			return m.fs.Fallocate(n, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(k), false)
		case 2:
			m.note("zero %d+%d", off, k)
			t.write(zeros, off)
			return m.fs.Fallocate(n, unix.FALLOC_FL_ZERO_RANGE, int64(off), int64(k), false)
		case 3:
			m.note("allocate %d+%d", off, k)
			t.truncate(max(len(t.data), off+k))
			return m.fs.Fallocate(n, 0, int64(off), int64(k), false)
		case 4:
			off, k = off/m.unit*m.unit, (k+m.unit-1)/m.unit*m.unit
			mode, want := uint32(unix.FALLOC_FL_COLLAPSE_RANGE), syscall.Errno(0)
			if m.rng.IntN(2) == 0 {
				mode = unix.FALLOC_FL_INSERT_RANGE
			}
			m.note("collapse or insert, %d: %d+%d", mode, off, k)
			old := string(t.data)
			switch {
			case mode == unix.FALLOC_FL_COLLAPSE_RANGE && off+k >= len(old), off >= len(old):
				want = unix.EINVAL
			case mode == unix.FALLOC_FL_COLLAPSE_RANGE:
				t.data = []byte(old[:off] + old[off+k:])
			default:
				t.data = []byte(old[:off] + strings.Repeat("\x00", k) + old[off:])
			}
			return same(m.fs.Fallocate(n, mode, int64(off), int64(k), false), want)
		case 5:
			got := make([]byte, k)
			r, err := m.fs.Read(n, got, int64(off))
			want := ""
			if off < len(t.data) {
				want = string(t.data[off:min(off+k, len(t.data))])
			}
			if err == nil && string(got[:r]) != want {
				err = fmt.Errorf("read %d+%d gives other %d bytes than it should", off, k, r)
			}
			return err
		}
		m.note("write %d+%d", off, k)
		p := text(k, m.rng.Uint64())
		t.write(p, off)
		_, err := m.fs.Write(n, []byte(p), int64(off), false)
		return err
	})
}

func (m *model) copyRange() error {
	return m.file(func(src *dataset.Node, s *thing) error {
		return m.file(func(dst *dataset.Node, d *thing) error {
			from, to, k := m.rng.IntN(m.maxFile()), m.rng.IntN(m.maxFile()), m.rng.IntN(2*m.maxFile())
			if m.rng.IntN(2) == 0 {
				from, to = from/m.unit*m.unit, to/m.unit*m.unit
			}
			m.note("copy %d to %d, %d", from, to, k)
			n := min(k, max(0, len(s.data)-from))
			want := syscall.Errno(0)
			if s == d && from < to+n && to < from+n {
				want, n = unix.EINVAL, 0
			}
			if n > 0 {
				d.write(string(s.data[from:from+n]), to)
			}
			done, err := m.fs.CopyRange(src, dst, int64(from), int64(to), k, false)
			if err == nil && done != n {
				err = fmt.Errorf("%d bytes were copied, want %d", done, n)
			}
			return same(err, want)
		})
	})
}

func (m *model) attributes() error {
	t, path := m.object(isAny)
	if t == nil {
		return nil
	}
	perm, uid := uint32(m.rng.IntN(0o10000)), uint32(m.rng.IntN(5))
	return m.at().on(path, func(n *dataset.Node) error {
		if m.rng.IntN(2) == 0 {
			m.note("chown %s %d", path, uid)
			t.uid = uid
			t.withoutPriv()
			_, err := m.fs.SetAttr(n, dataset.Change{UID: &uid})
			return err
		}
		m.note("chmod %s %o", path, perm)
		if t.isDir() {
			perm &^= unix.S_ISGID // whose inheritance has a test of its own
		}
		want := syscall.Errno(0)
		if t.typ == unix.S_IFLNK {
			want = unix.EOPNOTSUPP
		} else {
			t.perm = perm
		}
		_, err := m.fs.SetAttr(n, dataset.Change{Mode: &perm})
		return same(err, want)
	})
}

func (m *model) xattr() error {
	t, path := m.object(isAny)
	if t == nil {
		return nil
	}
	name := "user." + nameOf(m.rng.IntN(3))
	return m.at().on(path, func(n *dataset.Node) error {
		if m.rng.IntN(3) == 0 {
			m.note("removexattr %s %s", path, name)
			want := syscall.Errno(0)
			if _, ok := t.xattrs[name]; !ok {
				want = unix.ENODATA
			}
			delete(t.xattrs, name)
			return same(m.fs.Removexattr(n, name), want)
		}
		value := text([]int{0, 10, 1010, 1020, 9000}[m.rng.IntN(5)], m.rng.Uint64())
		m.note("setxattr %s %s %d", path, name, len(value))
		t.xattrs[name] = value
		return m.fs.Setxattr(n, name, []byte(value), 0, false)
	})
}

// use opens a file, or closes one.
func (m *model) use() error {
	if len(m.open) > 0 && (len(m.open) > 8 || m.rng.IntN(2) == 0) {
		i := m.rng.IntN(len(m.open))
		m.note("close one with %d links", m.open[i].t.links)
		m.fs.Forget(m.open[i].node, 1)
		m.open = append(m.open[:i], m.open[i+1:]...)
		return nil
	}
	t, path := m.object(isFile)
	if t == nil {
		return nil
	}
	m.note("open %s", path)
	m.open = append(m.open, opened{m.at().at(path), t})
	return nil
}

// compare looks whether all is as it must be.
func (m *model) compare() error {
	m.note("compare")
	if got, want := m.at().dump(), dumpTree(m.root); got != want {
		return fmt.Errorf("it is another tree: %s", firstDifference(got, want))
	}
	for _, o := range m.open {
		if got := string(m.at().content(o.node)); got != string(o.t.data) {
			return fmt.Errorf("a file in use with %d links has %d other bytes", o.t.links, len(got))
		}
	}
	return nil
}

// check looks whether the tree contradicts itself, with everything settled.
func (m *model) check() error {
	m.note("check")
	m.fs.Settle()
	return checkTree(m.world.snapshot()())
}

func checkTree(t dataset.Tree) error {
	defer t.Close()
	var problems []string
	err := dataset.Check(t, func(object uint64, problem string) error {
		problems = append(problems, fmt.Sprintf("object %d: %s", object, problem))
		return nil
	})
	if err == nil && len(problems) > 0 {
		err = errors.New(strings.Join(problems, "\n"))
	}
	return err
}

// takeSnapshot takes one, and looks at an older one, which must be what it was, and
// at what differs from it.
func (m *model) takeSnapshot() error {
	m.note("snapshot")
	m.snaps = append(m.snaps, taken{m.world.snapshot(), dumpTree(m.root)})
	s := m.snaps[m.rng.IntN(len(m.snaps))]
	if len(m.snaps) > 5 {
		m.snaps = m.snaps[1:]
	}
	fs, err := dataset.New(s.open(), m.opt)
	if err != nil {
		return err
	}
	defer fs.Close()
	if got := (&mount{TB: m.TB, FS: fs}).dump(); got != s.want {
		return fmt.Errorf("the snapshot is another one: %s", firstDifference(got, s.want))
	}
	return m.diff(s)
}

// diff looks whether an older snapshot and what has changed since make what is now.
func (m *model) diff(old taken) error {
	before, now := old.open(), m.world.snapshot()()
	defer before.Close()
	defer now.Close()
	list, err := dataset.Diff(before, now)
	if err != nil {
		return err
	}
	was, is := pathsOf(old.want), pathsOf(dumpTree(m.root))
	moved := map[string]string{} // where to, of directories and others
	for _, d := range list {
		switch d.Kind {
		case dataset.Added:
			if _, ok := is[d.Path]; !ok {
				return fmt.Errorf("%s was added, but is not there", d.Path)
			}
		case dataset.Removed:
			if _, ok := was[d.Path]; !ok {
				return fmt.Errorf("%s was removed, but was not there", d.Path)
			}
			delete(was, d.Path)
		case dataset.Renamed:
			if _, ok := was[d.OldPath]; !ok {
				return fmt.Errorf("%s was renamed, but was not there", d.OldPath)
			}
			moved[d.OldPath] = d.Path
		}
	}
	return explained(was, is, list, moved)
}

// explained checks that all that is now comes from what was, or was added.
func explained(was, is map[string]string, list []dataset.Difference, moved map[string]string) error {
	told := map[string]bool{}
	for _, d := range list {
		told[d.Path] = told[d.Path] || d.Kind != dataset.Removed
	}
	there := map[string]bool{}
	for path := range was {
		there[movedPath(path, moved)] = true
	}
	for path, line := range is {
		if !told[path] && !there[path] {
			return fmt.Errorf("%s is there, but was not added", path)
		}
		if old, ok := was[path]; ok && !told[path] && movedPath(path, moved) == path && old != line && !strings.Contains(line, " is ") && !strings.Contains(old, " is ") {
			return fmt.Errorf("%s has changed and is not told: %s", path, firstDifference(line, old))
		}
	}
	return nil
}

// movedPath returns where a path has gone with the nearest directory that moved.
func movedPath(path string, moved map[string]string) string {
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		if to, ok := moved[path[:end]]; ok {
			return to + path[end:]
		}
	}
	return path
}

// pathsOf returns the lines of a dump by path, without the path.
func pathsOf(dump string) map[string]string {
	m := map[string]string{}
	for _, line := range strings.Split(dump, "\n") {
		path, rest, _ := strings.Cut(line, " ")
		m[strings.TrimPrefix(path, "/")] = rest
	}
	return m
}

// crash goes back to some moment since the last flush, or loses nothing.
func (m *model) crash() error {
	m.fs.Settle()
	old := m.fs
	n := m.world.crash(m.rng, m.mayGoBackTo())
	i := len(m.past) - 1
	for i > 0 && m.past[i].steps > n {
		i--
	}
	m.note("crash after batch %d of %d", n, m.past[len(m.past)-1].steps)
	m.mount()
	old.Close()
	got := m.at().dump()
	if got != dumpTree(m.past[i].root) && i+1 < len(m.past) {
		i++ // the batch may be that of the next operation
	}
	if want := dumpTree(m.past[i].root); got != want {
		return fmt.Errorf("it is no earlier tree: %s", firstDifference(got, want))
	}
	m.root = copyTree(m.past[i].root)
	m.past = nil
	m.remember(false)
	return m.check()
}

// mayGoBackTo returns the batches after which the tree is known: all but those in the
// middle of an operation that takes several.
func (m *model) mayGoBackTo() (steps []int) {
	for i, at := range m.past {
		if i > 0 && !at.multi {
			for n := m.past[i-1].steps + 1; n < at.steps; n++ {
				steps = append(steps, n)
			}
		}
		steps = append(steps, at.steps)
	}
	return steps
}

// modelSteps is how many steps a model takes, unless LAMINA_MODEL says.
func modelSteps(t testing.TB, n int) int {
	if s := os.Getenv("LAMINA_MODEL"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("LAMINA_MODEL=%s: a number of steps is wanted", s)
		}
	}
	return n
}
