//go:build integration

package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A caller is a way to have the privilege to mount.
type caller struct {
	name    string
	account func(*testing.T) account
	prefix  []string // before each command
}

// callers are the three ways in which clients start a mount program.
var callers = []caller{
	{"root", func(*testing.T) account { return rootAccount }, nil},
	{"through fusermount3", rootlessAccount, nil},
	{"in a user namespace", rootlessAccount, []string{"unshare", "--user", "--map-root-user", "--mount"}},
}

// A store is a directory like that of containers/storage: three layers, the last
// of which has a second directory, and links to them with short names.
func newStore(t *testing.T, c caller) *sandbox {
	t.Helper()
	need(t)
	s := newSandbox(t, c.account(t), c.name, program)
	for i, name := range []string{"AAA", "BBB", "CCC"} {
		s.write(t, fmt.Sprintf("%d/diff/name", i), name+"\n")
		s.write(t, fmt.Sprintf("%d/diff/only-%s", i, name), "")
		s.link(t, fmt.Sprintf("../%d/diff", i), "l/"+name)
	}
	s.write(t, "2/diff1/more", "of the second directory\n")
	s.write(t, "with:colon/name", "with a colon\n")
	s.write(t, "with,comma/name", "with a comma\n")
	for _, dir := range []string{"x/diff", "x/work", "x/merged", "empty"} {
		s.ok(t, "mkdir", "-p", dir)
	}
	return s
}

func (s *sandbox) link(t *testing.T, target, name string) {
	t.Helper()
	s.ok(t, "sh", "-c", `mkdir -p "$(dirname $1)" && ln -s "$0" "$1"`, target, name)
}

// A form is one way in which real clients call the mount program. The script
// mounts by $mount or by itself, looks, and unmounts by $unmount, in a store.
type form struct {
	name   string
	script string
	want   string // what it prints
}

const (
	upper = "upperdir=x/diff,workdir=x/work"
	look  = "cat x/merged/name; ls x/merged; echo w > x/merged/w; rm x/merged/name; ls x/diff; "
)

var forms = []form{
	{"containers/storage: relative to the store, a path behind a link, an empty option",
		`$mount -o lowerdir=l/AAA:l/CCC/../diff1:l/CCC,` + upper + `,,volatile, x/merged </dev/null >/dev/null; cat x/merged/more; ` + look + `$unmount x/merged`,
		"of the second directory\nAAA\nmore\nname\nonly-AAA\nonly-CCC\nname\nw\n"},
	{"containers/storage: no upper, to compare layers",
		`$mount -o lowerdir=l/BBB:empty, x/merged; cat x/merged/name; touch x/merged/w 2>&1 | grep -o 'Read-only file system'; $unmount x/merged`,
		"BBB\nRead-only file system\n"},
	{"the containerd snapshotter: a source, then the target, then the options",
		`sh -c "'fuse-overlayfs' 'overlay' 'x/merged' '-o' 'workdir=x/work,upperdir=x/diff,lowerdir=l/AAA:l/BBB,dev,suid'"; ` + look + `$unmount x/merged`,
		"AAA\nname\nonly-AAA\nonly-BBB\nname\nw\n"},
	{"buildah: a colon behind one backslash, a propagation",
		`$mount -o 'lowerdir=with\:colon,` + upper + `,private' x/merged; cat x/merged/name; $unmount x/merged`,
		"with a colon\n"},
	{"a colon behind two backslashes, a comma behind one",
		`$mount -o 'lowerdir=with\\:colon:with\,comma' x/merged; cat x/merged/name; $unmount x/merged; $mount -o 'lowerdir=with\,comma' x/merged; cat x/merged/name; $unmount x/merged`,
		"with a colon\nwith a comma\n"},
	{"one empty lower of two mounts at once",
		`mkdir y; $mount -o lowerdir=l/AAA:empty x/merged; $mount -o lowerdir=l/BBB:empty y; cat x/merged/name y/name; $unmount x/merged; $unmount y`,
		"AAA\nBBB\n"},
	{"whiteouts of image layers, as containers/storage unpacks them for a mount program",
		`touch 0/diff/.wh.only-BBB; mkdir -p 1/diff/dir 0/diff/dir; touch 1/diff/dir/hidden 0/diff/dir/.wh..wh..opq; $mount -o lowerdir=l/AAA:l/BBB,` + upper + ` x/merged; ls -A x/merged x/merged/dir; $unmount x/merged`,
		"x/merged:\ndir\nname\nonly-AAA\n\nx/merged/dir:\n"},
	{"an option that nobody knows",
		`$mount -o lowerdir=l/AAA,frobnicate x/merged 2>&1 | grep -o frobnicate; cat x/merged/name; $unmount x/merged`,
		"frobnicate\nAAA\n"},
	{"what the mount table says",
		`$mount -o lowerdir=l/AAA x/merged; grep ` + "`pwd`" + `/x/merged /proc/self/mounts | cut -d' ' -f1,3; stat -fc %t x/merged; $unmount x/merged`,
		"fuse-overlayfs fuse.fuse-overlayfs\n65735546\n"},
	{"the version, which callers parse",
		`fuse-overlayfs --version | grep -cE '^fuse-overlayfs: version (1\.[1-9][0-9]|[2-9])'`,
		"1\n"},
	{"a layer that is not there: status 1, a reason that names it, no mount",
		`fuse-overlayfs -o lowerdir=l/NONE x/merged 2>err || echo status $?; grep -c l/NONE err; grep -c x/merged /proc/self/mounts`,
		"status 1\n1\n0\n"},
	{"a layer that a plugin would bring is refused, not left out",
		`fuse-overlayfs -o lowerdir=//plugin/data/l/AAA:l/BBB x/merged 2>err || echo status $?; grep -c plugin err`,
		"status 1\n1\n"},
	{"an unmount while a file is open",
		`$mount -o lowerdir=l/AAA,` + upper + ` x/merged; exec 3<x/merged/name; umount -l x/merged 2>/dev/null || fusermount3 -uz x/merged; cat <&3; exec 3<&-`,
		"AAA\n"},
}

