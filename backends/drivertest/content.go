package drivertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
)

// An entry is one of an archive.
type entry struct {
	name     string
	typ      byte // a regular file unless set
	data     string
	link     string
	mode     int64
	uid, gid int
	dev      [2]int64
	xattrs   map[string]string
}

// epoch is when all entries changed last, with a part of a second.
var epoch = time.Date(2024, 2, 29, 12, 30, 15, 123456789, time.UTC)

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{
			Format: tar.FormatPAX, Name: e.name, Typeflag: e.typ, Linkname: e.link, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			ModTime: epoch, Size: int64(len(e.data)), Devmajor: e.dev[0], Devminor: e.dev[1],
		}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.mode == 0 {
			h.Mode = 0o644
			if e.typ == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// capability is a value of security.capability: version 2, cap_net_raw.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// image has all that images have.
func image(t testing.TB) []byte {
	return archive(t,
		entry{name: "./", typ: tar.TypeDir, mode: 0o555},
		entry{name: "bin", typ: tar.TypeSymlink, link: "usr/bin", mode: 0o777},
		entry{name: "usr/", typ: tar.TypeDir},
		entry{name: "usr/bin/", typ: tar.TypeDir},
		entry{name: "usr/bin/su", data: "su", mode: 0o4755},
		entry{name: "usr/bin/wall", data: "wall", mode: 0o2755, gid: 5},
		entry{name: "usr/bin/ping", data: "ping", mode: 0o755, xattrs: map[string]string{"security.capability": capability}},
		entry{name: "usr/bin/perl", data: "perl", mode: 0o755},
		entry{name: "usr/bin/perl5", typ: tar.TypeLink, link: "usr/bin/perl"},
		entry{name: "etc/", typ: tar.TypeDir, mode: 0o750, uid: 3, gid: 4},
		entry{name: "etc/shadow", data: "secret", mode: 0o640, gid: 42},
		entry{name: "etc/labelled", data: "l", xattrs: map[string]string{"user.note": "a\x00b"}},
		entry{name: "etc/conf.d/", typ: tar.TypeDir},
		entry{name: "etc/conf.d/a", data: "a"},
		entry{name: "etc/conf.d/b", data: "b"},
		entry{name: "var/spool/", typ: tar.TypeDir, mode: 0o1777},
		entry{name: "var/sparse", data: strings.Repeat("\x00", 3<<20) + "end"},
		entry{name: "var/empty", data: ""},
		entry{name: "run/fifo", typ: tar.TypeFifo, mode: 0o600},
		entry{name: strings.Repeat("d", 200) + "/" + strings.Repeat("n", 200), data: "long"},
		entry{name: "ünï/cödé \\ \"q\"\n", data: "odd"},
	)
}

// An archive becomes the tree that its author saw, and comes out again as such.
func testArchive(t *testing.T, b *bench) {
	r := b.rig(t)
	r.apply("base", "", image(t))
	at := r.mount("base")
	r.checkImage(at)
	owners := r.Capabilities().KeepsOwners || os.Geteuid() == 0
	equal(t, "mounted, against unmounted", dumpDir(t, at, owners), r.view("base", owners))
	r.unmount("base")

	second := archive(t,
		entry{name: "etc/.wh.shadow"},
		entry{name: "etc/conf.d/.wh..wh..opq"},
		entry{name: "etc/conf.d/c", data: "c"},
		entry{name: "usr/bin/.wh.su"},
		entry{name: "usr/bin/su/", typ: tar.TypeDir}, // a directory where a file was
		entry{name: "usr/bin/su/inside", data: "i"},
		entry{name: "var/spool", data: "a file where a directory was"},
		entry{name: "usr/bin/perl6", typ: tar.TypeLink, link: "usr/bin/perl"}, // to a file below
		entry{name: ".wh.run"},
		entry{name: "new/deep/er", data: "no directory was listed"},
	)
	r.apply("second", "base", second)
	at = r.mount("second")
	for _, gone := range []string{"etc/shadow", "etc/conf.d/a", "run"} {
		if _, err := os.Lstat(at + "/" + gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	reads(t, at+"/etc/conf.d/c", "c")
	reads(t, at+"/usr/bin/su/inside", "i")
	reads(t, at+"/var/spool", "a file where a directory was")
	reads(t, at+"/usr/bin/perl6", "perl")
	reads(t, at+"/new/deep/er", "no directory was listed")
	if st, err := os.Stat(at + "/etc"); err != nil || st.Mode().Perm() != 0o750 || !st.ModTime().Equal(epoch.Truncate(b.subject.TimeUnit)) {
		t.Errorf("a directory that the second archive only goes through has changed: %v, %v", st, err)
	}
	equal(t, "mounted, against unmounted", dumpDir(t, at, owners), r.view("second", owners))
	r.unmount("second")

	// Out and in again: the same trees, and the same bytes.
	first, diff := r.diff("base"), r.diff("second")
	r.apply("base2", "", first)
	r.apply("second2", "base2", diff)
	equal(t, "base, exported and loaded", r.view("base2", true), r.view("base", true))
	equal(t, "second, exported and loaded", r.view("second2", true), r.view("second", true))
	if !bytes.Equal(r.diff("base2"), first) || !bytes.Equal(r.diff("second2"), diff) {
		t.Error("the same tree was exported as other bytes")
	}
}

func (r *rig) checkImage(at string) {
	r.t.Helper()
	for path, mode := range map[string]os.FileMode{
		"usr/bin/su": 0o755 | os.ModeSetuid, "usr/bin/wall": 0o755 | os.ModeSetgid, "var/spool": 0o777 | os.ModeDir | os.ModeSticky,
		"etc": 0o750 | os.ModeDir, ".": 0o555 | os.ModeDir, "run/fifo": 0o600 | os.ModeNamedPipe,
	} {
		if st, err := os.Lstat(at + "/" + path); err != nil || st.Mode() != mode {
			r.t.Errorf("%s: mode %v, %v; want %v", path, st.Mode(), err, mode)
		}
	}
	reads(r.t, at+"/bin/ping", "ping")
	reads(r.t, at+"/ünï/cödé \\ \"q\"\n", "odd")
	var a, b, sparse unix.Stat_t
	r.ok(unix.Stat(at+"/usr/bin/perl", &a))
	r.ok(unix.Stat(at+"/usr/bin/perl5", &b))
	if a.Ino != b.Ino || a.Nlink != 2 {
		r.t.Errorf("hard links came apart: inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
	r.ok(unix.Stat(at+"/var/sparse", &sparse))
	if sparse.Size != 3<<20+3 || sparse.Blocks*512 > 1<<20 {
		r.t.Errorf("a sparse file of %d bytes takes %d", sparse.Size, sparse.Blocks*512)
	}
	if os.Geteuid() == 0 || r.Capabilities().KeepsOwners {
		r.ok(unix.Stat(at+"/etc", &a))
		if a.Uid != 3 || a.Gid != 4 {
			r.t.Errorf("etc is owned by %d:%d, want 3:4", a.Uid, a.Gid)
		}
	}
	v, err := r.View("base")
	r.ok(err)
	defer v.Close()
	n, err := v.Find("usr/bin/ping")
	r.ok(err)
	defer n.Close()
	attrs, err := n.Xattrs()
	r.ok(err)
	if attrs["security.capability"] != capability && os.Geteuid() == 0 && initialNamespace() {
		r.t.Errorf("the capabilities of ping are lost: %q", attrs)
	}
}

// Everything that is done through a view is what the layer says afterwards.
func testContent(t *testing.T, b *bench) {
	r := b.rig(t)
	r.apply("base", "", image(t))
	r.create("work", "base")
	at := r.mount("work")
	r.ok(os.Chmod(at, 0o755)) // the image's root is nobody's to write to but root's
	r.ok(os.Remove(at + "/etc/shadow"))
	r.ok(os.RemoveAll(at + "/etc/conf.d"))
	write(t, at+"/etc/conf.d/new", "in a directory that was deleted and made again")
	r.ok(os.Chmod(at+"/usr/bin/wall", 0o700))
	f, err := os.OpenFile(at+"/usr/bin/perl", os.O_WRONLY|os.O_APPEND, 0)
	r.ok(err)
	_, err = f.WriteString(" appended")
	r.ok(errors.Join(err, f.Close()))
	r.ok(os.Rename(at+"/usr/bin/ping", at+"/usr/bin/pong"))
	if err := os.Rename(at+"/var", at+"/var.moved"); errors.Is(err, unix.EXDEV) {
		t.Log("this engine moves no directories of lower layers; programs copy instead")
		r.ok(copyTree(at+"/var", at+"/var.moved"))
		r.ok(os.RemoveAll(at + "/var"))
	} else {
		r.ok(err)
	}
	write(t, at+"/linked", "twice")
	r.ok(os.Link(at+"/linked", at+"/again"))
	r.ok(os.Symlink("/etc/motd", at+"/sym"))
	r.ok(unix.Mkfifo(at+"/pipe", 0o640))
	_ = unix.Setxattr(at+"/linked", "user.x", []byte("y"), 0) // where views have them
	r.ok(os.Truncate(at+"/linked", 1<<20))
	owners := os.Geteuid() == 0
	live := dumpDir(t, at, owners)
	r.unmount("work")

	equal(t, "after unmounting", r.view("work", owners), live)
	diff := r.diff("work")
	if strings.Contains(string(diff), "SCHILY.xattr.trusted.overlay") || strings.Contains(string(diff), "SCHILY.xattr.user.overlay") {
		t.Error("the archive holds marks of the union")
	}
	of := archivedOwners(t, diff)
	for _, name := range []string{"sym", "pipe"} {
		if of[name] != of["linked"] {
			t.Errorf("%s belongs to %s in the archive, another file that the same user made to %s", name, of[name], of["linked"])
		}
	}
	r.ok(r.Commit(r.ctx, "work"))
	equal(t, "after commit", r.view("work", owners), live)
	if !bytes.Equal(r.diff("work"), diff) {
		t.Error("committing changes what the layer is exported as")
	}
	r.create("child", "work")
	at = r.mount("child")
	equal(t, "from a child", dumpDir(t, at, owners), live)
	r.unmount("child")
	r.apply("copy", "base", diff)
	equal(t, "exported and loaded", r.view("copy", owners), live)
	r.apply("intact", "", r.diff("base"))
	equal(t, "the parent", r.view("base", true), r.view("intact", true))
}

func copyTree(from, to string) error {
	return errors.Join(os.CopyFS(to, os.DirFS(from)))
}

// archivedOwners tells whose the entries of an archive are.
func archivedOwners(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	of := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return of
		}
		if err != nil {
			t.Fatal(err)
		}
		of[h.Name] = fmt.Sprintf("%d:%d", h.Uid, h.Gid)
	}
}

// An archive that would be something else than its author saw is refused by the
// name of the entry, and nothing outside of the layer is touched.
func testHostile(t *testing.T, b *bench) {
	r := b.rig(t)
	r.apply("base", "", archive(t,
		entry{name: "d/", typ: tar.TypeDir}, entry{name: "d/f", data: "f"},
		entry{name: "out", typ: tar.TypeSymlink, link: "/tmp"}, entry{name: "up", typ: tar.TypeSymlink, link: "../../.."}))
	for i, c := range []struct {
		what    string
		entries []entry
		culprit string
	}{
		{"absolute name", []entry{{name: "/abs", data: "x"}}, "/abs"},
		{"parent directory", []entry{{name: "d/../../x", data: "x"}}, "d/../../x"},
		{"below a link of its own", []entry{{name: "l", typ: tar.TypeSymlink, link: "/tmp"}, {name: "l/x", data: "x"}}, "l/x"},
		{"below a link of a lower layer", []entry{{name: "out/x", data: "x"}}, "out/x"},
		{"below a relative link", []entry{{name: "up/x", data: "x"}}, "up/x"},
		{"below a file", []entry{{name: "d/f/x", data: "x"}}, "d/f/x"},
		{"hard link outside", []entry{{name: "h", typ: tar.TypeLink, link: "../../etc/passwd"}}, "h"},
		{"absolute hard link", []entry{{name: "h", typ: tar.TypeLink, link: "/etc/passwd"}}, "h"},
		{"hard link through a link", []entry{{name: "h", typ: tar.TypeLink, link: "out/x"}}, "h"},
		{"hard link to a directory", []entry{{name: "h", typ: tar.TypeLink, link: "d"}}, "h"},
		{"hard link to nothing", []entry{{name: "h", typ: tar.TypeLink, link: "nothing"}}, "h"},
		{"whiteout of the directory", []entry{{name: "d/.wh.."}}, "d/.wh.."},
		{"whiteout of its parent", []entry{{name: "d/.wh..."}}, "d/.wh..."},
		{"whiteout of nothing", []entry{{name: ".wh."}}, ".wh."},
		{"the same file twice", []entry{{name: "t", data: "1"}, {name: "t", data: "2"}}, "t"},
		{"a file as a directory", []entry{{name: "t", data: "1"}, {name: "t/", typ: tar.TypeDir}}, "t/"},
		{"a directory as a file", []entry{{name: "t/", typ: tar.TypeDir}, {name: "t", data: "1"}}, "t"},
		{"the root as a file", []entry{{name: ".", data: "x"}}, "."},
		{"a name that is too long", []entry{{name: strings.Repeat("x", 256), data: "x"}}, strings.Repeat("x", 256)},
		{"too much", []entry{{name: "big", data: strings.Repeat("x", 1<<20+1)}}, "big"},
	} {
		id := fmt.Sprintf("hostile%d", i)
		r.create(id, "base")
		_, err := r.Apply(r.ctx, id, bytes.NewReader(archive(t, c.entries...)), tree.ApplyOptions{MaxBytes: 1 << 20})
		var e *tree.EntryError
		if !errors.As(err, &e) || e.Entry != c.culprit || !errors.Is(err, tree.ErrRefused) {
			t.Errorf("%s: %v; want a refusal of %q", c.what, err, c.culprit)
		}
		r.ok(r.Remove(r.ctx, id))
	}
	r.create("short", "base")
	whole := archive(t, entry{name: "short", data: strings.Repeat("x", 5000)})
	if _, err := r.Apply(r.ctx, "short", bytes.NewReader(whole[:3000]), tree.ApplyOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an archive that ends within a file: %v", err)
	}
	r.ok(r.Remove(r.ctx, "short"))
	if ids, err := r.Layers(); err != nil || !slices.Equal(ids, []string{"base"}) {
		t.Errorf("left: %q, %v", ids, err)
	}
}

// Stacks of hundreds of layers show what each of them has said last.
func testDeep(t *testing.T, b *bench) {
	r := b.rig(t)
	depth := b.subject.Deepest
	if most := r.Capabilities().MaxDepth; most > 0 {
		depth = min(depth, most)
	}
	parent := ""
	for i := range depth {
		id := fmt.Sprintf("l%d", i)
		entries := []entry{{name: "files/", typ: tar.TypeDir}, {name: fmt.Sprintf("files/%d", i), data: fmt.Sprint(i)}, {name: "last", data: fmt.Sprint(i)}}
		if i > 1 && i%3 == 0 {
			entries = append(entries, entry{name: fmt.Sprintf("files/.wh.%d", i-2)})
		}
		r.apply(id, parent, archive(t, entries...))
		parent = id
	}
	start := time.Now()
	r.create("top", parent)
	at := r.mount("top")
	t.Logf("%d layers: created and mounted in %v", depth, time.Since(start))
	reads(t, at+"/last", fmt.Sprint(depth-1))
	want := 0
	for i := range depth {
		gone := i%3 == 1 && i+2 < depth && i+2 > 1
		_, err := os.Stat(fmt.Sprintf("%s/files/%d", at, i))
		if gone != errors.Is(err, os.ErrNotExist) {
			t.Fatalf("files/%d: %v", i, err)
		}
		if !gone {
			want++
		}
	}
	if list, err := os.ReadDir(at + "/files"); err != nil || len(list) != want {
		t.Errorf("%d files listed, %v; want %d", len(list), err, want)
	}
	write(t, at+"/files/0", "changed")
	r.unmount("top")
	if got, want := r.changes("top"), []string{"C files/0"}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if most := r.Capabilities().MaxDepth; most > 0 && depth == most {
		r.ok(r.Commit(r.ctx, "top"))
		r.fails(r.Create(r.ctx, "beyond", "top", driver.CreateOptions{}), driver.ErrTooDeep)
	}
}

// full reports whether an error says so, as filesystems do that have no room, or as
// those whose quota is used up.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// A layer with a limit is full when it is reached, whatever the filesystem.
func testLimits(t *testing.T, b *bench) {
	r := b.rig(t)
	caps := r.Capabilities()
	o := driver.CreateOptions{Size: 4 << 20, Inodes: 50}
	if !caps.Size || !caps.Inodes {
		r.fails(r.Create(r.ctx, "limited", "", o), driver.ErrUnsupported)
		return
	}
	r.ok(r.Create(r.ctx, "limited", "", o))
	at := r.mount("limited")
	big := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(big) // what no compression makes smaller
	if err := os.WriteFile(at+"/big", big, 0o644); !full(err) {
		t.Errorf("writing twice the limit: %v, want ENOSPC or EDQUOT", err)
	}
	r.ok(os.Remove(at + "/big"))
	var err error
	for i := 0; i < 60 && err == nil; i++ {
		err = os.WriteFile(fmt.Sprintf("%s/f%d", at, i), nil, 0o644)
	}
	if !full(err) {
		t.Errorf("making more files than the limit: %v, want ENOSPC or EDQUOT", err)
	}
	r.unmount("limited")
	l, err := r.Layer("limited")
	if err != nil || l.Size != o.Size || l.Inodes != o.Inodes {
		t.Errorf("the limits are not kept: %+v, %v", l, err)
	}
}
