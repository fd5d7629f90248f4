package union_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// A modelConfig is what is drawn once for a seed.
type modelConfig struct {
	opt    union.Options
	mem    memlayer.Options
	xdev   bool // the lowers lie on another filesystem
	styles []union.WhiteoutStyle
	every  int // steps between two looks at everything
}

func randomConfig(r *rand.Rand) modelConfig {
	chance := func(percent int) bool { return r.IntN(100) < percent }
	c := modelConfig{xdev: chance(30), every: 20 + r.IntN(400)}
	c.opt = union.Options{
		Prefix: whiteout.Trusted, Redirect: chance(75), Metacopy: chance(50), Index: chance(65), Volatile: chance(50),
		Ino32: chance(10), StaticNlink: chance(5), NoXattrs: chance(4),
	}
	if chance(40) {
		c.opt.Prefix = whiteout.User
	}
	if chance(40) {
		c.opt.MaxHandles = 16
	}
	c.mem = memlayer.Options{
		Reflink: chance(30), NoTmpFile: chance(20), NoDirentTypes: chance(20), OneDirLink: chance(20), NoRenameFlags: chance(10),
		NoHandles: chance(10) && !c.opt.Index,
	}
	all := []union.WhiteoutStyle{union.WhiteoutDevice, union.WhiteoutXattr, union.WhiteoutAufs}
	c.styles = all[:]
	if chance(75) { // the same at each mount
		k := r.IntN(3)
		c.styles = all[k : k+1]
	}
	return c
}

// aufs reports whether names may be deleted in the form of aufs, at some time.
func (c *modelConfig) aufs() bool { return slices.Contains(c.styles, union.WhiteoutAufs) }

func (c *modelConfig) String() string {
	return fmt.Sprintf("options %+v\nstyles %v, lowers on another filesystem: %v\nfilesystem %+v", c.opt, c.styles, c.xdev, c.mem)
}

// A modelStack is a seed's beginning: the lowers, the top one first, and what
// the upper holds already.
type modelStack struct {
	conf   modelConfig
	upper  modelLayer
	lowers []modelLayer
}

func randomStack(r *rand.Rand) modelStack {
	s := modelStack{conf: randomConfig(r)}
	n := 1 + r.IntN(6)
	for i := range n {
		s.lowers = append(s.lowers, randomLayer(r, i == n-1))
	}
	if r.IntN(2) == 0 {
		s.upper = randomLayer(r, false)
	}
	return s
}

func (s *modelStack) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n%s", &s.conf, s.upper.text("up0"))
	for i, l := range s.lowers {
		b.WriteString(l.text(fmt.Sprintf("l%d", i)))
	}
	return b.String()
}

// place is a layer of a world.
type layerPlace struct {
	disk *memlayer.FS
	dir  string
	dump string // what it held when it became a lower
}

func (p *layerPlace) branch() union.Branch {
	return union.Branch{Name: p.dir, Root: p.disk.Dir(p.dir)}
}

// A world is a union, the model beside it, and the kernel that uses both.
type world struct {
	conf  modelConfig
	model modelTree
	kern  *kernel
	fs    *union.FS

	disk, lowerDisk *memlayer.FS
	lowers          []*layerPlace
	round           int // of the upper
	slots           [6]slot
	// hidden tells that there are files with names that other layers hide. They
	// never leave the index.
	hidden bool

	steps int // since the last look at everything
	calls int
	kept  map[string]int
}

// A slot is a descriptor.
type slot struct {
	entry *kdentry // by which it was opened
	node  *knode
	// Of a directory: how far it was read, what it has had since then, and
	// what was seen.
	pos          uint64
	stable, seen map[string]bool
}

// mismatch is the panic of a step whose results differ.
type mismatch string

func (w *world) failf(format string, args ...any) { panic(mismatch(fmt.Sprintf(format, args...))) }

