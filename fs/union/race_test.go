package union_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// raceTime is how long TestRace runs, unless LAMINA_RACE gives seconds.
const raceTime = 3 * time.Second

// TestRace has many goroutines use one union at the same time while layers come
// and go. Each has names of its own in directories that all share: what it made
// must be there, with its contents, and nothing else of its own. Others do
// whatever they like to names that nobody owns. In the end nothing is left
// open, and mounting again shows the same. The race detector sees the rest.
func TestRace(t *testing.T) {
	limit := raceTime
	if s := os.Getenv("LAMINA_RACE"); s != "" {
		seconds, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("LAMINA_RACE=%s: a number of seconds is wanted", s)
		}
		limit = time.Duration(seconds) * time.Second
	}
	begin, rounds := time.Now(), 0
	for ; time.Since(begin) < limit && !t.Failed(); rounds++ {
		seed := uint64(begin.UnixNano()) + uint64(rounds)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runRace(t, rand.New(rand.NewPCG(seed, 1))) })
	}
	t.Logf("%d rounds", rounds)
}

const (
	raceOwners  = 3
	raceRascals = 8
	raceSteps   = 300 // of each of them
	raceFiles   = 4   // lower files that each owner begins with in each directory
)

var raceDirs = []string{"a", "b", "c", "a/x"}

// racers is what the goroutines share.
type racers struct {
	fs   *union.FS
	disk *memlayer.FS
	stop atomic.Bool // the owners have finished
}

