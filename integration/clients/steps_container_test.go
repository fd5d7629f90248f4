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

// restart stops a container that was changed from inside and from outside, and
// starts it again. Files keep their inode numbers.
func (f *flow) restart() {
	const list = "find /data /srv ! -path '/data/links*' ! -type d -exec stat -c '%n %i' {} +"
	f.write(f.t, "from-outside", "copied in\n")
	f.ok(f.t, "podman", "run", "--detach", "--name=lasting", "image", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	f.ok(f.t, "podman", "exec", "lasting", "sh", "-c", "mkdir /srv; mv /data/keep /srv/keep; chmod 600 /data/long; rm -r /data/owned; echo x > /srv/keep/new")
	f.ok(f.t, "podman", "cp", f.path("from-outside"), "lasting:/srv/keep/f0")
	f.ok(f.t, "podman", "cp", "lasting:/srv/keep/f0", f.path("from-inside"))
	f.record("copied in and out", []string{f.ok(f.t, "cat", "from-inside")})
	before := f.ok(f.t, "podman", "exec", "lasting", "sh", "-c", list)
	f.ok(f.t, "podman", "stop", "--time=5", "lasting")
	f.checkIdle(f.t)
	f.ok(f.t, "podman", "start", "lasting")
	after := f.ok(f.t, "podman", "exec", "lasting", "sh", "-c", list)
	if f.engine.program == program { // kernel overlayfs does not always keep them
		sameLines(f.t, "inode numbers after a restart", sorted(before), sorted(after))
	}
	f.recordExport("lasting")
	f.ok(f.t, "podman", "rm", "--force", "--time=0", "--volumes", "lasting")
	f.checkIdle(f.t)
}

//go:embed testdata/one.sh
var oneLayerScript string

// otherEngine lets kernel overlayfs show the upper of a container that ran over
// lamina, and the other way round: people may change their mind about the
// mount_program. The image has one layer, because a client that has a mount_program
// unpacks layers with the whiteouts of their tars, which the kernel does not know.
func (f *flow) otherEngine() {
	mine := f.engine
	if mine.program == "" {
		return // there is nothing of lamina's to show yet
	}
	defer f.useEngine(f.t, mine)
	f.ok(f.t, "podman", "run", "--name=one", "base", "sh", "-c", oneLayerScript)
	want := f.export("one")
	f.useEngine(f.t, kernelEngine)
	f.checkMagic("one")
	sameLines(f.t, "a container of lamina's over kernel overlayfs", want, f.export("one"))
	f.ok(f.t, "podman", "run", "--name=two", "base", "sh", "-c", oneLayerScript)
	want = f.export("two")
	f.useEngine(f.t, mine)
	f.checkMagic("two")
	sameLines(f.t, "a container of kernel overlayfs over lamina", want, f.export("two"))
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
// the caller keeps. Kernel overlayfs is no measure here: clients mount such
// volumes without userxattr, so that it cannot remove a directory when rootless.
func (f *flow) overlayVolumes() {
	const (
		script = "cat /volume/a; rm /volume/a; echo b > /volume/b; mv /volume/sub /volume/moved; find /volume | sort"
		said   = "of the host\n/volume\n/volume/b\n/volume/moved\n/volume/moved/c"
	)
	if f.engine.program == "" {
		return
	}
	for _, name := range []string{"shared", "with:colon"} {
		f.write(f.t, name+"/a", "of the host\n")
		f.write(f.t, name+"/sub/c", "c\n")
	}
	f.ok(f.t, "mkdir", "kept-upper", "kept-work")
	f.ok(f.t, "buildah", "from", "--quiet", "--name=volumes", "image")
	kept := f.path("shared") + ":/volume:O,upperdir=" + f.path("kept-upper") + ",workdir=" + f.path("kept-work")
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"podman", "run", "--rm", "--volume=" + f.path("shared") + ":/volume:O", "image", "sh", "-c", script}, said},
		{[]string{"podman", "run", "--rm", "--volume=" + kept, "image", "sh", "-c", script}, said},
		{[]string{"podman", "run", "--rm", "--volume=" + kept, "image", "sh", "-c", "cat /volume/b /volume/moved/c; ls /volume"}, "b\nc\nb\nmoved"},
		{[]string{"buildah", "run", "--volume=" + f.path("shared") + ":/volume:O", "volumes", "--", "sh", "-c", script}, said},
		{[]string{"buildah", "run", "--volume=" + f.path(`with\:colon`) + ":/volume:O", "volumes", "--", "sh", "-c", script}, said},
	} {
		if got := f.ok(f.t, c.argv...); got != c.want {
			f.t.Errorf("%q:\n%s\nwant:\n%s", c.argv, got, c.want)
		}
	}
	f.ok(f.t, "buildah", "rm", "volumes")
	for _, name := range []string{"shared", "with:colon"} {
		if got := f.ok(f.t, "sh", "-c", "cat $0/a; ls $0 $0/sub", name); got != "of the host\n"+name+":\na\nsub\n\n"+name+"/sub:\nc" {
			f.t.Errorf("the host's directory changed: %s", got)
		}
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
