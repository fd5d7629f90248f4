//go:build integration

package datasets

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory returns what the server's process takes, as the kernel tells it.
func (s *server) memory() string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	return string(regexp.MustCompile(`VmRSS:\s*(.*)`).Find(text))
}

// A directory of very many names, as mail stores and caches have, lists each of them
// once and finds each of them, also after it was mounted again, and can be emptied.
// LAMINA_DIR_ENTRIES says how many.
func TestALargeDirectory(t *testing.T) {
	s, dir := mounted(t, 0, "")
	many := number("LAMINA_DIR_ENTRIES", 10_000)
	large := filepath.Join(dir, "large")
	if err := os.Mkdir(large, 0o755); err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return filepath.Join(large, fmt.Sprintf("entry-%08d", i)) }
	timed := func(what string, f func()) {
		start := time.Now()
		f()
		t.Logf("%d entries %s: %v; the server has %s", many, what, time.Since(start).Round(time.Millisecond), s.memory())
	}
	timed("made", func() {
		for i := range many {
			fd, err := unix.Open(name(i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
	})
	list := func() {
		d, err := os.Open(large)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		seen := make([]bool, many)
		for {
			names, err := d.Readdirnames(1000)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				var i int
				if _, err := fmt.Sscanf(n, "entry-%d", &i); err != nil || i >= many || seen[i] {
					t.Fatalf("%q is listed twice, or nobody has made it (%v)", n, err)
				}
				seen[i] = true
			}
		}
		for i, ok := range seen {
			if !ok {
				t.Fatalf("%s is not listed", name(i))
			}
		}
	}
	timed("listed", list)
	s.ask("umount", dir)
	timed("mounted again", func() { s.ask("mount", "set", dir, "") })
	timed("listed anew", list)
	timed("found at random, a tenth of them", func() {
		for range many / 10 {
			if _, err := os.Lstat(name(rand.IntN(many))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Lstat(name(many)); !os.IsNotExist(err) {
			t.Errorf("a name that nobody has made: %v", err)
		}
	})
	timed("removed", func() {
		for i := range many {
			if err := unix.Unlink(name(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Rmdir(large); err != nil {
			t.Error(err)
		}
	})
}
