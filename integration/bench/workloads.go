package main

import (
	"fmt"
	"regexp"
)

// workload is one thing that users wait for.
type workload struct {
	name  string
	title string
	unit  string // of the value: "s" unless said otherwise
	// body prepares, mounts and measures one repetition.
	body func(*repetition) error

	needsMany  bool // reads the layers with many entries
	serverOnly bool // kernel overlayfs has no such value
}

// workloads is the list, in the order of the report.
var workloads = []workload{
	{name: "mount", title: "mount to usable", body: mountToUsable},

	{name: "walk-warm", title: "walk, warm (3 times)", body: walkWarm},
	{name: "stat-warm", title: "stat files, warm (3 times)", body: statWarm},
	{name: "read-warm", title: "open+read small files, warm", body: readWarm},
	{name: "tar-warm", title: "tar of a tree, warm", body: tarWarm},
	{name: "grep-first", title: "grep -r of a tree, first time", body: grepFirst},
	{name: "walk-parallel", title: "parallel walk, first time", body: walkParallel},
	{name: "walk-cold", title: "walk, cold", body: walkCold},
	{name: "read-cold", title: "open+read small files, cold", body: readCold},

	{name: "untar", title: "untar", body: untar},
	{name: "rename", title: "rename files", body: renameFiles},
	{name: "rm-lower", title: "rm -rf of the lower tree", body: removeLower},
	{name: "append", title: "append to lower files", body: appendLower(false)},
	{name: "append-volatile", title: "append to lower files, volatile", body: appendLower(true)},
	{name: "chmod", title: "chmod -R of lower files", body: chmodLower},
	{name: "touch-big", title: "first byte of a big lower file", body: touchBig},
	{name: "compile", title: "compile a C program", body: compile},

	{name: "seq-write", title: "sequential write + fsync", body: seqWrite},
	{name: "seq-read-cold", title: "sequential read, cold", body: seqReadCold},
	{name: "seq-read-warm", title: "sequential read, warm", body: seqReadWarm},
	{name: "rand-read", title: "random 4K read, cold", body: randRead},
	{name: "rand-write", title: "random 4K write", body: randWrite},
	{name: "sync-write", title: "4K writes, fsync each", body: syncWrite},
	{name: "mmap-read", title: "mmap read, first time", body: mmapRead},
	{name: "mmap-write", title: "mmap write + msync", body: mmapWrite},

	{name: "memory", title: "server memory after a large walk", unit: "MB", body: serverMemory, needsMany: true, serverOnly: true},
}

// chooseWorkloads are those whose name matches expr, which must compile.
func chooseWorkloads(expr string) []workload {
	wanted := regexp.MustCompile(expr)
	var list []workload
	for _, w := range workloads {
		if wanted.MatchString(w.name) {
			if w.unit == "" {
				w.unit = "s"
			}
			list = append(list, w)
		}
	}
	return list
}

// mountToUsable counts from starting the program to the first answers: the
// attributes of the root and the listing of it.
func mountToUsable(r *repetition) error {
	for range r.scale.mounts {
		err := r.measure(func() error {
			if err := r.mount(); err != nil {
				return err
			}
			return listRoot(r)
		})
		if err != nil {
			return err
		}
		if err := r.unmount(); err != nil {
			return err
		}
	}
	r.value /= float64(r.scale.mounts)
	return nil
}

// serverMemory is what the server holds after it has shown every name. The
// kernel keeps its inodes and names elsewhere, out of any process.
func serverMemory(r *repetition) error {
	r.stack.lowers = r.many
	if err := r.mount(); err != nil {
		return err
	}
	n, err := walk(r.ctx, r.path("tree"))
	if err != nil {
		return err
	}
	if want := r.scale.manyDirs * (r.scale.manyPerDir + 1); n != want {
		return fmt.Errorf("shows %d names where the layers have %d", n, want)
	}
	r.value, err = residentMB()
	return err
}
