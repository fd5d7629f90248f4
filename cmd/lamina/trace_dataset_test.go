package main

import (
	"strings"
	"testing"
)

// What is traced of a dataset says in which dataset or snapshot it happened.
func TestTraceOfADataset(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "pool", "create", "--size", "256M", "tank")
		defer s.run("lamina", "pool", "stop", "--force", "tank")
		s.ok("lamina", "dataset", "create", "tank/set")
		s.sh("mkdir -p mnt")
		s.ok("lamina", "dataset", "mount", "tank/set", "mnt")
		defer s.run("lamina", "dataset", "umount", "-f", "tank/set")
		s.sh("mkdir mnt/dir; echo old >mnt/dir/file")
		s.ok("lamina", "dataset", "snapshot", "tank/set@monday")
		out := s.sh(`lamina trace mnt >trace 2>started & pid=$!
			for i in $(seq 200); do [ -s started ] && break; sleep 0.05; done; sleep 0.3
			echo new >>mnt/dir/file; mv mnt/dir mnt/moved; cat mnt/.lamina/snapshot/monday/dir/file
			for i in $(seq 200); do grep -q monday trace && grep -q RENAME trace && break; sleep 0.05; done
			kill -INT $pid; wait $pid || :; cat trace`)
		for _, want := range []string{"/dir/file  [set]", "/dir  [set]", "/dir/file  [set@monday]"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	})
}