// Callers wait for the end of both output streams, so a mount program that
// keeps them hangs its caller. $mount reads them to the end, for ten seconds.
const prelude = `set -u
mount='readToEnd fuse-overlayfs'
readToEnd() { out=$(timeout 10 "$@" 2>&1) || echo "status $?"; [ -z "$out" ] || echo "$out"; }
unmount='umount'
[ $(id -u) = 0 ] || unmount='fusermount3 -u'
`

// Each way in which a real client calls fuse-overlayfs works.
func TestCommandLinesOfClients(t *testing.T) {
	for _, c := range callers {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range forms {
				t.Run(f.name, func(t *testing.T) {
					s := newStore(t, c)
					got := s.run(t, c, f.script)
					if got != f.want {
						t.Errorf("%s\nprinted:\n%s\nwant:\n%s", f.script, got, f.want)
					}
					s.checkNoServers(t)
				})
			}
		})
	}
}

// run runs a script after the prelude and returns all that it printed.
func (s *sandbox) run(t *testing.T, c caller, script string) string {
	t.Helper()
	argv := append(append([]string{}, c.prefix...), "sh", "-c", prelude+script+"\ntrue")
	out, err := s.try(argv...)
	if err != nil {
		t.Error(err)
	}
	return out
}

// containerd has mount.fuse3 start the mount program.
func TestMountFuse3(t *testing.T) {
	need(t, "mount.fuse3")
	s := newStore(t, callers[0])
	got := s.run(t, callers[0], `readToEnd mount.fuse3 overlay x/merged -t fuse-overlayfs -o lowerdir=l/AAA:l/BBB,`+upper+`,dev,suid; `+look+`umount x/merged`)
	if want := "AAA\nname\nonly-AAA\nonly-BBB\nname\nw\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	s.checkNoServers(t)
}

// The deepest images have 500 layers, whose names are given relative to the
// store to fit a page.
func TestFiveHundredLowers(t *testing.T) {
	const layers = 500
	for _, c := range callers {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t, c)
			var lowers []string
			for i := range layers {
				id := fmt.Sprintf("%026d", i)
				s.write(t, fmt.Sprintf("n%d/diff/file-%d", i, i), "")
				s.write(t, fmt.Sprintf("n%d/diff/common", i), fmt.Sprintf("%d\n", i))
				if err := os.Symlink(fmt.Sprintf("../n%d/diff", i), filepath.Join(s.home, "l", id)); err != nil {
					t.Fatal(err)
				}
				lowers = append(lowers, "l/"+id)
			}
			start := time.Now()
			got := s.run(t, c, `ulimit -Sn 256; $mount -o lowerdir=`+strings.Join(lowers, ":")+`,`+upper+` x/merged; cat x/merged/common; ls x/merged | wc -l; echo new > x/merged/file-499; rm x/merged/file-250; ls x/diff; $unmount x/merged`)
			if want := fmt.Sprintf("0\n%d\nfile-250\nfile-499\n", layers+1); got != want {
				t.Errorf("printed %q, want %q", got, want)
			}
			t.Logf("%v", time.Since(start))
			s.checkNoServers(t)
		})
	}
}

// SELinux labels come quoted, since they may hold commas.
func TestContextInQuotes(t *testing.T) {
	if err := exec.Command("selinuxenabled").Run(); err != nil {
		t.Skipf("SELinux is not enabled: %v", err)
	}
	s := newStore(t, callers[0])
	got := s.run(t, callers[0], `$mount -o 'lowerdir=l/AAA,`+upper+`,context="system_u:object_r:container_file_t:s0:c1,c2"' x/merged; stat -c %C x/merged/name; umount x/merged`)
	if want := "system_u:object_r:container_file_t:s0:c1,c2\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}
