package union_test

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// A view is all that a user can see of a union.
type view struct {
	lines map[string]string     // by path: type, mode, owner, links, content, xattrs, identity
	times map[string]layer.Time // of the last change of content
	inos  map[string]uint64
	dirs  map[string]bool
}

// identity is the first name of each inode number of a view: who shows the same
// number later is the same file to a program such as tar or rsync.
func (v *view) identity() map[uint64]string {
	known := map[uint64]string{}
	for _, path := range slices.Sorted(maps.Keys(v.inos)) {
		if ino := v.inos[path]; known[ino] == "" {
			known[ino] = path
		}
	}
	return known
}

func (v *view) String() string {
	var out strings.Builder
	for _, path := range slices.Sorted(maps.Keys(v.lines)) {
		fmt.Fprintf(&out, "%s %s\n", path, v.lines[path])
	}
	return out.String()
}

// looker walks through a union and writes down what it sees.
type looker struct {
	u     *tree
	v     *view
	known map[uint64]string
	first map[uint64]string
	names []string // looked up in each directory before it is listed
}

// show looks at everything. known says which inode numbers are those of files
// that were there before; nil: those of the view itself.
func show(u *tree, known map[uint64]string, names ...string) (*view, error) {
	l := looker{u: u, known: known, names: names, first: map[uint64]string{}, v: &view{
		lines: map[string]string{}, times: map[string]layer.Time{}, inos: map[string]uint64{}, dirs: map[string]bool{},
	}}
	a, err := u.GetAttr(u.Root())
	if err == nil {
		err = l.object(u.Root(), a, "/")
	}
	if err == nil {
		err = l.children(u.Root(), "/")
	}
	if err != nil {
		return nil, err
	}
	if known == nil {
		known = l.v.identity()
	}
	for path, ino := range l.v.inos {
		switch {
		case known[ino] != "":
			l.v.lines[path] += " was=" + known[ino]
		case l.first[ino] != path:
			l.v.lines[path] += " with=" + l.first[ino]
		default:
			l.v.lines[path] += " new"
		}
	}
	return l.v, nil
}

func (l *looker) children(dir *union.Node, path string) error {
	probed := map[string]bool{}
	for _, name := range l.names {
		n, _, err := l.u.Lookup(dir, name)
		switch {
		case err == nil:
			l.u.Forget(n, 1)
			probed[name] = true
		case errnoOf(err) != unix.ENOENT:
			return fmt.Errorf("look up %s%s: %w", path, name, err)
		}
	}
	var list []union.Listed
	if err := l.u.ReadDir(dir, 0, func(e union.Listed) bool { list = append(list, e); return true }); err != nil {
		return fmt.Errorf("list %s: %w", path, err)
	}
	listed := map[string]bool{}
	for _, e := range list {
		if listed[e.Name] {
			return fmt.Errorf("%s%s is listed twice", path, e.Name)
		}
		listed[e.Name] = true
	}
	for _, name := range l.names {
		if probed[name] != listed[name] {
			return fmt.Errorf("%s%s: found by lookup is %v, listed is %v", path, name, probed[name], listed[name])
		}
	}
	slices.SortFunc(list, func(a, b union.Listed) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range list {
		if err := l.child(dir, path+e.Name, e); err != nil {
			return err
		}
	}
	return nil
}

func (l *looker) child(dir *union.Node, path string, e union.Listed) error {
	n, a, err := l.u.Lookup(dir, e.Name)
	if err != nil {
		return fmt.Errorf("look up %s, which is listed: %w", path, err)
	}
	defer l.u.Forget(n, 1)
	if a.Ino != e.Ino || e.Type != a.Type() {
		return fmt.Errorf("%s: listed as inode %d of type %#o, found as %d of type %#o", path, e.Ino, e.Type, a.Ino, a.Type())
	}
	if b, err := l.u.GetAttr(n); err != nil || a != b {
		return fmt.Errorf("%s: lookup tells %+v, getattr %+v, %w", path, a, b, err)
	}
	if err := l.object(n, a, path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if a.IsDir() {
		return l.children(n, path+"/")
	}
	return nil
}

func (l *looker) object(n *union.Node, a union.Attr, path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%06o %d:%d", a.Mode, a.UID, a.GID)
	switch a.Type() {
	case unix.S_IFREG:
		text, err := readAll(l.u, n, a.Size)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, " size=%d %s", a.Size, text)
	case unix.S_IFLNK:
		target, err := l.u.Readlink(n)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, " -> %q", target)
	case unix.S_IFBLK, unix.S_IFCHR:
		fmt.Fprintf(&b, " rdev=%#x", a.Rdev)
	}
	if !a.IsDir() { // nobody counts the directories in merged ones
		fmt.Fprintf(&b, " nlink=%d", a.Nlink)
	}
	attrs, err := xattrsOf(l.u, n)
	if err != nil {
		return err
	}
	b.WriteString(attrs)
	l.v.lines[path] = b.String()
	l.v.times[path] = a.Mtime
	l.v.inos[path] = a.Ino
	l.v.dirs[path] = a.IsDir()
	if l.first[a.Ino] == "" {
		l.first[a.Ino] = path
	}
	return nil
}

