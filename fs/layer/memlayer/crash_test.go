package memlayer_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"golang.org/x/sys/unix"
)

// read returns the content of a file, "absent" for none.
func read(t *testing.T, fs *memlayer.FS, name string) string {
	t.Helper()
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile(name, unix.O_RDONLY, 0)
	if err == unix.ENOENT {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	n, err := f.ReadAt(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// crashes calls check with every state that a crash can leave.
func crashes(t *testing.T, fs *memlayer.FS, check func(step int, p memlayer.Policy, after *memlayer.FS)) {
	t.Helper()
	for n := range len(fs.Steps()) + 1 {
		for _, p := range memlayer.Policies() {
			check(n, p, fs.Crash(n, p))
		}
	}
}

func TestCarefulReplacementSurvivesEveryCrash(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`file f "old"`)
	fs.Record()
	root := fs.Root()
	defer root.Close()
	long := strings.Repeat("new", 10000)
	if err := replaceFile(root, long); err != nil {
		t.Fatal(err)
	}
	steps := fs.Steps()
	if len(steps) != 4 {
		t.Fatalf("steps are %v", steps)
	}
	crashes(t, fs, func(n int, p memlayer.Policy, after *memlayer.FS) {
		want := "old"
		if n == 4 {
			want = long
		}
		if got := read(t, after, "file"); got != want {
			t.Errorf("%v after step %d: file has %d bytes", p, n, len(got))
		}
		// Its name is in the way of the next attempt, as in life.
		if got := read(t, after, "tmp"); (got != "absent") != (n >= 1 && n <= 3) {
			t.Errorf("%v after step %d: tmp is %.10s", p, n, got)
		}
	})
}

func TestCarelessReplacementIsCaught(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`file f "old"`)
	fs.Record()
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile("tmp", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("n", 40960)), 0); err != nil {
		t.Fatal(err)
	}
	if err := root.Rename("tmp", root, "file", 0); err != nil {
		t.Fatal(err)
	}
	last := len(fs.Steps())
	for p, want := range map[memlayer.Policy]string{
		memlayer.Kill:   strings.Repeat("n", 40960),
		memlayer.Lost:   "",
		memlayer.Short:  strings.Repeat("n", 20480),
		memlayer.Zeroed: strings.Repeat("\x00", 40960),
	} {
		if got := read(t, fs.Crash(last, p), "file"); got != want {
			t.Errorf("%v: file has %d bytes, %.10q", p, len(got), got)
		}
	}
	seen := make(map[string]bool)
	for seed := range uint64(50) {
		seen[read(t, fs.Crash(last, memlayer.Torn(seed)), "file")] = true
	}
	if len(seen) < 10 {
		t.Errorf("fifty torn states are only %d different ones", len(seen))
	}
}

func TestOverwritingTearsBlocksButNotSyncedOnes(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(c string, block, count int) {
		t.Helper()
		if _, err := f.WriteAt([]byte(strings.Repeat(c, count*4096)), int64(block)*4096); err != nil {
			t.Fatal(err)
		}
	}
	write("a", 0, 8)
	fs.Record()
	write("b", 0, 2)
	if err := f.Sync(true); err != nil {
		t.Fatal(err)
	}
	write("c", 2, 4)
	write("d", 8, 2)
	if err := f.Truncate(11 * 4096); err != nil { // sets the size on disk
		t.Fatal(err)
	}
	last := len(fs.Steps())
	blocks := func(p memlayer.Policy, n int) string {
		s := read(t, fs.Crash(n, p), "f")
		var out strings.Builder
		for k := 0; k < len(s); k += 4096 {
			if strings.Trim(s[k:k+4096], s[k:k+1]) != "" {
				t.Errorf("%v: block %d is mixed", p, k/4096)
			}
			out.WriteString(strings.ReplaceAll(s[k:k+1], "\x00", "0"))
		}
		return out.String()
	}
	for _, x := range []struct {
		p    memlayer.Policy
		n    int
		want string
	}{
		{memlayer.Kill, last, "bbccccaadd0"},
		{memlayer.Lost, last, "bbaaaaaa000"},
		{memlayer.Lost, last - 1, "bbaaaaaa"},
		{memlayer.Zeroed, last - 1, "bbaaaaaa00"},
		{memlayer.Short, last - 1, "bbcccaaa"},
		{memlayer.Lost, 1, "aaaaaaaa"},
		{memlayer.Lost, 2, "bbaaaaaa"},
		{memlayer.Kill, 0, "aaaaaaaa"},
	} {
		if got := blocks(x.p, x.n); got != x.want {
			t.Errorf("%v after step %d: blocks %s, want %s", x.p, x.n, got, x.want)
		}
	}
	for seed := range uint64(30) {
		got := blocks(memlayer.Torn(seed), last)
		for k, c := range got {
			if allowed := []string{"b", "b", "ac", "ac", "ac", "ac", "a", "a", "d0", "d0", "0"}[k]; !strings.ContainsRune(allowed, c) {
				t.Errorf("seed %d: block %d is %c, which nothing wrote there", seed, k, c)
			}
		}
	}
}

