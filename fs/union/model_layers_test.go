package union_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// A layerItem is one thing in a random layer.
type layerItem struct {
	path     string
	typ      byte // as in memlayer.Build; w is a whiteout
	form     byte // of a whiteout or an opaque directory: d device, x xattr, a aufs; 0: not opaque
	prefix   string
	mode     uint32
	uid, gid int
	content  string // of a file, target of a symbolic link, or first name of a hard link
	size     int64
	rdev     [2]uint32
	xattrs   [][2]string
	mtime    int64
}

// A modelLayer is a random layer, parents before children.
type modelLayer []layerItem

// modelNames are few, so that layers and changes meet.
var modelNames = []string{"a", "b", "c", "d", "e", "f", "g h", "\xff\"#"}

// modelLongName is as long as a name with an aufs whiteout can be.
var modelLongName = strings.Repeat("n", layer.NameMax-len(".wh."))

func randomName(r *rand.Rand) string {
	if r.IntN(60) == 0 {
		return modelLongName
	}
	return modelNames[r.IntN(len(modelNames))]
}

func randomLayer(r *rand.Rand, bottom bool) modelLayer {
	var l modelLayer
	types := map[string]byte{"": 'd'}
	opaque := map[string]bool{}
	var files []string
	for range 3 + r.IntN(25) {
		path := ""
		for range 1 + r.IntN(3) {
			up := path
			if types[up] != 'd' {
				break
			}
			path += "/" + randomName(r)
			if types[path] != 0 {
				continue
			}
			it := randomItem(r, path, bottom, files)
			if it.typ == 'w' && it.form == 'x' && opaque[up] {
				it.form = 'd' // a directory is marked for one or the other
			}
			if it.typ == 'd' && it.form != 0 {
				opaque[path] = true
			}
			if it.typ == 'f' {
				files = append(files, path)
			}
			types[path] = it.typ
			l = append(l, it)
		}
	}
	return l
}

func randomItem(r *rand.Rand, path string, bottom bool, files []string) layerItem {
	it := layerItem{path: path, mode: randomMode(r), uid: r.IntN(3) * 500, gid: r.IntN(3) * 500, mtime: 1000 + r.Int64N(1e9)}
	it.prefix = []string{"trusted.overlay.", "user.overlay."}[r.IntN(2)]
	switch k := r.IntN(40); {
	case k < 14:
		it.typ = 'd'
		if !bottom && r.IntN(5) == 0 {
			it.form = "xa"[r.IntN(2)]
		}
	case k < 25:
		it.typ, it.content = 'f', randomText(r)
		if r.IntN(8) == 0 {
			it.size = r.Int64N(40000)
		}
	case k < 28 && len(files) > 0:
		it.typ, it.content = 'h', files[r.IntN(len(files))]
	case k < 31:
		it.typ, it.content = 'l', "../"+randomName(r)
	case k < 32:
		it.typ, it.rdev = 'c', [2]uint32{1, 3}
	case k < 33:
		it.typ, it.rdev = 'b', [2]uint32{8, uint32(r.IntN(3))}
	case k < 35:
		it.typ = "ps"[r.IntN(2)]
	case !bottom || k < 37:
		it.typ, it.form = 'w', "dxa"[r.IntN(3)]
	default:
		it.typ, it.content = 'f', "x"
	}
	if r.IntN(4) == 0 {
		switch it.typ {
		case 'f', 'd':
			it.xattrs = append(it.xattrs, [2]string{"user.x", randomText(r)[:1]})
		}
		it.xattrs = append(it.xattrs, [2]string{"trusted.y", "\x00"})
		if it.typ == 'f' {
			it.xattrs = append(it.xattrs, [2]string{"security.capability", capabilityValue})
		}
	}
	return it
}

// capabilityValue is a vfs_cap_data of revision 2.
const capabilityValue = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func randomMode(r *rand.Rand) uint32 {
	return []uint32{0o644, 0o755, 0o600, 0o4755, 0o2755, 0o2644, 0o1777, 0, 0o6711}[r.IntN(9)]
}

func randomText(r *rand.Rand) string {
	n := 1 + r.IntN(40)
	if r.IntN(10) == 0 {
		n = 1 + r.IntN(9000)
	}
	return strings.Repeat(strconv.FormatUint(r.Uint64(), 36), n/8+1)[:n]
}