// readAll describes the content of a file: long ones by a hash.
func readAll(u *tree, n *union.Node, size int64) (string, error) {
	p := make([]byte, size+1)
	k, err := u.Read(n, p, 0)
	if err != nil {
		return "", err
	}
	if int64(k) != size {
		return "", fmt.Errorf("%d bytes can be read of %d", k, size)
	}
	if k <= 100 {
		return strconv.Quote(string(p[:k])), nil
	}
	h := fnv.New64()
	h.Write(p[:k])
	return fmt.Sprintf("%q… hash=%x", p[:20], h.Sum64()), nil
}

func xattrsOf(u *tree, n *union.Node) (string, error) {
	list, v := make([]byte, 4096), make([]byte, 4096)
	k, err := u.Listxattr(n, list)
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(list[:k]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		k, err := u.Getxattr(n, name, v)
		if err != nil {
			return "", fmt.Errorf("xattr %s: %w", name, err)
		}
		fmt.Fprintf(&b, " %s=%q", name, v[:k])
	}
	return b.String(), nil
}

// differ says in which lines a view is not the one that was wanted.
func (v *view) differ(got *view) string {
	var out strings.Builder
	paths := maps.Clone(v.lines)
	maps.Copy(paths, got.lines)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if a, b := v.lines[path], got.lines[path]; a != b {
			fmt.Fprintf(&out, "\n\t%s\n\t\twant %s\n\t\thas  %s", path, a, b)
		}
	}
	return out.String()
}

// identities returns the view without the identity of copies that cannot keep
// it.
func (v *variant) identities(all *view) *view {
	out := *all
	out.lines = maps.Clone(all.lines)
	for path, line := range all.lines {
		if v.nameless(line) {
			out.lines[path] = lineWithout(line, " was=", " with=", " new")
		}
	}
	return &out
}

// without returns the view without the words of its lines that begin so.
func (v *view) without(words ...string) *view {
	out := *v
	out.lines = map[string]string{}
	for path, line := range v.lines {
		out.lines[path] = lineWithout(line, words...)
	}
	return &out
}

func lineWithout(line string, words ...string) string {
	for _, w := range words {
		for i := strings.Index(line, w); i >= 0; i = strings.Index(line, w) {
			end := strings.IndexByte(line[i+1:], ' ')
			if end < 0 {
				line = line[:i]
			} else {
				line = line[:i] + line[i+1+end:]
			}
		}
	}
	return line
}

// clock says which times a view may show.
type clock struct {
	start   layer.Time // of the change: what is later is now
	dirsNow bool       // directories may show the time of the change in any case
}

// differ says which times of a view are not those wanted.
func (c clock) differ(want, got *view) string {
	later := func(t layer.Time) bool {
		return t.Sec > c.start.Sec || t.Sec == c.start.Sec && t.Nsec > c.start.Nsec
	}
	var out strings.Builder
	for _, path := range slices.Sorted(maps.Keys(want.times)) {
		a, b := want.times[path], got.times[path]
		switch {
		case a == b, later(a) && later(b):
		case c.dirsNow && want.dirs[path] && later(b):
		default:
			fmt.Fprintf(&out, "\n\ttime of %s: want %v, has %v", path, a, b)
		}
	}
	return out.String()
}

// both is the view in which a rename has made the new name and not yet taken
// the old one away.
func both(before, after *view, from string) *view {
	v := &view{lines: maps.Clone(after.lines), times: maps.Clone(after.times), inos: maps.Clone(after.inos), dirs: maps.Clone(after.dirs)}
	for path, line := range before.lines {
		if path == "/"+from || strings.HasPrefix(path, "/"+from+"/") {
			v.lines[path], v.times[path] = line, before.times[path]
			v.inos[path], v.dirs[path] = before.inos[path], before.dirs[path]
		}
	}
	return v
}

// allNames are the names that any layer of the base has.
func allNames() []string {
	seen := map[string]bool{}
	for _, line := range strings.Split(baseLayers, "\n") {
		path, _, _ := strings.Cut(line, " ")
		for i, name := range strings.Split(path, "/") {
			if i > 0 && name != "" {
				seen[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
