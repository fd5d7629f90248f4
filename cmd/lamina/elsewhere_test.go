package main

import (
	"strings"
	"testing"
)

// elsewhere has a mount namespace made that keeps a copy of all mounts whatever becomes
// of them here, as `unshare -m` makes one, and returns what ends it.
func (s *stage) elsewhere(t *testing.T) (end func()) {
	t.Helper()
	s.sh(`rm -f elsewhere; unshare -Urm --propagation private sh -c 'echo $$ >elsewhere; exec sleep 60' >/dev/null 2>&1 &
		for i in $(seq 200); do [ -s elsewhere ] && exit; sleep 0.05; done; exit 1`)
	return func() { s.sh("kill $(cat elsewhere) 2>/dev/null || :") }
}

// A mount namespace that was made meanwhile does not keep anybody from unmounting. What
// was written is with the upper then, and the copy works on.
func TestUnmountingWhatAnotherNamespaceHasToo(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "mount", "--engine", "fuse", "--lower", "base", "--upper", "up", "--work", "work", "mnt")
		defer s.run("lamina", "umount", "-l", "mnt")
		end := s.elsewhere(t)
		defer end()
		s.sh("echo written >mnt/file")
		if got := s.run("lamina", "umount", "mnt"); got.status != 0 || !strings.Contains(got.stderr, "(sleep) has a copy") {
			t.Errorf("umount: %+v", got)
		}
		if got := s.sh("cat up/file; cat /proc/$(cat elsewhere)/root$PWD/mnt/file"); got != "written\nwritten\n" {
			t.Errorf("the upper and the copy have %q", got)
		}
		end()
		s.sh(`for i in $(seq 200); do lamina mount --engine fuse --lower base --upper up --work work mnt 2>/dev/null && exit; sleep 0.05; done; exit 1`)
	})
}

func TestUnmountingADatasetThatAnotherNamespaceHasToo(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "pool", "create", "--size", "256M", "tank")
		defer s.run("lamina", "pool", "stop", "--force", "tank")
		s.ok("lamina", "dataset", "create", "tank/set")
		s.sh("mkdir -p mnt")
		s.ok("lamina", "dataset", "mount", "tank/set", "mnt")
		defer s.run("lamina", "dataset", "umount", "-f", "tank/set")
		end := s.elsewhere(t)
		defer end()
		s.sh("echo written >mnt/file")
		for _, c := range []struct {
			args   string
			status int
			says   string
		}{
			{"dataset umount tank/set", 0, "(sleep) has a copy"},
			{"dataset umount -a tank", 0, ""}, // it is not mounted any more
			{"dataset mount tank/set mnt", exitFailure, "(sleep) has a copy"},
			{"dataset destroy tank/set", exitFailure, "(sleep) has a copy"},
		} {
			got := s.run(append([]string{"lamina"}, strings.Fields(c.args)...)...)
			if got.status != c.status || !strings.Contains(got.stderr, c.says) || c.says == "" && got.stderr != "" {
				t.Errorf("lamina %s: %+v", c.args, got)
			}
		}
		end()
		s.sh(`for i in $(seq 200); do lamina dataset mount tank/set mnt 2>/dev/null && exec cat mnt/file; sleep 0.05; done; exit 1`)
		s.ok("lamina", "dataset", "destroy", "tank/set")
	})
}
