//go:build integration

package clients

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

//go:embed testdata/change.sh
var changeScript string

//go:embed testdata/work.sh
var workScript string

func (f *flow) runAndDiff() {
	out := f.ok(f.t, "podman", "run", "--name=changed", "image", "sh", "-c", changeScript)
	f.record("what the container said", strings.Split(out, "\n"))
	f.record("podman diff", f.diff("changed"))
	f.recordExport("changed")
}

func (f *flow) commit() {
	f.ok(f.t, "podman", "commit", "--quiet", "changed", "committed")
	f.recordImage("committed")
	f.record("what a container of the commit sees", f.look("committed"))
}

// fiveAtOnce works in five containers of one image at the same time.
func (f *flow) fiveAtOnce() {
	const containers = 5
	var said [containers]string
	var failed [containers]error
	var all sync.WaitGroup
	for i := range containers {
		all.Go(func() {
			said[i], failed[i] = f.try("podman", "run", fmt.Sprintf("--name=five-%d", i), "image", "sh", "-c", workScript)
		})
	}
	all.Wait()
	for i := range containers {
		if failed[i] != nil {
			f.t.Error(failed[i])
		}
	}
	f.record("what they said", said[:])
	if f.t.Failed() {
		return
	}
	for i := range containers {
		f.record("podman diff", f.diff(fmt.Sprintf("five-%d", i)))
	}
	f.recordExport("five-0")
	f.recordExport("five-4")
}

func (f *flow) buildah() {
	f.write(f.t, "copied/file", "copied\n")
	f.write(f.t, "copied/sub/file", "below\n")
	f.ok(f.t, "buildah", "from", "--quiet", "--name=working", "image")
	out := f.ok(f.t, "buildah", "run", "working", "--", "sh", "-c", "rm -r /data/again; mv /data/keep /data/kept; ls /data")
	f.record("what buildah run said", strings.Split(out, "\n"))
	f.ok(f.t, "buildah", "copy", "--quiet", "--chown=3:4", "working", f.path("copied"), "/data/again")
	f.ok(f.t, "buildah", "add", "--quiet", "working", f.path("copied/file"), "/data/kept/f0")
	mounted := f.ok(f.t, f.inside("buildah", "mount", "working")...)
	f.ok(f.t, f.inside("sh", "-c", "rm "+mounted+"/data/links/a; echo by hand > "+mounted+"/by-hand")...)
	f.ok(f.t, f.inside("buildah", "umount", "working")...)
	f.ok(f.t, "buildah", "commit", "--quiet", "working", "built")
	f.recordImage("built")
	f.ok(f.t, "buildah", "rm", "working")
	f.checkIdle(f.t)
}

// overlayVolumes lets containers write over a directory of the host that stays
// as it is. The mount program is given a colon in a name, and an upper that
// the caller keeps.
func (f *flow) overlayVolumes() {
	const script = "cat /volume/a; rm /volume/a; echo b > /volume/b; mv /volume/sub /volume/moved; find /volume | sort"
	f.write(f.t, "shared/a", "of the host\n")
	f.write(f.t, "shared/sub/c", "c\n")
	f.write(f.t, "with:colon/a", "of a name with a colon\n")
	f.write(f.t, "with:colon/sub/c", "c\n")
	f.ok(f.t, "mkdir", "kept-upper", "kept-work")

	out := f.ok(f.t, "podman", "run", "--rm", "--volume="+f.path("shared")+":/volume:O", "image", "sh", "-c", script)
	f.record("podman run :O", strings.Split(out, "\n"))
	out = f.ok(f.t, "podman", "run", "--rm", "--volume="+f.path("shared")+":/volume:O,upperdir="+f.path("kept-upper")+",workdir="+f.path("kept-work"), "image", "sh", "-c", script)
	f.record("podman run :O with an upper", strings.Split(out, "\n"))
	f.record("the upper", sorted(f.ok(f.t, f.inside("find", f.path("kept-upper"), "-printf", "%P %y %m %U:%G\n")...)))

	f.ok(f.t, "buildah", "from", "--quiet", "--name=volumes", "image")
	for _, dir := range []string{"shared", `with\:colon`} {
		out := f.ok(f.t, "buildah", "run", "--volume="+f.path(dir)+":/volume:O", "volumes", "--", "sh", "-c", script)
		f.record("buildah run :O over "+dir, strings.Split(out, "\n"))
	}
	f.ok(f.t, "buildah", "rm", "volumes")
	for _, name := range []string{"shared", "with:colon"} {
		f.record(name+" afterwards", sorted(f.ok(f.t, "sh", "-c", "find "+name+"; cat "+name+"/a")))
	}
	f.checkIdle(f.t)
}

// prune removes everything by the commands for that, and looks for what is left.
func (f *flow) prune() {
	f.ok(f.t, "podman", "container", "prune", "--force")
	f.ok(f.t, "podman", "image", "prune", "--all", "--force")
	f.ok(f.t, "podman", "volume", "prune", "--force")
	for _, list := range [][]string{{"ps", "--all", "--quiet"}, {"images", "--all", "--quiet"}} {
		if left := f.ok(f.t, append([]string{"podman"}, list...)...); left != "" {
			f.t.Errorf("podman %q after prune: %s", list, left)
		}
	}
	layers := f.ok(f.t, f.inside("find", f.path("store/overlay"), "-mindepth", "1", "-maxdepth", "1", "-type", "d", "!", "-name", "l")...)
	if layers != "" {
		f.t.Errorf("layers after prune: %s", layers)
	}
	f.checkIdle(f.t)
}
