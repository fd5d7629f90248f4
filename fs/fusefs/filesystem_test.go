package fusefs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/fs/union"
)

// A database that writes asynchronously past the cache, and a backup that reads
// through it: with CAP_ASYNC_DIO the backup is shown old data until it leaves
// the cache (xfstests generic/451).
func TestDirectWritesLeaveNoOldDataInTheCache(t *testing.T) {
	for _, writeback := range []bool{false, true} {
		o := (&FilesystemConfig[*union.Node]{Writeback: writeback}).kernelOptions()
		if caps := o.ExtraCapabilities &^ o.DisabledCapabilities; caps&fuse.CAP_ASYNC_DIO != 0 {
			t.Errorf("writeback=%v asks for asynchronous direct I/O", writeback)
		}
		if cached := o.ExtraCapabilities&fuse.CAP_WRITEBACK_CACHE != 0; cached != writeback {
			t.Errorf("writeback=%v asks for write-back: %v", writeback, cached)
		}
	}
}

// A program that remembers files by handle (name_to_handle_at) must hear that it
// cannot, as from kernel overlayfs, and not get ESTALE or another file later.
func TestFilesHaveNoHandles(t *testing.T) {
	if o := (&FilesystemConfig[*union.Node]{}).kernelOptions(); o.ExtraCapabilities&fuse.CAP_NO_EXPORT_SUPPORT == 0 {
		t.Error("the kernel gives out file handles that nothing can be opened with")
	}
}
