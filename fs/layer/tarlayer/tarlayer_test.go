package tarlayer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// pack makes an archive of headers; regular files get their size in letters.
func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			w.Write(bytes.Repeat([]byte{'x'}, int(h.Size)))
		}
	}
	w.Close()
	return b.Bytes()
}

func open(t testing.TB, data []byte, o Options) *FS {
	t.Helper()
	f, err := Open("test.tar", bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// list returns all paths with type and size.
func list(t testing.TB, d layer.Dir, at string, out map[string]string) {
	t.Helper()
	entries, err := d.ReadDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := d.StatAt(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%o %d", st.Mode, st.Size)
		if st.IsRegular() {
			f, err := d.OpenFile(e.Name, unix.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, st.Size)
			if n, err := f.ReadAt(buf, 0); err != nil || n != len(buf) {
				t.Fatalf("%s/%s: %d of %d bytes, %v", at, e.Name, n, len(buf), err)
			}
			line += fmt.Sprintf(" %x", sum(buf))
		} else if st.IsDir() {
			line = fmt.Sprintf("%o", st.Mode)
		} else if l, err := d.ReadlinkAt(e.Name); err == nil {
			line = "-> " + l
		}
		out[at+"/"+e.Name] = line
		if st.IsDir() {
			sub, err := d.OpenDir(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			list(t, sub, at+"/"+e.Name, out)
			sub.Close()
		}
	}
}

func sum(b []byte) (s uint32) {
	for _, c := range b {
		s = s*31 + uint32(c)
	}
	return s
}

// What users would lose: an archive of GNU tar that reads otherwise than it
// unpacks.
func TestReadsWhatTarWrites(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is missing")
	}
	src := t.TempDir()
	long := strings.Repeat("long", 50)
	os.MkdirAll(filepath.Join(src, "d", long), 0o750)
	os.WriteFile(filepath.Join(src, "d", long, "f"), bytes.Repeat([]byte("abc"), 5000), 0o600)
	os.WriteFile(filepath.Join(src, "a\n\xff"), nil, 0o644)
	os.Symlink("/etc/passwd", filepath.Join(src, "l"))
	os.Link(filepath.Join(src, "d", long, "f"), filepath.Join(src, "hard"))
	hole, _ := os.Create(filepath.Join(src, "sparse"))
	hole.WriteAt([]byte("data"), 3<<20)
	hole.WriteAt([]byte("more"), 7<<20)
	hole.Close()
	host, err := layer.OpenHost(src)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	want := map[string]string{}
	list(t, host, "", want)
	for _, flags := range [][]string{{"--format=gnu"}, {"--format=pax"}, {"--format=gnu", "-S"}, {"--format=pax", "-S"}, {"-z"}, {"-z", "-S"}} {
		file := filepath.Join(t.TempDir(), "a.tar")
		out, err := exec.Command("tar", append(flags, "-C", src, "-cf", file, ".")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, _ := os.ReadFile(file)
		f := open(t, data, Options{})
		got := map[string]string{}
		list(t, f.Root(), "", got)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("tar %v\n got %q\nwant %q", flags, got, want)
		}
		if len(f.Problems()) > 0 {
			t.Errorf("problems: %q", f.Problems())
		}
	}
}

func TestHostileEntriesAreLeftOutAndTold(t *testing.T) {
	reg := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 3}
	}
	f := open(t, pack(t,
		reg("/etc/absolute"), reg("../../etc/up"), reg("a/../b"), reg(strings.Repeat("n", 300)), reg("file"), reg("file/below"),
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, reg("link/x"),
		reg(".wh..."), reg("./ok//x/"+"y"),
		tar.Header{Name: "d", Typeflag: tar.TypeLink, Linkname: "."},
		reg(strings.Repeat("p/", 5000)+"deep"),
	), Options{})
	got := map[string]string{}
	list(t, f.Root(), "", got)
	for _, p := range []string{"/etc", "/etc/absolute", "/file", "/link", "/ok", "/ok/x", "/ok/x/y"} {
		if _, ok := got[p]; !ok {
			t.Errorf("%s is missing", p)
		}
		delete(got, p)
	}
	if len(got) > 0 {
		t.Errorf("left over: %q", got)
	}
	if len(f.Problems()) != 9 {
		t.Errorf("%d problems: %q", len(f.Problems()), f.Problems())
	}
}

func TestABombIsCutOff(t *testing.T) {
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b)
	w := tar.NewWriter(z)
	const size = 1100 << 20 // the ratio counts from 1 GiB on
	w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: size, Mode: 0o644})
	chunk := make([]byte, 1<<20)
	for range size >> 20 {
		w.Write(chunk)
	}
	w.Close()
	z.Close()
	_, err := Open("bomb", bytes.NewReader(b.Bytes()), int64(b.Len()), Options{})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes that unpack to more than 1 GiB: %v", b.Len(), err)
	}
	var h []tar.Header
	for i := range 100 {
		h = append(h, tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Mode: 0o644})
	}
	many := pack(t, h...)
	if _, err := Open("many", bytes.NewReader(many), int64(len(many)), Options{Limits: Limits{Entries: 99}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("100 entries where 99 are allowed: %v", err)
	}
}

func TestAnImageCannotSetMarksOfAnOverlay(t *testing.T) {
	data := pack(t, tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.x": "y"}})
	has := func(o Options, attr string) bool {
		_, err := open(t, data, o).Root().GetxattrAt("d", attr, nil)
		return err == nil
	}
	if has(Options{Image: true}, "trusted.overlay.redirect") || !has(Options{Image: true}, "trusted.overlay.overlay.redirect") || !has(Options{Image: true}, "user.x") {
		t.Error("an image's redirect is one for the union")
	}
	if !has(Options{}, "trusted.overlay.redirect") {
		t.Error("an archived upper lost its redirect")
	}
}

func TestDamageIsAnErrorOfItsOwn(t *testing.T) {
	good := pack(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4000})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(good)
	w.Close()
	for name, data := range map[string][]byte{
		"cut": good[:1000], "text": []byte(strings.Repeat("this is no tar archive ", 100)), "short": []byte("x"),
		"gzip cut": z.Bytes()[:z.Len()/2], "header": append([]byte{0xff}, good[1:]...),
	} {
		if _, err := Open(name, bytes.NewReader(data), int64(len(data)), Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(pack(f, tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Size: 10}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a/b"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Open("fuzz", bytes.NewReader(data), int64(len(data)), Options{Limits: Limits{Entries: 1000, IndexBytes: 1 << 20, Bytes: 1 << 22}})
		if err != nil {
			return
		}
		defer a.Close()
		walk(t, a.Root(), 0)
	})
}

func walk(t *testing.T, d layer.Dir, depth int) {
	entries, _ := d.ReadDir()
	for _, e := range entries {
		if err := layer.CheckName(e.Name); err != nil {
			t.Fatalf("%q: %v", e.Name, err)
		}
		if sub, err := d.OpenDir(e.Name); err == nil {
			walk(t, sub, depth+1)
		} else if f, err := d.OpenFile(e.Name, unix.O_RDONLY, 0); err == nil {
			f.ReadAt(make([]byte, 100), 0)
		}
	}
}
