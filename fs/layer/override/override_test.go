package override_test

import (
	"maps"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/layertest"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/layer/override"
)

func newLayer(t testing.TB, name override.Attr, o memlayer.Options) layer.Dir {
	fs := memlayer.New(o)
	t.Cleanup(func() {
		if left := fs.Open(); len(left) > 0 {
			t.Errorf("handles left open: %q", left)
		}
		if n := fs.Orphans(); n > 0 {
			t.Errorf("%d inodes left without a name", n)
		}
	})
	return override.Wrap(fs.Root(), name)
}

// A layer of an ordinary user keeps owners, modes and types like one of root.
func TestConformance(t *testing.T) {
	caps := layertest.Ext4
	caps.ACLs, caps.Trusted = false, false
	const noLinks = "symbolic links cannot have the attribute, their owner is the inode's"
	caps.Except = map[string]string{
		"Create/SetgidDirectory": noLinks,
		"Attr/ChownClearsSetuid": noLinks,
		"Xattr/Namespaces":       "what stands for a device or FIFO has the attributes of a regular file, a link has none",
	}
	const inode = "the inode flags of a user without privileges stay those of the filesystem below"
	t.Run("Containers", func(t *testing.T) {
		caps := caps
		caps.Except = maps.Clone(caps.Except)
		for _, name := range []string{"Attr/Flags", "Attr/Immutable", "Attr/AppendOnly"} {
			caps.Except[name] = inode
		}
		caps.Except["Attr/WritingClearsSetuidUnlessPrivileged"] = "the kernel's side of FUSE removes the capability of a file that is written"
		layertest.Run(t, caps, func(t testing.TB) layer.Dir {
			return newLayer(t, override.Containers, memlayer.Options{UID: 1000, GID: 1000, Unprivileged: true})
		})
	})
	t.Run("Privileged", func(t *testing.T) {
		caps.Trusted = true
		layertest.Run(t, caps, func(t testing.TB) layer.Dir {
			return newLayer(t, override.Privileged, memlayer.Options{})
		})
	})
}