func newWorld(s *modelStack) *world {
	w := &world{conf: s.conf, kept: map[string]int{}}
	w.disk = memlayer.New(s.conf.mem)
	w.lowerDisk = w.disk
	if s.conf.xdev {
		w.lowerDisk = memlayer.New(s.conf.mem)
	}
	w.disk.MustBuild(s.upper.text("up0"))
	w.disk.MustBuild("work0 d")
	for i, l := range s.lowers {
		dir := fmt.Sprintf("l%d", i)
		w.lowerDisk.MustBuild(l.text(dir))
		w.addLower(&layerPlace{disk: w.lowerDisk, dir: dir}, i)
	}
	w.model = modelTree{root: flatten(append([]modelLayer{s.upper}, s.lowers...), s.conf.opt.Index), conf: &w.conf}
	w.findHidden()
	return w
}

func (w *world) findHidden() {
	w.hidden = false
	w.model.each(func(_ string, f *modelFile) { w.hidden = w.hidden || f.hidden > 0 })
}

func (w *world) addLower(p *layerPlace, i int) {
	p.dump = w.dump(p.disk, p.dir)
	w.lowers = slices.Insert(w.lowers, i, p)
}

func (w *world) dump(disk *memlayer.FS, path string) string {
	d := disk.Dir(path)
	defer d.Close()
	text, err := memlayer.Dump(d)
	if err != nil {
		w.failf("dump of %s: %v", path, err)
	}
	return text
}

func (w *world) up() string   { return fmt.Sprintf("up%d", w.round) }
func (w *world) work() string { return fmt.Sprintf("work%d", w.round) }

func (w *world) now() layer.Time { return w.disk.Now() }

// mount builds the union. style says how it writes whiteouts.
func (w *world) mount(style int) {
	o := w.conf.opt
	o.Whiteouts = w.conf.styles[style%len(w.conf.styles)]
	cfg := union.Config{
		Upper:   &union.Branch{Name: w.up(), Root: w.disk.Dir(w.up())},
		Work:    &union.Branch{Name: w.work(), Root: w.disk.Dir(w.work())},
		Options: o,
	}
	for _, p := range w.lowers {
		cfg.Lowers = append(cfg.Lowers, p.branch())
	}
	fs, err := union.New(cfg)
	if err != nil {
		w.failf("mount: %v", err)
	}
	w.fs = fs
	w.kern = newKernel(fs, w.model.root, w.failf)
}

// unmount closes the union, after all was forgotten or as it is.
func (w *world) unmount(forget bool) {
	if forget {
		for i := range w.slots {
			w.close(i)
		}
		w.kern.shrink(w.kern.root, false)
		w.kern.deliver()
		if n := w.fs.Nodes(); n != 1 {
			w.failf("%d nodes are left when all are forgotten, want the root only", n)
		}
	}
	w.slots = [6]slot{}
	if err := w.fs.Close(); err != nil {
		w.failf("close: %v", err)
	}
	for _, disk := range []*memlayer.FS{w.disk, w.lowerDisk} {
		if open := disk.Open(); len(open) > 0 {
			w.failf("handles are left open: %q", open)
		}
		if n := disk.Orphans(); n > 0 {
			w.failf("%d inodes without a name are left", n)
		}
	}
	for _, n := range w.kern.nodes {
		n.file.node = nil
	}
	w.model.root.node = nil
	w.checkWork()
	for _, p := range w.lowers {
		if now := w.dump(p.disk, p.dir); now != p.dump {
			w.failf("lower %s has changed\nfrom\n%s\nto\n%s", p.dir, p.dump, now)
		}
	}
}

// checkWork wants nothing in the work directory but an index of what names lead
// to.
func (w *world) checkWork() {
	for _, line := range strings.Split(w.dump(w.disk, w.work()), "\n") {
		if strings.HasPrefix(line, "work/") {
			w.failf("left in the work directory: %s", line)
		}
	}
	linked := 0
	seen := map[*modelFile]bool{}
	w.model.each(func(_ string, f *modelFile) {
		if f.lowered && !seen[f] {
			linked++
		}
		seen[f] = true
	})
	if w.hidden || !w.conf.opt.Index {
		return
	}
	for _, dir := range []string{"/index", "/lamina-nlink"} {
		list := w.list(w.work() + dir)
		if len(list) > linked {
			w.failf("%d names are in the %s of the work directory for %d files: %q", len(list), dir[1:], linked, list)
		}
	}
}

