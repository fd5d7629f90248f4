package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Layers come and go under the feet of who uses the union: the tree is that of
// the new stack at once, whatever the kernel has in its caches, and an open file
// stays readable.
func TestBranchesChangeWhileMounted(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.sh(`mkdir -p a/d b/d b/new c/d up2 w2
			echo a >a/d/fa; echo b >b/d/fb; echo c >c/d/fc; echo under >a/x; echo over >b/x; ln -s x b/dead; : >b/d/.wh.fa`)
		s.ok("lamina", "mount", "--engine", "fuse", "--lower", "a", "--lower", "c", "--upper", "up2", "--work", "w2", "mnt")
		defer s.run("lamina", "umount", "-l", "mnt")
		look := func(what, want string) {
			t.Helper()
			if got := s.sh("cd mnt; find . | sort | tr '\\n' ' '; cat x d/*; cat new/none dead 2>/dev/null || :"); got != want {
				t.Errorf("%s:\n got %q\nwant %q", what, got, want)
			}
		}
		const without = ". ./d ./d/fa ./d/fc ./x under\na\nc\n"
		look("before", without)
		s.ok("lamina", "branch", "add", "mnt", "b")
		look("with b on top", ". ./d ./d/fb ./d/fc ./dead ./new ./x over\nb\nc\nover\n")
		s.ok("lamina", "branch", "del", "mnt", "b")
		look("without b", without)
		s.ok("lamina", "branch", "add", "--index", "-1", "mnt", "b")
		look("with b below", ". ./d ./d/fa ./d/fb ./d/fc ./dead ./new ./x under\na\nb\nc\nunder\n")
		got := s.sh("exec 5<mnt/d/fb; lamina branch del mnt b; cat <&5; cat mnt/d/fb 2>/dev/null || echo gone")
		if got != "b\ngone\n" {
			t.Errorf("an open file of a layer that is taken out: %q", got)
		}
		// What is changed while a layer is there stays when it goes.
		s.ok("lamina", "branch", "add", "mnt", "b")
		s.sh("echo more >>mnt/x; mv mnt/d/fb mnt/d/moved; rm mnt/d/fc")
		s.ok("lamina", "branch", "del", "mnt", "b")
		look("after changes", ". ./d ./d/fa ./d/moved ./x over\nmore\na\nb\n")
	})
}

func TestBranchRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "mount", "--engine", "fuse", "--lower", "base", "mnt")
		defer s.run("lamina", "umount", "-l", "mnt")
		s.sh("mkdir -p base/sub")
		for _, c := range []struct{ args, says string }{
			{"add mnt nowhere", "make it first"},
			{"add mnt base/base-only", "is a directory"},
			{"add --index 7 mnt app", "no place 7 among 1"},
			{"add mnt mnt/sub", "lies in the union itself"},
			{"del mnt app", "no lower layer"},
			{"del mnt base", "only layer"},
			{"mod mnt sideways", "accepted: ro, rw"},
		} {
			got := s.run(append([]string{"lamina", "branch"}, strings.Fields(c.args)...)...)
			if got.status == 0 || !strings.Contains(got.stderr, c.says) {
				t.Errorf("branch %s: status %d, %q, want %q", c.args, got.status, got.stderr, c.says)
			}
		}
	})
}

// The filesystem of a layer that was taken out can be unmounted, unless a file
// of it is in use.
func TestBranchThatIsGoneIsClosed(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "mount", "--engine", "fuse", "--lower", "base", "--upper", "upper", "--work", "work", "mnt")
		defer s.run("lamina", "umount", "-l", "mnt")
		var rows []mountRow
		if err := json.Unmarshal([]byte(s.ok("lamina", "ps", "--json")), &rows); err != nil || len(rows) != 1 {
			t.Fatalf("ps: %v", err)
		}
		s.sh("mkdir app/deep && cp app/both app/deep; ls mnt")
		s.sh("for i in 1 2 3 4 5; do lamina branch add mnt app; cat mnt/both mnt/deep/both >/dev/null; ls -l mnt mnt/deep >/dev/null; lamina branch del mnt app; done")
		fds := fmt.Sprintf("/proc/%d/fd", rows[0].PID)
		list, err := os.ReadDir(fds)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			st, err := os.Stat(filepath.Join(fds, e.Name()))
			for _, name := range []string{"app", "app/deep", "app/both"} {
				if of, err2 := os.Stat(filepath.Join(s.dir, name)); err2 != nil || err == nil && os.SameFile(st, of) {
					t.Errorf("%s is still open (%v)", name, err2)
				}
			}
		}
		if got := s.sh("cat mnt/both; ls mnt"); got != "basebase-only\nboth\n" {
			t.Errorf("in the union: %q", got)
		}
	})
}
