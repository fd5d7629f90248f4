package memlayer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// Build makes a tree below d from a text, which is also what Dump gives. Each
// line is a path, a letter for the type, and what goes with it:
//
//	etc            d 0755                   directory; those on the way to a path are made
//	etc/passwd     f 0644 "root:x:0:0\n"    file; mode and content may be left out
//	disk.img       f size=1048576 4096="x"  sparse file with data at an offset
//	etc/passwd-    h etc/passwd             hard link to a line above
//	bin/sh         l dash                   symbolic link
//	dev/null       c 0666 1:3               devices are c and b
//	run/pipe       p                        FIFO; a socket is s
//	bin/ping       f 04755 uid=0 gid=5 mtime=99 security.x="v" # anything with a dot is an xattr
//
// Paths and values in double quotes are Go strings; what follows a # is left
// out. Of a directory that exists, the root "/" among them, the attributes are
// set that the line has. New files inherit groups and default ACLs as ever.
func Build(d layer.Dir, text string) error {
	for n, line := range strings.Split(text, "\n") {
		words, err := split(line)
		if err == nil && len(words) > 0 {
			err = buildLine(d, words)
		}
		if err != nil {
			return fmt.Errorf("memlayer: line %d, %q: %w", n+1, strings.TrimSpace(line), err)
		}
	}
	return nil
}

// Build is [Build] on the root, not seen by OnCall.
func (fs *FS) Build(text string) error {
	d := fs.quietRoot()
	defer d.Close()
	return Build(d, text)
}

// MustBuild is [FS.Build] for texts that are known to be right; it panics if
// they are not.
func (fs *FS) MustBuild(text string) {
	if err := fs.Build(text); err != nil {
		panic(err)
	}
}

func (fs *FS) quietRoot() layer.Dir {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return &dir{fs.open(fs.st.inodes[rootIno], "/", 0, true)}
}

// split cuts a line at its blanks, but not within double quotes.
func split(line string) (words []string, err error) {
	var word strings.Builder
	inside := false
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for n := 0; n < len(line); n++ {
		c := line[n]
		switch {
		case inside && c == '\\' && n+1 < len(line):
			word.WriteByte(c)
			n++
			c = line[n]
		case c == '"':
			inside = !inside
		case !inside && (c == ' ' || c == '\t'):
			flush()
			continue
		case !inside && c == '#' && word.Len() == 0:
			return words, nil
		}
		word.WriteByte(c)
	}
	if inside {
		return nil, errors.New("a quote is not closed")
	}
	flush()
	return words, nil
}

// unquote returns a word as it is, or what it says as a Go string.
func unquote(s string) (string, error) {
	if strings.HasPrefix(s, `"`) {
		return strconv.Unquote(s)
	}
	return s, nil
}

// line is one line of a tree.
type line struct {
	mode    uint32
	hasMode bool
	rdev    uint64
	content string // of a file, or the target of a link
	size    int64  // -1: not given
	data    map[int64]string
	uid     int
	gid     int
	mtime   *layer.Time
	xattrs  [][2]string
}

func buildLine(root layer.Dir, words []string) error {
	path, err := unquote(words[0])
	if err != nil {
		return err
	}
	if len(words) < 2 || len(words[1]) != 1 || !strings.Contains("dflhcbps", words[1]) {
		return errors.New("after the path comes a type: one of d f l h c b p s")
	}
	typ := words[1][0]
	l, err := parseLine(typ, words[2:])
	if err != nil {
		return err
	}
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(parts) == 0 {
		if typ != 'd' {
			return errors.New("the root is a directory")
		}
		return l.apply(root, typ)
	}
	parent, err := parentOf(root, parts)
	if err != nil {
		return err
	}
	if parent != root {
		defer parent.Close()
	}
	name := parts[len(parts)-1]
	if typ == 'h' {
		return l.link(root, parent, name)
	}
	return l.make(parent, name, typ)
}

func parseLine(typ byte, words []string) (*line, error) {
	l := &line{uid: -1, gid: -1, size: -1, data: make(map[int64]string)}
	for n, w := range words {
		key, value, found := strings.Cut(w, "=")
		if !found || strings.HasPrefix(w, `"`) || typ == 'l' && n == 0 {
			if err := l.positional(typ, n, w); err != nil {
				return nil, err
			}
			continue
		}
		value, err := unquote(value)
		if err == nil {
			err = l.set(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w, err)
		}
	}
	return l, nil
}

