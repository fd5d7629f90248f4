package main

import "time"

// config is what the launcher tells the worker, as JSON in the scratch directory.
type config struct {
	Quick    bool
	Rounds   int
	Only     string // regexp of workload names
	Subjects string // regexp of subject names
	Rootless bool
	Limit    time.Duration // of one repetition
	Peers    []peer

	Lamina        string // binary; empty if there is none
	LaminaProblem string // why there is none
}

// peer is a fuse-overlayfs named on the command line.
type peer struct {
	Name, Path string
	Options    string // added to the mount options, comma-separated
}

// scale is how much of everything a run generates and touches.
type scale struct {
	dirs, files int // of the walked tree, over all layers
	touched     int // lower files appended to; files renamed
	archived    int // files in the unpacked archive
	bigMB       int // lower file for copy-up and sequential reading
	seqMB       int // file written sequentially
	randMB      int // file written at random
	randReads   int
	randWrites  int
	syncWrites  int
	mmapMB      int
	manyDirs    int // of the tree that memory is measured with
	manyPerDir  int
	sources     int // C files compiled
	mounts      int // mounts per repetition
	passes      int // passes over the tree of warm workloads
}

var (
	fullScale = scale{
		dirs: 300, files: 6000, touched: 3000, archived: 5000,
		bigMB: 512, seqMB: 1024, randMB: 256,
		randReads: 4000, randWrites: 50_000, syncWrites: 300,
		mmapMB: 256, manyDirs: 1000, manyPerDir: 200,
		sources: 24, mounts: 5, passes: 3,
	}
	quickScale = scale{
		dirs: 40, files: 800, touched: 400, archived: 600,
		bigMB: 48, seqMB: 64, randMB: 32,
		randReads: 400, randWrites: 5000, syncWrites: 30,
		mmapMB: 32, manyDirs: 100, manyPerDir: 200,
		sources: 4, mounts: 2, passes: 3,
	}
)

func (c config) scale() scale {
	if c.Quick {
		return quickScale
	}
	return fullScale
}
