//go:build integration

package clients

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"
)

// epoch is the time of every file that was there before a flow began.
var epoch = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// A tree collects a root filesystem or a package as a tar.
type tree struct {
	t    testing.TB
	buf  bytes.Buffer
	tar  *tar.Writer
	dirs map[string]bool // directories and libraries that it has
	at   time.Time       // of what is added
}

func newTree(t testing.TB) *tree {
	b := &tree{t: t, dirs: map[string]bool{".": true}, at: epoch}
	b.tar = tar.NewWriter(&b.buf)
	return b
}

func (b *tree) add(h tar.Header, text []byte) {
	b.t.Helper()
	if parent := path.Dir(h.Name); !b.dirs[parent] {
		b.dir(parent, 0o755)
	}
	h.ModTime, h.Size = b.at, int64(len(text))
	if err := b.tar.WriteHeader(&h); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.tar.Write(text); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tree) dir(name string, mode int64) {
	b.t.Helper()
	b.dirs[name] = true
	b.add(tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, nil)
}

func (b *tree) file(name string, mode int64, text string) {
	b.t.Helper()
	b.add(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode}, []byte(text))
}

func (b *tree) symlink(name, target string) {
	b.t.Helper()
	b.add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}, nil)
}

func (b *tree) link(name, old string) {
	b.t.Helper()
	b.add(tar.Header{Name: name, Typeflag: tar.TypeLink, Mode: 0o644, Linkname: old}, nil)
}

func (b *tree) bytes() []byte {
	b.t.Helper()
	if err := b.tar.Close(); err != nil {
		b.t.Fatal(err)
	}
	return b.buf.Bytes()
}

// baseTree is the root filesystem that images are built from: busybox, tools of
// this machine, and directories for each of the Containerfile's steps.
func baseTree(t testing.TB) []byte {
	b := newTree(t)
	for _, name := range []string{"proc", "sys", "dev", "run"} {
		b.dir(name, 0o755)
	}
	for _, name := range []string{"tmp", "var/tmp"} {
		b.dir(name, 0o1777)
	}
	b.busybox()
	for _, tool := range []string{"dpkg", "dpkg-deb", "dpkg-split", "tar", "setfattr", "getfattr"} {
		b.hostTool(tool)
	}
	b.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
	b.file("etc/group", 0o644, "root:x:0:\n")
	b.file("etc/motd", 0o644, "welcome\n")
	for _, name := range []string{"status", "available"} {
		b.file("var/lib/dpkg/"+name, 0o644, "")
	}
	for _, name := range []string{"info", "updates", "triggers"} {
		b.dir("var/lib/dpkg/"+name, 0o755)
	}
	b.plot()
	return b.bytes()
}

// plot lays out the files that the Containerfile works on.
func (b *tree) plot() {
	for _, name := range []string{"keep", "gone", "old", "swapped", "again", "owned", "moved/sub"} {
		for i := range 4 {
			b.file(fmt.Sprintf("data/%s/f%d", name, i), 0o644, fmt.Sprintf("%s %d\n", name, i))
		}
	}
	for i := range 300 {
		b.file(fmt.Sprintf("data/wide/entry-%03d", i), 0o644, "")
	}
	b.file("data/file", 0o640, "a file\n")
	b.file("data/tool", 0o755, "#!/bin/sh\necho tool\n")
	b.file("data/big", 0o644, strings.Repeat("0123456789abcdef", 1<<16))
	b.file("data/links/a", 0o644, "linked\n")
	b.link("data/links/b", "data/links/a")
	b.link("data/links/sub/c", "data/links/a")
	b.symlink("data/relative", "keep/f0")
	b.symlink("data/dangling", "nowhere")
	b.add(tar.Header{Name: "data/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, nil)
	b.dir("data/sticky", 0o1777)
	b.dir("data/group", 0o2775)
	b.file(longName, 0o644, "long\n")
}

// longName has a last part that leaves no room for more than a layer's ".wh."
// when it is removed.
var longName = "data/" + strings.Repeat("n", 251)

// busybox adds the busybox of this machine under all its names.
func (b *tree) busybox() {
	b.t.Helper()
	host, err := exec.LookPath("busybox")
	if err != nil {
		b.t.Skip(err)
	}
	list, err := exec.Command(host, "--list").Output()
	if err != nil {
		b.t.Fatal(err)
	}
	b.program(host, "bin/busybox")
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			b.symlink("bin/"+applet, "busybox")
		}
	}
}

// hostTool adds a program of this machine, if it has it. Else the scripts take
// busybox's, or do without.
func (b *tree) hostTool(name string) {
	b.t.Helper()
	if host, err := exec.LookPath(name); err == nil {
		b.program(host, "usr/bin/"+name)
	}
}

// library finds the paths in what ldd(1) prints.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// program adds a program under a name, and the libraries that it needs, each once.
func (b *tree) program(host, name string) {
	b.t.Helper()
	b.copy(host, name)
	libs, err := exec.Command("ldd", host).Output()
	if err != nil {
		return // a static program
	}
	for _, m := range library.FindAllStringSubmatch(string(libs), -1) {
		if lib := strings.TrimPrefix(m[1], "/"); !b.dirs[lib] {
			b.dirs[lib] = true
			b.copy(m[1], lib)
		}
	}
}

func (b *tree) copy(host, name string) {
	b.t.Helper()
	text, err := os.ReadFile(host)
	if err != nil {
		b.t.Fatal(err)
	}
	b.file(name, 0o755, string(text))
}