func (w *world) list(path string) (names []string) {
	d := w.disk.Dir(path)
	defer d.Close()
	list, err := d.ReadDir()
	if err != nil {
		w.failf("list %s: %v", path, err)
	}
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// remount unmounts and mounts again, maybe twice, and with another way of
// writing whiteouts.
func (w *world) remount(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	w.unmount(r.IntN(2) == 0)
	w.mount(r.IntN(3))
	if r.IntN(3) > 0 {
		return // the next steps find nothing in memory
	}
	w.lookAll(seed)
	w.unmount(true)
	w.mount(r.IntN(3))
}

// freeze makes the upper the top lower and goes on with an empty one.
func (w *world) freeze(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	if w.conf.opt.Index {
		w.gather()
	}
	w.unmount(true)
	w.addLower(&layerPlace{disk: w.disk, dir: w.up()}, 0)
	root := w.disk.Dir("")
	if err := removeTree(root, w.work()); err != nil { // with the names in the index
		w.failf("remove %s: %v", w.work(), err)
	}
	root.Close()
	w.lowers[0].dump = w.dump(w.disk, w.up())
	w.round++
	w.disk.MustBuild(fmt.Sprintf("%s d 0755 \n%s d", w.up(), w.work()))
	w.model.each(func(_ string, f *modelFile) { f.renumber() })
	m := w.model.root
	m.mode, m.uid, m.gid, m.mtime, m.atime, m.xattrs = 0o755, 0, 0, when{}, when{}, map[string]string{}
	w.model.frozen(w.conf.opt.Index)
	w.mount(r.IntN(3))
	w.lookAll(seed)
	w.findHidden()
	if r.IntN(2) == 0 {
		w.remount(seed)
	}
}

// gather gives all names of files with several names to the upper, by renaming
// them to and fro: the index that ties them to the others is lost with the work
// directory.
func (w *world) gather() {
	if len(w.list(w.work()+"/index")) == 0 {
		return
	}
	var paths []string
	w.model.each(func(path string, f *modelFile) {
		if f.lowered {
			paths = append(paths, path)
		}
	})
	for _, path := range paths {
		for _, p := range [][2]string{{path, path + "~"}, {path + "~", path}} {
			if len(path) > 2 && strings.HasSuffix(path, modelLongName) {
				p = [2]string{strings.ReplaceAll(p[0], modelLongName+"~", modelLongName[:200]), strings.ReplaceAll(p[1], modelLongName+"~", modelLongName[:200])}
			}
			w.do(&step{verb: "rename", a: p[0], b: p[1]})
		}
	}
}

func removeTree(d layer.Dir, name string) error {
	err := d.Unlink(name)
	if err != unix.EISDIR {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	list, err := sub.ReadDir()
	for _, e := range list {
		if err == nil {
			err = removeTree(sub, e.Name)
		}
	}
	if err != nil {
		return err
	}
	return d.Rmdir(name)
}

// constant reports whether a file has its inode number for good. A copy needs an
// xattr and a file handle to say what it is a copy of.
func (w *world) constant(f *modelFile) bool {
	special := !f.isDir() && !f.isRegular()
	return f.isDir() || f.made || !f.changed ||
		!w.conf.aufs() && !w.conf.mem.NoHandles && !(special && w.conf.opt.Prefix == whiteout.User)
}

// frozen makes what is in the upper part of a lower layer.
func (m *modelTree) frozen(index bool) {
	m.each(func(_ string, f *modelFile) {
		f.made, f.changed = false, false
		if !f.isDir() && f.names > 1 && index {
			f.lowered = true
		}
		if f.hidden != 0 || f.lowered || f.shared {
			f.hidden = -1
		}
	})
	if index {
		return
	}
	// Names of one file part ways with their first change.
	m.each(func(_ string, d *modelFile) {
		for i, e := range d.kids {
			if e.file.isDir() || e.file.names == 1 {
				continue
			}
			c := *e.file
			c.names, c.hidden, c.shared = 1, -1, true
			c.data, c.xattrs = bytes.Clone(c.data), maps.Clone(c.xattrs)
			d.kids[i].file = &c
		}
	})
}