// wanted leaves out hard links to what is not there, and what has no place.
func (l modelLayer) wanted() modelLayer {
	there := map[string]byte{}
	var out modelLayer
	for _, it := range l {
		up := it.path[:strings.LastIndexByte(it.path, '/')]
		if t := there[up]; up != "" && t != 'd' || it.typ == 'h' && there[it.content] != 'f' {
			continue
		}
		there[it.path] = it.typ
		out = append(out, it)
	}
	return out
}

// text is what memlayer.Build makes the layer from, in a directory.
func (l modelLayer) text(dir string) string {
	var b, last strings.Builder
	fmt.Fprintf(&b, "%s d 0755\n", dir)
	for _, it := range l.wanted() {
		path := strconv.Quote(dir + it.path)
		up, name := it.path[:strings.LastIndexByte(it.path, '/')], it.path[strings.LastIndexByte(it.path, '/')+1:]
		attrs := fmt.Sprintf(" uid=%d gid=%d", it.uid, it.gid)
		for _, x := range it.xattrs {
			attrs += fmt.Sprintf(" %s=%q", x[0], x[1])
		}
		mtime := fmt.Sprintf(" mtime=%d", it.mtime)
		switch it.typ {
		case 'd':
			fmt.Fprintf(&b, "%s d %04o%s\n", path, it.mode, attrs)
			switch it.form {
			case 'x':
				fmt.Fprintf(&b, "%s d %sopaque=\"y\"\n", path, it.prefix)
			case 'a':
				fmt.Fprintf(&b, "%s f\n", strconv.Quote(dir+it.path+"/.wh..wh..opq"))
			}
			fmt.Fprintf(&last, "%s d%s\n", path, mtime)
		case 'f':
			fmt.Fprintf(&b, "%s f %04o %q", path, it.mode, it.content)
			if it.size > int64(len(it.content)) {
				fmt.Fprintf(&b, " size=%d", it.size)
			}
			b.WriteString(attrs + mtime + "\n")
		case 'h':
			fmt.Fprintf(&b, "%s h %q\n", path, dir+it.content)
		case 'l':
			fmt.Fprintf(&b, "%s l %q%s%s\n", path, it.content, attrs, mtime)
		case 'c', 'b':
			fmt.Fprintf(&b, "%s %c %04o %d:%d%s%s\n", path, it.typ, it.mode, it.rdev[0], it.rdev[1], attrs, mtime)
		case 'p', 's':
			fmt.Fprintf(&b, "%s %c %04o%s%s\n", path, it.typ, it.mode, attrs, mtime)
		case 'w':
			switch it.form {
			case 'd':
				fmt.Fprintf(&b, "%s c 0000 0:0\n", path)
			case 'x':
				fmt.Fprintf(&b, "%s d %sopaque=\"x\"\n", strconv.Quote(dir+up), it.prefix)
				fmt.Fprintf(&b, "%s f 0600 %swhiteout=\"y\"\n", path, it.prefix)
			case 'a':
				fmt.Fprintf(&b, "%s f 0444\n", strconv.Quote(dir+up+"/.wh."+name))
			}
		}
	}
	return b.String() + last.String()
}

// layerTree is a layer as a tree.
type layerTree struct {
	it   *layerItem
	kids []*layerTree
}

func (l modelLayer) tree() *layerTree {
	root := &layerTree{it: &layerItem{typ: 'd', mode: 0o755}}
	for _, it := range l.wanted() {
		at := root
		for _, name := range splitPath(it.path[:strings.LastIndexByte(it.path, '/')]) {
			at = at.child(name)
		}
		at.kids = append(at.kids, &layerTree{it: &it})
	}
	return root
}

func (t *layerTree) name() string { return t.it.path[strings.LastIndexByte(t.it.path, '/')+1:] }

func (t *layerTree) child(name string) *layerTree {
	i := slices.IndexFunc(t.kids, func(c *layerTree) bool { return c.name() == name })
	if i < 0 {
		return nil
	}
	return t.kids[i]
}