func TestCutOffBytesNeverComeBack(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`f f "secret-secret"`)
	fs.Record()
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile("f", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("S"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(6); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(13); err != nil {
		t.Fatal(err)
	}
	for _, p := range memlayer.Policies() {
		if got := read(t, fs.Crash(3, p), "f"); got[1:] != "ecret\x00\x00\x00\x00\x00\x00\x00" {
			t.Errorf("%v: %q", p, got)
		}
	}
}

func TestCrashRemovesFilesWithoutNames(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`f f "x"`)
	fs.Record()
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile("f", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tmp, err := root.TmpFile(0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if err := root.Unlink("f"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("still here"), 0); err != nil {
		t.Fatal(err)
	}
	if err := root.Link(tmp, "named"); err != nil {
		t.Fatal(err)
	}
	crashes(t, fs, func(n int, p memlayer.Policy, after *memlayer.FS) {
		if after.Orphans() != 0 || len(after.Open()) != 0 {
			t.Errorf("%v after step %d: %d orphans, open %q", p, n, after.Orphans(), after.Open())
		}
		if got := read(t, after, "named") != "absent"; got != (n == 4) {
			t.Errorf("%v after step %d: named is there: %v", p, n, got)
		}
	})
	if fs.Orphans() != 1 {
		t.Errorf("the living filesystem has %d orphans, want the open file", fs.Orphans())
	}
}

// TestReplayIsExact crashes after each step of random calls: what was recorded
// then is what is replayed now, times and inode numbers included.
func TestReplayIsExact(t *testing.T) {
	for seed := range uint64(8) {
		fs := memlayer.New(memlayer.Options{Reflink: true})
		fs.MustBuild("a f \"content\"\nb/c f \"x\"")
		fs.Record()
		d := newDriver(fs.Root(), seed)
		states := []string{exact(t, fs)}
		for range 300 {
			d.call()
			for now := exact(t, fs); len(states) <= len(fs.Steps()); {
				states = append(states, now)
			}
		}
		d.close()
		for n, want := range states {
			if n+1 < len(states) && n%7 != 0 {
				continue
			}
			if got := exact(t, fs.Crash(n, memlayer.Kill)); got != want {
				t.Fatalf("seed %d, step %d: replayed\n%s\nwas\n%s", seed, n, got, want)
			}
		}
	}
}

// exact is Dump with times and inode numbers.
func exact(t *testing.T, fs *memlayer.FS) string {
	t.Helper()
	root := fs.Root()
	defer root.Close()
	var out strings.Builder
	var walk func(d layer.Dir, path string)
	walk = func(d layer.Dir, path string) {
		list, err := d.ReadDir()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			st, err := d.StatAt(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "%s/%s %+v\n", path, e.Name, st)
			if st.IsDir() {
				sub, err := d.OpenDir(e.Name)
				if err != nil {
					t.Fatal(err)
				}
				walk(sub, path+"/"+e.Name)
				sub.Close()
			}
		}
	}
	walk(root, "")
	return out.String() + fs.Dump()
}
