package memlayer_test

import (
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/layertest"
	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// opener gives the suite a filesystem for each test, and afterwards expects
// that every handle was closed and no inode was left behind.
func opener(o memlayer.Options) func(testing.TB) layer.Dir {
	return func(t testing.TB) layer.Dir {
		fs := memlayer.New(o)
		t.Cleanup(func() {
			if left := fs.Open(); len(left) > 0 {
				t.Errorf("handles left open: %q", left)
			}
			if n := fs.Orphans(); n > 0 {
				t.Errorf("%d inodes left without a name", n)
			}
		})
		return fs.Root()
	}
}

func TestConformance(t *testing.T) {
	t.Run("Privileged", func(t *testing.T) {
		layertest.Run(t, layertest.Ext4, opener(memlayer.Options{}))
	})
	t.Run("Ordinary", func(t *testing.T) {
		o := memlayer.Options{UID: 1000, GID: 1000, Unprivileged: true}
		layertest.Run(t, layertest.Ext4.Ordinary(), opener(o))
	})
	t.Run("Reflink", func(t *testing.T) {
		caps := layertest.Ext4
		caps.Reflink = true
		layertest.Run(t, caps, opener(memlayer.Options{Reflink: true}))
	})
	t.Run("OneDirLink", func(t *testing.T) {
		caps := layertest.Ext4
		caps.DirLinks = false
		layertest.Run(t, caps, opener(memlayer.Options{OneDirLink: true}))
	})
	t.Run("NoUserXattrs", func(t *testing.T) {
		caps := layertest.Ext4
		caps.UserXattrs = false
		layertest.Run(t, caps, opener(memlayer.Options{NoUserXattrs: true}))
	})
	t.Run("NoXattrs", func(t *testing.T) {
		caps := layertest.Ext4
		caps.Xattrs, caps.UserXattrs, caps.ACLs = false, false, false
		layertest.Run(t, caps, opener(memlayer.Options{NoXattrs: true}))
	})
	t.Run("Poor", func(t *testing.T) {
		caps := layertest.Ext4
		caps.Trusted, caps.Whiteout, caps.ACLs, caps.TmpFile, caps.Handles = false, false, false, false, false
		caps.RenameFlags = true
		layertest.Run(t, caps, opener(memlayer.Options{
			NoTrusted: true, NoWhiteoutDevice: true, NoACLs: true, NoTmpFile: true, NoHandles: true, NoDirentTypes: true,
		}))
	})
	t.Run("PlainRename", func(t *testing.T) {
		caps := layertest.Ext4
		caps.RenameFlags = false
		layertest.Run(t, caps, opener(memlayer.Options{NoRenameFlags: true}))
	})
}
