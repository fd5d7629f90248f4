//go:build integration

package clients

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/Containerfile
var containerfile string

//go:embed testdata/look.sh
var lookScript string

func (f *flow) importBase() {
	f.write(f.t, "base.tar", string(baseTree(f.t)))
	f.ok(f.t, "podman", "import", "--quiet", "--change=CMD=/bin/sh", f.path("base.tar"), "base")
	f.recordImage("base")
}

func (f *flow) build() {
	f.write(f.t, "context/Containerfile", containerfile)
	for version := 1; version <= 2; version++ {
		f.write(f.t, fmt.Sprintf("context/tiny_%d.deb", version), string(debianPackage(f.t, version)))
	}
	f.ok(f.t, "podman", "build", "--quiet", "--tag", "image", f.path("context"))
	f.recordImage("image")
}

func (f *flow) lookInside() {
	f.record("what a container sees", f.look("image"))
	if f.engine.program == program {
		f.checkLinks()
	}
}

// checkLinks looks at the names of a file that was changed through one name
// after the other, in one layer after the other.
func (f *flow) checkLinks() {
	out := f.ok(f.t, "podman", "run", "--rm", "image", "sh", "-c", "cd /data/links; cat a; stat -c '%h %i' a e sub/c | uniq -c; cmp a e; cmp a sub/c")
	fields := strings.Fields(out)
	if len(fields) != 6 || !slices.Equal(fields[:5], []string{"linked", "appended", "again", "3", "3"}) {
		f.t.Errorf("three names of a file with three lines show: %s", out)
	}
}

// mountImage mounts layers without a container, read-only without an upper, and
// those of a container.
func (f *flow) mountImage() {
	image := f.ok(f.t, f.inside("podman", "image", "mount", "image")...)
	f.recordMounted("a mounted image", image)
	if _, err := f.try(f.inside("touch", image+"/not-writable")...); err == nil {
		f.t.Error("an image without an upper could be written to")
	}
	f.ok(f.t, f.inside("podman", "image", "unmount", "image")...)
	f.checkIdle(f.t)

	f.ok(f.t, "podman", "create", "--name=mounted", "image")
	f.checkMagic("mounted")
	container := f.ok(f.t, f.inside("podman", "mount", "mounted")...)
	f.recordMounted("a mounted container", container)
	f.ok(f.t, f.inside("touch", container+"/written")...)
	f.ok(f.t, f.inside("podman", "unmount", "mounted")...)
	f.checkIdle(f.t)
	f.record("podman diff of a mounted container", f.diff("mounted"))
	f.ok(f.t, "podman", "rm", "mounted")
}

// recordMounted records a tree as the client's user sees it below a mount point.
func (f *flow) recordMounted(what, dir string) {
	f.t.Helper()
	list := f.ok(f.t, f.inside("find", dir, "-printf", "%P %y %m %U:%G %l\n")...)
	f.record(what, sorted(list))
	if serving := len(f.servers()); (serving == 1) != (f.engine.program != "") {
		f.t.Errorf("%d servers while one tree is mounted", serving)
	}
}

// checkMagic makes sure which filesystem is tested.
func (f *flow) checkMagic(container string) {
	f.t.Helper()
	dir := f.ok(f.t, f.inside("podman", "mount", container)...)
	out := f.ok(f.t, f.inside("stat", "--file-system", "--format=%t", dir)...)
	if magic, err := strconv.ParseInt(out, 16, 64); err != nil || magic != f.engine.magic {
		f.t.Errorf("the filesystem type is %s (%v), want %x", out, err, f.engine.magic)
	}
	f.ok(f.t, f.inside("podman", "unmount", container)...)
}

// recordImage records what each layer makes of the tree.
func (f *flow) recordImage(name string) {
	f.t.Helper()
	file := f.path(name + "-saved.tar")
	f.ok(f.t, "podman", "save", "--quiet", "--format=docker-archive", "--output="+file, name)
	for i, tree := range listLayers(f.t, file, f.began) {
		f.record(fmt.Sprintf("%s up to layer %d", name, i), tree)
	}
}

// export describes the whole tree of a container.
func (f *flow) export(name string) []string {
	f.t.Helper()
	file := f.path(name + "-exported.tar")
	f.ok(f.t, "podman", "export", "--output="+file, name)
	return listTree(f.t, file, f.began)
}

func (f *flow) recordExport(name string) {
	f.t.Helper()
	f.record("export of "+name, f.export(name))
}

func (f *flow) diff(name string) []string {
	f.t.Helper()
	return sorted(f.ok(f.t, "podman", "diff", name))
}

// look returns what a container of an image sees of itself.
func (f *flow) look(image string) []string {
	f.t.Helper()
	lines := sorted(f.ok(f.t, "podman", "run", "--rm", image, "sh", "-c", lookScript))
	for i, line := range lines { // the last field is a time where there is one
		if cut := strings.LastIndexByte(line, '|'); cut >= 0 {
			seconds, err := strconv.ParseInt(line[cut+1:], 10, 64)
			if err != nil {
				f.t.Fatalf("%s: %v", line, err)
			}
			lines[i] = line[:cut+1] + stamp(time.Unix(seconds, 0), f.began)
		}
	}
	return lines
}

func sorted(text string) []string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return lines
}