// positional takes a word without a key: a mode, a device number, a text.
func (l *line) positional(typ byte, n int, w string) (err error) {
	octal := strings.Trim(w, "01234567") == ""
	switch {
	case n == 0 && octal && typ != 'l' && typ != 'h':
		m, err := strconv.ParseUint(w, 8, 32)
		l.mode, l.hasMode = uint32(m), true
		return err
	case typ == 'c' || typ == 'b':
		var major, minor uint32
		if _, err := fmt.Sscanf(w, "%d:%d", &major, &minor); err != nil {
			return fmt.Errorf("%q is no device number such as 1:3", w)
		}
		l.rdev = unix.Mkdev(major, minor)
		return nil
	case typ == 'f' || typ == 'l' || typ == 'h':
		l.content, err = unquote(w)
		return err
	}
	return fmt.Errorf("%q has no meaning here", w)
}

func (l *line) set(key, value string) (err error) {
	switch {
	case key == "uid":
		l.uid, err = strconv.Atoi(value)
	case key == "gid":
		l.gid, err = strconv.Atoi(value)
	case key == "size":
		l.size, err = strconv.ParseInt(value, 10, 64)
	case key == "mtime":
		var t layer.Time
		sec, nsec, _ := strings.Cut(value, ".")
		if t.Sec, err = strconv.ParseInt(sec, 10, 64); err == nil && nsec != "" {
			_, err = fmt.Sscanf((nsec + "000000000")[:9], "%d", &t.Nsec)
		}
		l.mtime = &t
	case strings.Trim(key, "0123456789") == "":
		var off int64
		off, err = strconv.ParseInt(key, 10, 64)
		l.data[off] = value
	case strings.Contains(key, "."):
		l.xattrs = append(l.xattrs, [2]string{key, value})
	case key == "nlink" || key == "blocks": // what Dump adds
	default:
		err = errors.New("the keys are uid, gid, size, mtime, an offset, or the name of an xattr")
	}
	return err
}

// parentOf opens the directory of a path and makes what is missing on the way.
func parentOf(root layer.Dir, parts []string) (layer.Dir, error) {
	at := root
	for _, name := range parts[:len(parts)-1] {
		next, err := at.OpenDir(name)
		if errors.Is(err, unix.ENOENT) {
			if err = at.Mkdir(name, 0o755); err == nil {
				next, err = at.OpenDir(name)
			}
		}
		if at != root {
			at.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("directory %q: %w", name, err)
		}
		at = next
	}
	return at, nil
}

func (l *line) link(root, parent layer.Dir, name string) error {
	parts := strings.FieldsFunc(l.content, func(r rune) bool { return r == '/' })
	if len(parts) == 0 {
		return errors.New("h needs the path of the file that is linked")
	}
	from, err := parentOf(root, parts)
	if err != nil {
		return err
	}
	if from != root {
		defer from.Close()
	}
	obj, err := from.Lookup(parts[len(parts)-1])
	if err != nil {
		return err
	}
	defer obj.Close()
	return parent.Link(obj, name)
}

func (l *line) make(parent layer.Dir, name string, typ byte) error {
	if !l.hasMode && typ == 'd' {
		l.mode = 0o755
	} else if !l.hasMode {
		l.mode = 0o644
	}
	types := map[byte]uint32{'c': unix.S_IFCHR, 'b': unix.S_IFBLK, 'p': unix.S_IFIFO, 's': unix.S_IFSOCK}
	var err error
	switch typ {
	case 'd':
		err = parent.Mkdir(name, l.mode)
		if errors.Is(err, unix.EEXIST) {
			err = nil
		}
	case 'f':
		return l.makeFile(parent, name)
	case 'l':
		err = parent.Symlink(l.content, name)
	default:
		err = parent.Mknod(name, types[typ]|l.mode, l.rdev)
	}
	if err != nil {
		return err
	}
	obj, err := parent.Lookup(name)
	if err != nil {
		return err
	}
	defer obj.Close()
	return l.apply(obj, typ)
}

func (l *line) makeFile(parent layer.Dir, name string) error {
	f, err := parent.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, l.mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if l.content != "" {
		l.data[0] = l.content
	}
	for off, text := range l.data {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			return err
		}
	}
	if l.size >= 0 {
		if err := f.Truncate(l.size); err != nil {
			return err
		}
	}
	return l.apply(f, 'f')
}

// apply sets attributes, in the order in which none undoes another.
func (l *line) apply(obj layer.Object, typ byte) error {
	if l.uid != -1 || l.gid != -1 {
		if err := obj.Chown(l.uid, l.gid); err != nil {
			return err
		}
	}
	if l.hasMode && typ != 'l' {
		if err := obj.Chmod(l.mode); err != nil {
			return err
		}
	}
	for _, x := range l.xattrs {
		if err := obj.Setxattr(x[0], []byte(x[1]), 0); err != nil {
			return fmt.Errorf("xattr %s: %w", x[0], err)
		}
	}
	if l.mtime != nil {
		return obj.SetTimes(*l.mtime, *l.mtime)
	}
	return nil
}
