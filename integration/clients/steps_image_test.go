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
}

// mountImage mounts layers without a container: read-only without an upper, and
// with an upper. Here the test makes sure which filesystem it tests.
func (f *flow) mountImage() {
	show := func(dir string) {
		f.t.Helper()
		out := f.ok(f.t, f.inside("stat", "--file-system", "--format=%t", dir)...)
		if magic, err := strconv.ParseInt(out, 16, 64); err != nil || magic != f.engine.magic {
			f.t.Errorf("the filesystem type is %s (%v), want %x", out, err, f.engine.magic)
		}
		list := f.ok(f.t, f.inside("find", dir, "-printf", "%P %y %m %U:%G %l\n")...)
		f.record("a mounted tree", sorted(list))
		if serving := len(f.servers()); (serving == 1) != (f.engine.program == program) {
			f.t.Errorf("%d servers while one tree is mounted", serving)
		}
	}
	image := f.ok(f.t, f.inside("podman", "image", "mount", "image")...)
	show(image)
	if _, err := f.try(f.inside("touch", image+"/not-writable")...); err == nil {
		f.t.Error("an image without an upper could be written to")
	}
	f.ok(f.t, f.inside("podman", "image", "unmount", "image")...)
	f.checkIdle(f.t)

	f.ok(f.t, "podman", "create", "--name=mounted", "image")
	container := f.ok(f.t, f.inside("podman", "mount", "mounted")...)
	show(container)
	f.ok(f.t, f.inside("touch", container+"/written")...)
	f.ok(f.t, f.inside("podman", "unmount", "mounted")...)
	f.checkIdle(f.t)
	f.record("diff of a mounted container", f.diff("mounted"))
	f.ok(f.t, "podman", "rm", "mounted")
}

// recordImage records what each layer of an image has, and what podman says that
// its top layer changed.
func (f *flow) recordImage(name string) {
	f.t.Helper()
	file := f.path(name + "-saved.tar")
	f.ok(f.t, "podman", "save", "--quiet", "--format=docker-archive", "--output="+file, name)
	for i, layer := range listImage(f.t, file, f.began) {
		f.record(fmt.Sprintf("layer %d of %s", i, name), layer)
	}
	f.record("podman diff "+name, f.diff(name))
}

// recordExport records the whole tree of a container.
func (f *flow) recordExport(name string) {
	f.t.Helper()
	file := f.path(name + "-exported.tar")
	f.ok(f.t, "podman", "export", "--output="+file, name)
	f.record("export of "+name, listTarFile(f.t, file, f.began))
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