func runRace(t *testing.T, r *rand.Rand) {
	disk := memlayer.New(memlayer.Options{Reflink: r.IntN(2) == 0, NoTmpFile: r.IntN(4) == 0})
	disk.MustBuild("up d\nwork d\nextra d\nextra/a d\nextra/a/guest f guest\nextra/a/x d\nextra/free d\n")
	var lowers [2]strings.Builder
	fmt.Fprint(&lowers[0], "l0 d\nl0/free d\n")
	fmt.Fprint(&lowers[1], "l1 d\nl1/free d\nl1/free/p0 f low\nl1/free/p1 f low\nl1/free/sub d\nl1/free/sub/p2 f low\n")
	for i, d := range raceDirs {
		for l := range lowers {
			fmt.Fprintf(&lowers[l], "l%d/%s d\n", l, d)
		}
		for o := range raceOwners {
			for f := range raceFiles {
				l := (i + o + f) % 2
				fmt.Fprintf(&lowers[l], "l%d/%s/o%d-low%d f low\n", l, d, o, f)
			}
		}
	}
	for l := range lowers {
		disk.MustBuild(lowers[l].String())
	}
	opt := union.Options{
		Prefix: whiteout.Trusted, Redirect: r.IntN(4) > 0, Metacopy: r.IntN(2) == 0, Index: r.IntN(2) == 0, Volatile: r.IntN(2) == 0,
		Whiteouts: []union.WhiteoutStyle{union.WhiteoutDevice, union.WhiteoutXattr, union.WhiteoutAufs}[r.IntN(3)],
	}
	if r.IntN(2) == 0 {
		opt.MaxHandles = 8
	}
	if !opt.Metacopy { // a metacopy file must not lose the layer that has its data
		disk.MustBuild("extra/free/p1 f guest\nextra/free/sub f in-the-way\n")
	}
	lower := func(i int) union.Branch {
		name := fmt.Sprintf("l%d", i)
		return union.Branch{Name: name, Root: disk.Dir(name)}
	}
	mount := func() *union.FS {
		fs, err := union.New(union.Config{
			Upper:   &union.Branch{Name: "up", Root: disk.Dir("up")},
			Work:    &union.Branch{Name: "work", Root: disk.Dir("work")},
			Lowers:  []union.Branch{lower(0), lower(1)},
			Options: opt,
		})
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	// Other goroutines get their turn between any two calls of a layer.
	disk.OnCall(func(c memlayer.Call) error {
		if rand.IntN(4) == 0 {
			runtime.Gosched()
		}
		return nil
	})
	defer watchdog(t, time.Minute)()

	s := &racers{fs: mount(), disk: disk}
	owners := make([]*raceOwner, raceOwners)
	var busy, idle sync.WaitGroup
	problems := make(chan error, raceOwners+raceRascals+2)
	start := func(wg *sync.WaitGroup, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				problems <- err
			}
		})
	}
	for i := range owners {
		o := newRaceOwner(s, i, rand.New(rand.NewPCG(r.Uint64(), 2)))
		owners[i] = o
		start(&busy, o.run)
	}
	for range raceRascals {
		r := rand.New(rand.NewPCG(r.Uint64(), 3))
		start(&idle, func() error { return s.rascal(r) })
	}
	start(&idle, s.swapLayers)
	busy.Wait()
	s.stop.Store(true)
	idle.Wait()
	close(problems)
	for err := range problems {
		t.Error(err)
	}
	for line := range strings.SplitSeq(disk.Dump(), "\n") {
		if strings.Contains(line, ".whiteout=") && !cleanWhiteout.MatchString(line) {
			t.Errorf("someone has changed what is a whiteout: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("options %+v\n%s", opt, disk.Dump())
		return
	}
	for _, o := range owners {
		o.forgetAll()
	}
	before, onDisk := s.tree(t), disk.Dump()
	if n := s.fs.Nodes(); n != 1 {
		t.Errorf("%d nodes are left when all are forgotten, want the root only", n)
	}
	s.close(t)
	s.fs = mount()
	if after := s.tree(t); after != before {
		t.Errorf("after mounting again (options %+v) the tree is\n%s\nand was\n%s\non\n%s", opt, after, before, onDisk)
	}
	for _, o := range owners {
		if err := o.check(); err != nil {
			t.Errorf("after mounting again (options %+v): %v", opt, err)
		}
		o.forgetAll()
	}
	s.close(t)
}

// cleanWhiteout matches the xattr whiteout that all names share as it was made.
var cleanWhiteout = regexp.MustCompile(`^\s*\S+ f 0600( nlink=\d+)? trusted\.overlay\.whiteout="\S*"$`)

// watchdog ends the test with all stacks if it has not ended by itself.
func watchdog(t *testing.T, limit time.Duration) (stop func()) {
	timer := time.AfterFunc(limit, func() {
		var b bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
		panic(fmt.Sprintf("%s: no end after %v\n%s", t.Name(), limit, &b))
	})
	return func() { timer.Stop() }
}

func (s *racers) close(t *testing.T) {
	if err := s.fs.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if open := s.disk.Open(); len(open) > 0 {
		t.Errorf("handles are left open: %q", open)
	}
	if n := s.disk.Orphans(); n > 0 {
		t.Errorf("%d inodes without a name are left", n)
	}
	if text := s.disk.Dump(); strings.Contains(text, "work/work/") {
		t.Errorf("something is left in the work directory:\n%s", text)
	}
}

// walk finds the node of a path, held.
func (s *racers) walk(path string) (*union.Node, error) {
	n := s.fs.Root()
	for name := range strings.SplitSeq(path, "/") {
		c, _, err := s.fs.Lookup(n, name)
		s.drop(n)
		if err != nil {
			return nil, err
		}
		n = c
	}
	return n, nil
}

func (s *racers) drop(n *union.Node) {
	if n != s.fs.Root() {
		s.fs.Forget(n, 1)
	}
}

func (s *racers) names(dir *union.Node) (names []string, err error) {
	err = s.fs.ReadDir(dir, 0, func(l union.Listed) bool {
		names = append(names, l.Name)
		return true
	})
	return names, err
}

// tree describes all that the union shows.
func (s *racers) tree(t *testing.T) string {
	var b strings.Builder
	var look func(n *union.Node, path string)
	look = func(n *union.Node, path string) {
		names, err := s.names(n)
		if err != nil {
			t.Fatalf("list %s: %v", path, err)
		}
		slices.Sort(names)
		for _, name := range names {
			c, a, err := s.fs.Lookup(n, name)
			if err != nil {
				t.Fatalf("lookup %s/%s: %v", path, name, err)
			}
			fmt.Fprintf(&b, "%s/%s %o %d", path, name, a.Mode, a.Nlink)
			switch a.Mode & unix.S_IFMT {
			case unix.S_IFDIR:
				fmt.Fprintln(&b)
				look(c, path+"/"+name)
			case unix.S_IFREG:
				data, err := s.contents(c)
				fmt.Fprintf(&b, " %q %v\n", data, err)
			default:
				fmt.Fprintln(&b)
			}
			s.drop(c)
		}
	}
	look(s.fs.Root(), "")
	return b.String()
}

func (s *racers) contents(n *union.Node) (string, error) {
	buf := make([]byte, 256)
	k, err := s.fs.Read(n, buf, 0)
	return string(buf[:k]), err
}

// swapLayers adds a layer and takes it out again, on top and at the bottom.
func (s *racers) swapLayers() error {
	for i := 0; !s.stop.Load(); i++ {
		index := 0
		if i%2 == 1 {
			index = -1
		}
		if _, err := s.fs.AddLower(index, union.Branch{Name: "extra", Root: s.disk.Dir("extra")}); err != nil {
			return fmt.Errorf("add a layer: %w", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := s.fs.DelLower("extra"); err != nil {
			return fmt.Errorf("take a layer out: %w", err)
		}
		s.fs.CloseRetired()
		time.Sleep(time.Millisecond)
	}
	return nil
}

// rascalMayFail are the answers to what is done to names that others change.
var rascalMayFail = []unix.Errno{
	unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.ESTALE, unix.EXDEV, unix.EINVAL, unix.EPERM, unix.ENODATA,
	unix.EOPNOTSUPP, // xattrs of symbolic links
}

// rascal does anything to names in the directory free, and to directories on
// the way that others use.
func (s *racers) rascal(r *rand.Rand) error {
	fs := s.fs
	dirs := []string{"free", "free/sub", "free/d"}
	for !s.stop.Load() {
		p, err := s.walk(dirs[r.IntN(len(dirs))])
		if err == nil {
			name, other := fmt.Sprintf("p%d", r.IntN(4)), fmt.Sprintf("p%d", r.IntN(4))
			var n *union.Node
			switch r.IntN(14) {
			case 0, 1:
				n, _, err = fs.Create(p, name, 0o644, union.Caller{})
			case 2:
				n, _, err = fs.Mkdir(p, name, 0o755, union.Caller{})
			case 3:
				n, _, err = fs.Mkdir(p, "d", 0o755, union.Caller{})
			case 4:
				err = fs.Unlink(p, name)
			case 5:
				err = fs.Rmdir(p, name)
			case 6:
				flags := []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT}
				err = fs.Rename(p, name, p, other, flags[r.IntN(len(flags))])
			case 7:
				var q *union.Node
				if q, err = s.walk(dirs[r.IntN(len(dirs))]); err == nil {
					err = fs.Rename(p, name, q, other, 0)
					s.drop(q)
				}
			case 8:
				if n, _, err = fs.Lookup(p, name); err == nil {
					if _, err = fs.Link(n, p, other); err == nil {
						fs.Forget(n, 1) // a link is one more reference
					}
				}
			case 9:
				if n, _, err = fs.Lookup(p, name); err == nil {
					_, err = fs.Write(n, []byte("rascal"), int64(r.IntN(9)), false)
				}
			case 10:
				if n, _, err = fs.Lookup(p, name); err == nil {
					mode := uint32(0o600 | r.IntN(0o100))
					_, err = fs.SetAttr(n, union.Change{Mode: &mode})
				}
			case 11:
				if n, _, err = fs.Lookup(p, name); err == nil {
					err = fs.Setxattr(n, "user.rascal", []byte(name), 0, false)
				}
			case 12:
				_, err = s.names(p)
			case 13:
				if n, _, err = fs.Symlink(p, name, "target", union.Caller{}); err == nil {
					_, err = fs.Readlink(n)
				}
			}
			if n != nil {
				s.drop(n)
			}
			s.drop(p)
		}
		if err != nil && !slices.ContainsFunc(rascalMayFail, func(e unix.Errno) bool { return errors.Is(err, e) }) {
			return fmt.Errorf("a name that nobody owns: %w", err)
		}
	}
	return nil
}

// A raceOwner has names that nobody else touches.
type raceOwner struct {
	*racers
	r      *rand.Rand
	prefix string
	made   int
	files  map[string]*raceFile // by path
	held   []*union.Node
}

// A raceFile is what an owner knows of a file, which may have several names.
type raceFile struct {
	data  string
	mode  uint32
	links int
}

func newRaceOwner(s *racers, number int, r *rand.Rand) *raceOwner {
	o := &raceOwner{racers: s, r: r, prefix: fmt.Sprintf("o%d-", number), files: map[string]*raceFile{}}
	for _, d := range raceDirs {
		for f := range raceFiles {
			o.files[fmt.Sprintf("%s/%slow%d", d, o.prefix, f)] = &raceFile{data: "low", mode: 0o644, links: 1}
		}
	}
	return o
}

func (o *raceOwner) forgetAll() {
	for _, n := range o.held {
		o.drop(n)
	}
	o.held = nil
}

func (o *raceOwner) run() error {
	for range raceSteps {
		if err := o.step(); err != nil {
			return err
		}
		if o.r.IntN(10) == 0 {
			o.forgetAll()
		}
	}
	return o.check()
}

// check wants all names, and no others, in all directories.
func (o *raceOwner) check() error {
	want := map[string][]string{}
	for path, f := range o.files {
		i := strings.LastIndexByte(path, '/')
		want[path[:i]] = append(want[path[:i]], path[i+1:])
		if err := o.checkFile(path, f); err != nil {
			return err
		}
	}
	for _, d := range raceDirs {
		n, err := o.walk(d)
		if err != nil {
			return fmt.Errorf("directory %s: %w", d, err)
		}
		o.held = append(o.held, n)
		names, err := o.names(n)
		if err != nil {
			return fmt.Errorf("list %s: %w", d, err)
		}
		names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, o.prefix) })
		slices.Sort(names)
		slices.Sort(want[d])
		if !slices.Equal(names, want[d]) {
			return fmt.Errorf("%s lists %q, want %q", d, names, want[d])
		}
	}
	return nil
}

