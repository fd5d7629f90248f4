package union_test

import (
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// A scenario is one change of a small union. The tests of faults and of crashes
// interrupt it at every step.
type scenario struct {
	name   string
	layers string               // more lines for the layers l0 (on top), l1 and up, see baseLayers
	opt    func(*union.Options) // beyond those of the variant
	prep   op                   // brings about the state in which the change begins
	op     op                   // the change
	// half are changes after which an interrupted op may stop as well, by the
	// reason why that is right.
	half map[string]op
	// crash are further ones that only a crash may leave.
	crash map[string]op
	// A rename of from over something leaves a whiteout. Where that takes a
	// step of its own, a crash may leave from at both names, or the two under
	// each other's names.
	from, over string
	// renewed is a directory that a crash may leave as another, equal one.
	renewed string
	// synced tells that the op makes what it does last, torn that it writes
	// where a crash may leave anything until then.
	synced, torn bool
	// empty is a directory that must be empty afterwards.
	empty string
	// countless tells that a link count may be one too high, when it cannot
	// be noted after the change.
	countless bool
	// root tells that an ordinary user may not do it.
	root bool
	// only says for which variants the scenario is meant; nil: all.
	only func(*variant) bool
}

// op does something to a union, by paths.
type op func(*tree) error

// baseLayers are the layers of all scenarios: something of each type in each
// position.
const baseLayers = `
l0 d 0755
l1 d 0755
up d 0755
work d 0755
l0/f         f 0644 "top of f" uid=5 gid=6 user.a="1" mtime=1000.5
l1/f         f 0600 "bottom of f"
l1/low       f 0640 "lower data" uid=7 mtime=2000 security.x="s"
l1/ro        f 0444 "nobody writes" mtime=2500
up/ro2       f 0400 "not even its owner"
l1/suid      f 6755 "#!suid" uid=5
l0/dir       d 2750 uid=3 gid=4 user.dir="d" mtime=500
l0/dir/x     f "x in l0"
l1/dir/y     f "y in l1"
l1/dir/sub/z f "z"
l0/dir/cut   c 0 0:0
l1/dir/cut   f "cut"
l1/only/a    f "a"
l1/only/b/c  f "c"
l1/link      l dir/x uid=9
l1/pipe      p 0600 uid=8
l1/sock      s 0611
l1/null      c 0666 1:3
l1/blk       b 0660 8:1
l0/gone      c 0 0:0
l1/gone      f "below a whiteout"
l0/gonedir   c 0 0:0
l1/gonedir/in f "hidden"
l0/opq       d trusted.overlay.opaque="y"
l0/opq/new   f "new"
l1/opq/old   f "old"
l1/h1        f 0644 "linked" mtime=3000
l1/h2        h l1/h1
l1/dir/h3    h l1/h1
l1/void      d 0711
l0/void2     d 0700
l1/void2     d 0755
up/own       f "own"
up/owndir/in f "in"
up/empty     d
l1/over      f "lower under upper"
up/over      f 0600 "upper over lower"
l1/merged/l  f "l"
up/merged/u  f "u"
`

// A variant is a way of keeping the layers.
type variant struct {
	name string
	mem  memlayer.Options
	xdev bool // the lowers lie on another filesystem
	opt  union.Options
	// splits tells that a rename which leaves a whiteout over something takes
	// two steps, stepwise that replacing anything by something of another kind
	// does: without the flags of renameat2(2) no crash test can pass.
	splits, stepwise bool
}

var variants = []*variant{
	{name: "device", opt: union.Options{Whiteouts: union.WhiteoutDevice, Redirect: true}},
	{name: "xdev", xdev: true, opt: union.Options{Whiteouts: union.WhiteoutDevice, Redirect: true}},
	{name: "xattr", splits: true, opt: union.Options{Whiteouts: union.WhiteoutXattr, Prefix: whiteout.User, Redirect: true}},
	{name: "aufs", opt: union.Options{Whiteouts: union.WhiteoutAufs}},
	{name: "reflink", mem: memlayer.Options{Reflink: true},
		opt: union.Options{Whiteouts: union.WhiteoutDevice, Redirect: true, Size: 1 << 30, Inodes: 1 << 20}},
	{name: "nfs", stepwise: true, mem: memlayer.Options{NoTmpFile: true, NoRenameFlags: true, NoHandles: true},
		opt: union.Options{Whiteouts: union.WhiteoutDevice, Redirect: true}},
	{name: "rootless", mem: memlayer.Options{UID: user, GID: user, Unprivileged: true},
		opt: union.Options{Whiteouts: union.WhiteoutDevice, Prefix: whiteout.User, Redirect: true, Self: union.Caller{UID: user, GID: user}}},
	{name: "old kernel", mem: memlayer.Options{NoTmpFile: true, NoDirentTypes: true},
		opt: union.Options{Whiteouts: union.WhiteoutDevice, Redirect: true, Size: 1 << 30, Inodes: 1 << 20}},
}

// user is the ordinary user who mounts without privileges.
const user = 500

// withoutRoot leaves out of layers what an ordinary user cannot make: owners,
// devices and the xattrs of root.
func withoutRoot(layers string) string {
	var out strings.Builder
	for _, line := range strings.Split(layers, "\n") {
		words := strings.Fields(line)
		if len(words) > 3 && (words[1] == "b" || words[1] == "c") && words[3] != "0:0" {
			continue
		}
		line = strings.ReplaceAll(line, " trusted.", " user.")
		for _, w := range words {
			if strings.HasPrefix(w, "uid=") || strings.HasPrefix(w, "gid=") || strings.HasPrefix(w, "security.") {
				line = strings.Replace(line, " "+w, "", 1)
			}
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func (v *variant) aufs() bool { return v.opt.Whiteouts == union.WhiteoutAufs }

// nameless tells that a copy of such a mode cannot carry the handle of what it
// is a copy of, so its inode number is another one once the union has forgotten
// it: aufs has no xattrs, user xattrs exist on files and directories only, and
// some filesystems have no handles.
func (v *variant) nameless(mode string) bool {
	file := strings.HasPrefix(mode, "10") || strings.HasPrefix(mode, "04")
	return v.aufs() || v.mem.NoHandles || v.opt.Prefix == whiteout.User && !file
}

// disks are the filesystems below a union.
type disks struct{ upper, lower *memlayer.FS } // lower is the same as upper unless xdev

func (d disks) each(f func(*memlayer.FS)) {
	f(d.upper)
	if d.lower != d.upper {
		f(d.lower)
	}
}

// lowers describes the read-only layers, to see that nobody writes to them.
func (d disks) lowers(t *testing.T) string {
	t.Helper()
	return dumpDir(t, d.lower, "l0") + dumpDir(t, d.lower, "l1")
}

func dumpDir(t *testing.T, fs *memlayer.FS, path string) string {
	t.Helper()
	dir := fs.Dir(path)
	defer dir.Close()
	text, err := memlayer.Dump(dir)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s *scenario) disks(v *variant) disks {
	text := baseLayers + s.layers
	if v.mem.Unprivileged {
		text = withoutRoot(text)
	}
	if !v.xdev {
		fs := memlayer.New(v.mem)
		fs.MustBuild(text)
		return disks{fs, fs}
	}
	var upper, lower strings.Builder
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "l") {
			lower.WriteString(line + "\n")
		} else {
			upper.WriteString(line + "\n")
		}
	}
	d := disks{memlayer.New(v.mem), memlayer.New(v.mem)}
	d.upper.MustBuild(upper.String())
	d.lower.MustBuild(lower.String())
	return d
}

// mount builds the union of a scenario.
func (s *scenario) mount(v *variant, d disks) (*tree, error) {
	o := v.opt
	if s.opt != nil {
		s.opt(&o)
	}
	fs, err := union.New(union.Config{
		Lowers:  []union.Branch{{Name: "l0", Root: d.lower.Dir("l0")}, {Name: "l1", Root: d.lower.Dir("l1")}},
		Upper:   &union.Branch{Name: "up", Root: d.upper.Dir("up")},
		Work:    &union.Branch{Name: "work", Root: d.upper.Dir("work")},
		Options: o,
	})
	if err != nil {
		return nil, err
	}
	return &tree{FS: fs, self: v.opt.Self.UID}, nil
}

func (s *scenario) mustMount(t *testing.T, v *variant, d disks) *tree {
	t.Helper()
	u, err := s.mount(v, d)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	return u
}
