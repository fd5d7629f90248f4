package memlayer_test

import (
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"golang.org/x/sys/unix"
)

const tree = `
/ d 0755
"a b" f 0644 "quoted \"path\" # no comment"
bin d 0755
bin/ping f 4755 "\x7fELF" uid=1 gid=2 security.capability="\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
bin/sh l dash
dev d 1777
dev/blk b 0660 8:1
dev/null c 0666 1:3
empty d 0700 trusted.overlay.opaque="y"
etc d 0755 user.a=""
etc/passwd f 0600 "root:x:0:0\n" nlink=2
etc/passwd- h etc/passwd
gone c 0000 0:0
run d 0755
run/pipe p 0644
run/sock s 0600 uid=7 gid=7
strange l "=#"
`

func TestDumpIsWhatBuildTakes(t *testing.T) {
	text := strings.TrimPrefix(tree, "\n")
	fs := memlayer.New(memlayer.Options{})
	if err := fs.Build(text); err != nil {
		t.Fatal(err)
	}
	if got := fs.Dump(); got != text {
		t.Errorf("built\n%s\nwant\n%s", got, text)
	}
	if fs.Calls() != 0 || len(fs.Open()) != 0 {
		t.Errorf("building counted %d calls and left open %q", fs.Calls(), fs.Open())
	}
}

// TestBuildOnTheHost builds one tree in memory and on the host, for tests that
// compare the two.
func TestBuildOnTheHost(t *testing.T) {
	const text = "a/b f 0640 \"x\"\na/c h a/b\na/l l b\np p 0600\nempty d 0711\n/ d 0755"
	host, err := layer.OpenHostShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := memlayer.Build(host, text); err != nil {
		t.Fatal(err)
	}
	got, err := memlayer.Dump(host)
	if err != nil {
		t.Fatal(err)
	}
	fs := memlayer.New(memlayer.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	fs.MustBuild(text)
	if want := fs.Dump(); got != want {
		t.Errorf("host:\n%s\nmemory:\n%s", got, want)
	}
}

func TestBuildFillsIn(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`
		# a comment
		x/y/z  f "content" # directories on the way are made
		d      d
		d/old  f mtime=5.25
		sparse f size=1048576 4096="data"
		d      d 0700 uid=9  # and may be described later
	`)
	root := fs.Root()
	defer root.Close()
	st, err := root.StatAt("sparse")
	if err != nil || st.Size != 1<<20 || st.Blocks != 8 {
		t.Errorf("sparse file: %+v, %v", st, err)
	}
	d := fs.Dir("d")
	defer d.Close()
	st, err = d.StatAt("old")
	if want := (layer.Time{Sec: 5, Nsec: 250_000_000}); err != nil || st.Mtime != want {
		t.Errorf("mtime: %+v, %v", st.Mtime, err)
	}
	st, err = d.Stat()
	if err != nil || st.Mode != unix.S_IFDIR|0o700 || st.UID != 9 {
		t.Errorf("directory: %+v, %v", st, err)
	}
	if !strings.Contains(fs.Dump(), "sparse f 0644 size=1048576 hash=") {
		t.Errorf("a long file is shown as\n%s", fs.Dump())
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"\nfile":           `line 2, "file": after the path comes a type`,
		"file q":           "after the path comes a type",
		"file f \"x":       "a quote is not closed",
		"d d 0755 extra":   `"extra" has no meaning here`,
		"c c 0644 one:two": "no device number",
		"f f colour=red":   "the keys are",
		"f f user.a=\"\\q": "a quote is not closed",
		"h h absent":       "no such file",
		"a f\na f":         `line 2, "a f": file exists`,
	} {
		err := memlayer.New(memlayer.Options{}).Build(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
