package datasetlayer

import (
	"testing"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/layertest"
)

// open returns the root of a new dataset of a new pool.
func open(t testing.TB) layer.Dir {
	t.Helper()
	dir := t.TempDir()
	err := blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "tank"},
		Devices:  []blockpool.DeviceSpec{{Path: dir + "/disk", Size: 64 << 20}},
		Metadata: []string{blockpool.ReplicaName(dir, 0)},
		LogSize:  1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := blockpool.Open(dir, blockpool.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CreateFilesystem(t.Context(), "a", blockpool.FilesystemOptions{}); err != nil {
		t.Fatal(err)
	}
	tree, err := p.OpenTree("a")
	if err != nil {
		t.Fatal(err)
	}
	fs, err := dataset.New(dataset.PoolTree(tree), dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := fs.Nodes(); n != 1 {
			t.Errorf("%d nodes are in use, want that of the root", n)
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return Root(fs)
}

// Why some tests cannot be passed; the package comment says the same.
const (
	kernel    = "the kernel sees to it before it asks a filesystem"
	modes     = "a file is always open for everything"
	allocated = "what is reserved in a dataset takes no space before it is written"
	units     = "records are shared where they can be, the rest is copied"
	removed   = "a directory that was removed lists nothing, which is no error"
)

// What is written for directories works on a dataset.
func TestConformance(t *testing.T) {
	layertest.Run(t, layertest.Caps{
		Privileged: true, Trusted: true, Whiteout: true, Xattrs: true, UserXattrs: true, ACLs: true, DirLinks: true,
		Punch: true, ZeroRange: true, Shift: true, Reflink: true, TmpFile: true, RenameFlags: true,
		Except: map[string]string{
			"Remove/DirectoryLivesOnDead": removed,
			"Rename/Errnos":               kernel,
			"Attr/ChownClearsSetuid":      kernel,
			"Attr/Immutable":              modes,
			"Attr/AppendOnly":             modes,
			"Time/Set":                    kernel,
			"Time/WhatChangesWhich":       kernel,
			"Xattr/Errnos":                kernel,
			"Xattr/Namespaces":            kernel,
			"ACL/AndModeAreOne":           kernel,
			"ACL/DefaultIsInherited":      kernel,
			"ACL/Errnos":                  kernel,
			"File/OpenModesBind":          modes,
			"File/Append":                 modes,
			"Range/Allocate":              allocated,
			"Range/CollapseAndInsert":     allocated,
			"Range/Zero":                  allocated,
			"Share/CopyRange":             modes,
			"Share/Clone":                 modes,
			"Share/CloneRange":            units,
		},
	}, open)
}
