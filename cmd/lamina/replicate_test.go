package main

import (
	"strings"
	"testing"
)

// Whole trees go from pool to pool: snapshots, clones and properties. What has arrived
// is not sent for twice, and what was cut off goes on.
func TestTreesOfDatasetsAreReplicated(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		for _, pool := range []string{"a", "b"} {
			s.ok("lamina", "pool", "create", "--size", "512M", pool)
			defer s.run("lamina", "pool", "stop", "--force", pool)
		}
		s.sh(`mkdir m; set -x
			lamina dataset create -o compression=zstd -o com.example:note=hello a/home
			lamina dataset create -o quota=100M a/home/sub
			lamina dataset mount a/home m; cp -r /usr/include/linux m/ 2>/dev/null || cp -r /etc m/ 2>/dev/null || :
			head -c 3000000 /dev/urandom >m/big
			lamina dataset snapshot -r a/home@1
			lamina dataset clone a/home@1 a/home/clone
			echo two >m/two; lamina dataset snapshot -r a/home@2
			rm m/big; lamina dataset snapshot -r a/home@3
			lamina dataset umount a/home
			lamina dataset send -R a/home@2 >stream
			lamina dataset receive b/copy <stream`)
		const want = "clone@2 sub@1 sub@2 @1 @2 "
		if got := s.sh(`lamina dataset list -H -o name -r -t snapshot b | sed 's,b/copy/*,,' | tr '\n' ' '`); got != want {
			t.Errorf("received are %q, want %q", got, want)
		}
		got := s.sh(`lamina dataset get -H -s local -o name,property,value compression,quota,com.example:note,origin b/copy b/copy/sub b/copy/clone
			lamina dataset get -H -o value origin b/copy/clone`)
		if want := "b/copy\tcompression\tzstd\nb/copy\tcom.example:note\thello\nb/copy/sub\tquota\t100M\nb/copy@1\n"; got != want {
			t.Errorf("properties are %q, want %q", got, want)
		}
		// Through a pipe, twice; and one that was cut off.
		s.sh(`for i in 1 2; do lamina dataset send -R -I @2 a/home@3 | lamina dataset receive -x quota b/copy; done
			head -c 2500000 stream | lamina dataset receive b/cut 2>cut && exit 1
			grep -q 'send the same once more' cut
			lamina dataset receive b/cut <stream
			lamina dataset send a/home@1 | lamina dataset receive -o readonly=on b/one
			lamina dataset send -I @1 a/home@3 | lamina dataset receive -o com.example:by=hand b/one
			[ "$(lamina dataset get -H -o value com.example:by b/one)" = hand ]`)
		for _, copied := range []string{"copy@3", "cut@2", "one@3"} {
			of, snap, _ := strings.Cut(copied, "@")
			s.sh(`lamina dataset mount b/` + of + ` m; lamina dataset diff --json b/` + copied + ` b/` + of + ` >changed
				[ ! -s changed ]; (cd m && find . -type f -exec sha256sum {} + | sort) >got; lamina dataset umount m
				lamina dataset mount a/home m
				(cd m/.lamina/snapshot/` + snap + ` && find . -type f -exec sha256sum {} + | sort) >want; lamina dataset umount m
				[ -s want ]; cmp want got`)
		}
		s.sh(`lamina dataset create a/home/new`)
		for _, c := range []struct{ script, says string }{
			{"lamina dataset send -R a/home@3 | cat >/dev/null", "home/new has no snapshot 3"},
			{"lamina dataset send -R -I @9 a/home@3 | cat >/dev/null", "no snapshot 9"},
			{"lamina dataset send -s a/home@3 >/dev/null", "needs -R"},
			{"lamina dataset send -I @1 -i @1 a/home@3 >/dev/null", "not both"},
			{"lamina dataset receive b/x@y <stream", "name the dataset only"},
			{"lamina dataset receive -o origin=b/copy@1 b/x <stream", "leave -o origin out"},
			{"lamina dataset receive -o readonly b/x <stream", "PROPERTY=VALUE"},
			{"echo junk | lamina dataset receive b/x", "before its end"},
		} {
			if got := s.run("sh", "-c", c.script); !strings.Contains(got.stderr, c.says) {
				t.Errorf("%s: %+v", c.script, got)
			}
		}
		s.sh(`lamina dataset send -R -s a/home@3 >/dev/null
			for p in a b; do lamina pool stop $p; lamina pool check --data $p; done`)
	})
}