func (o *raceOwner) checkFile(path string, f *raceFile) error {
	n, err := o.walk(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	o.held = append(o.held, n)
	if data, err := o.contents(n); err != nil || data != f.data {
		return fmt.Errorf("%s holds %q (%v), want %q", path, data, err, f.data)
	}
	a, err := o.fs.GetAttr(n)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if a.Size != int64(len(f.data)) || a.Mode&0o7777 != f.mode || int(a.Nlink) != f.links {
		return fmt.Errorf("%s has size %d, mode %o and %d links, want %d, %o and %d", path, a.Size, a.Mode&0o7777, a.Nlink, len(f.data), f.mode, f.links)
	}
	return nil
}

// some picks one of the owner's paths.
func (o *raceOwner) some() string {
	paths := slices.Sorted(maps.Keys(o.files))
	if len(paths) == 0 {
		return ""
	}
	return paths[o.r.IntN(len(paths))]
}

// place picks a new name in any directory.
func (o *raceOwner) place() (dir, name string) {
	o.made++
	return raceDirs[o.r.IntN(len(raceDirs))], fmt.Sprintf("%snew%d", o.prefix, o.made)
}

func (o *raceOwner) step() error {
	path := o.some()
	f := o.files[path]
	act := o.r.IntN(10)
	if f == nil {
		act = 0
	}
	if act <= 1 {
		return o.create()
	}
	i := strings.LastIndexByte(path, '/')
	dir, name := path[:i], path[i+1:]
	p, err := o.walk(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	o.held = append(o.held, p)
	n, _, err := o.fs.Lookup(p, name)
	if err != nil {
		return fmt.Errorf("lookup %s: %w", path, err)
	}
	o.held = append(o.held, n)
	switch act {
	case 2, 3: // append, through the descriptor of before the copy-up
		if len(f.data) < 200 {
			_, err = o.fs.Write(n, []byte("+"), int64(len(f.data)), false)
			f.data += "+"
		}
	case 4:
		err = o.fs.Unlink(p, name)
		delete(o.files, path)
		f.links--
	case 5, 6:
		dir, name2 := o.place()
		var q *union.Node
		if q, err = o.walk(dir); err != nil {
			break
		}
		o.held = append(o.held, q)
		if act == 5 {
			err = o.fs.Rename(p, name, q, name2, 0)
			delete(o.files, path)
		} else {
			if _, err = o.fs.Link(n, q, name2); err == nil {
				o.held = append(o.held, n) // a link is one more reference
			}
			f.links++
		}
		o.files[dir+"/"+name2] = f
	case 7:
		f.mode = 0o600 | uint32(o.r.IntN(0o100))
		_, err = o.fs.SetAttr(n, union.Change{Mode: &f.mode})
	case 8:
		size := int64(o.r.IntN(len(f.data) + 1))
		_, err = o.fs.SetAttr(n, union.Change{Size: &size})
		f.data = f.data[:size]
	case 9: // over another of the owner's files
		other := o.some()
		g := o.files[other]
		if g == f {
			break
		}
		i := strings.LastIndexByte(other, '/')
		var q *union.Node
		if q, err = o.walk(other[:i]); err != nil {
			break
		}
		o.held = append(o.held, q)
		err = o.fs.Rename(p, name, q, other[i+1:], 0)
		delete(o.files, path)
		o.files[other] = f
		g.links--
		path = other
	}
	if err != nil {
		return fmt.Errorf("step %d on %s: %w", act, path, err)
	}
	if act == 4 {
		return nil
	}
	return o.checkHeld(n, path, f, act)
}

// checkHeld wants the node that was used to show the file, whatever it was
// renamed to.
func (o *raceOwner) checkHeld(n *union.Node, path string, f *raceFile, act int) error {
	data, err := o.contents(n)
	if err != nil || data != f.data {
		return fmt.Errorf("after step %d on %s it holds %q (%v), want %q", act, path, data, err, f.data)
	}
	return nil
}

func (o *raceOwner) create() error {
	dir, name := o.place()
	p, err := o.walk(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	o.held = append(o.held, p)
	n, _, err := o.fs.Create(p, name, 0o640, union.Caller{})
	if err != nil {
		return fmt.Errorf("create %s/%s: %w", dir, name, err)
	}
	o.held = append(o.held, n)
	if _, err := o.fs.Write(n, []byte(name), 0, false); err != nil {
		return fmt.Errorf("write %s/%s: %w", dir, name, err)
	}
	f := &raceFile{data: name, mode: 0o640, links: 1}
	o.files[dir+"/"+name] = f
	return o.checkFile(dir+"/"+name, f)
}
