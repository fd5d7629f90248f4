package fusefs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// make(1) goes by the times of files that a linker has written through mappings:
// the server does not see such a write, and the kernel does not take note.
func TestTimesAreAskedForAfterAMappingWasWritten(t *testing.T) {
	r, n := rawFile(t)
	r.opens = newOpenTable(nil)
	var told []uint64
	r.dropAttrs = func(node uint64) { told = append(told, node) }
	for _, c := range []struct {
		handle uint64
		flags  uint32
		want   bool
	}{
		{handleBacked, unix.O_RDWR, true},
		{handleBacked, unix.O_WRONLY, true},
		{handleBacked, unix.O_RDONLY, false},
		{handleCached, unix.O_RDWR, false}, // the kernel's own pages, written by WRITE
	} {
		told = nil
		in := fuse.ReleaseIn{Fh: c.handle, Flags: c.flags}
		in.NodeId = n.ID()
		r.Release(nil, &in)
		if got := len(told) == 1 && told[0] == n.ID(); got != c.want {
			t.Errorf("handle %d, flags %#x: the kernel was told of %v", c.handle, c.flags, told)
		}
	}
}