// A flattener turns a stack of random layers, the top one first, into the tree
// of the model: the rules of overlayfs for layers that hold no redirects, in a
// screen.
type flattener struct {
	index  bool // names of a lower inode are kept together
	roots  []*layerTree
	linked map[string][]*modelFile // by layer and first name
	total  map[string]int          // names in the layer beyond the first, seen or not
}

func flatten(layers []modelLayer, index bool) *modelFile {
	fl := &flattener{index: index, linked: map[string][]*modelFile{}, total: map[string]int{}}
	parts := make([]layerPart, len(layers))
	for i, l := range layers {
		parts[i] = layerPart{i, l.tree()}
		fl.roots = append(fl.roots, parts[i].tree)
		for _, it := range l.wanted() {
			if it.typ == 'h' {
				fl.total[fl.key(i, it.content)]++
			}
		}
	}
	root := fl.merge(parts)
	for key, files := range fl.linked {
		total := fl.total[key] + 1
		upper := strings.HasPrefix(key, "0")
		for _, f := range files {
			switch {
			case total == 1:
			case index || upper:
				f.hidden = total - len(files)
				f.lowered = !upper
			default:
				f.shared, f.hidden = true, total-1
			}
		}
	}
	return root
}

type layerPart struct {
	layer int
	tree  *layerTree
}

func (fl *flattener) key(layer int, first string) string { return strconv.Itoa(layer) + first }

// merge makes a directory of its parts.
func (fl *flattener) merge(parts []layerPart) *modelFile {
	d := fl.file(parts[0])
	var names []string
	for _, p := range parts {
		for _, c := range p.tree.kids {
			if !slices.Contains(names, c.name()) {
				names = append(names, c.name())
			}
		}
	}
	for _, name := range names {
		if c := fl.pick(parts, name); c != nil {
			mtime := d.mtime
			d.enter(name, c, mtime)
		}
	}
	return d
}

// pick finds what a name stands for in a merged directory, nil if it does not
// exist.
func (fl *flattener) pick(parts []layerPart, name string) *modelFile {
	var dirs []layerPart
	for _, p := range parts {
		c := p.tree.child(name)
		if c == nil {
			continue
		}
		if c.it.typ == 'd' {
			dirs = append(dirs, layerPart{p.layer, c})
			if c.it.form == 0 {
				continue
			}
		} else if c.it.typ != 'w' && len(dirs) == 0 {
			return fl.file(layerPart{p.layer, c})
		}
		break // opaque, a whiteout, or no directory
	}
	if len(dirs) == 0 {
		return nil
	}
	return fl.merge(dirs)
}

// file makes the inode of an item, or finds that of which it is a further name.
func (fl *flattener) file(p layerPart) *modelFile {
	it := p.tree.it
	first := it.path
	if it.typ == 'h' {
		first = it.content
	}
	key := fl.key(p.layer, first)
	together := fl.index || p.layer == 0
	if same := fl.linked[key]; len(same) > 0 && together {
		fl.linked[key] = append(same, same[0])
		return same[0]
	}
	if it.typ == 'h' {
		it = fl.target(p, first)
	}
	types := map[byte]uint32{
		'd': unix.S_IFDIR, 'f': unix.S_IFREG, 'l': unix.S_IFLNK, 'c': unix.S_IFCHR,
		'b': unix.S_IFBLK, 'p': unix.S_IFIFO, 's': unix.S_IFSOCK,
	}
	f := &modelFile{typ: types[it.typ], mode: it.mode, uid: uint32(it.uid), gid: uint32(it.gid), xattrs: map[string]string{}}
	for _, x := range it.xattrs {
		f.xattrs[x[0]] = x[1]
	}
	switch it.typ {
	case 'f':
		f.data = []byte(it.content)
		f.resize(max(it.size, int64(len(it.content))))
		fl.linked[key] = append(fl.linked[key], f)
	case 'l':
		f.target, f.mode = it.content, 0o777
	case 'c', 'b':
		f.rdev = unix.Mkdev(it.rdev[0], it.rdev[1])
	}
	if it.mtime != 0 {
		f.mtime = exactly(layer.Time{Sec: it.mtime})
	}
	return f
}

// target returns the file that a hard link of the same layer stands for.
func (fl *flattener) target(p layerPart, path string) *layerItem {
	at := fl.roots[p.layer]
	for _, name := range splitPath(path) {
		at = at.child(name)
	}
	return at.it
}
