package fusefs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A package manager that rewrites a setuid program with file capabilities finds
// it setuid afterwards; anybody else's write, and chown(-1, -1), makes it plain.
func TestRootKeepsSetuidOfFilesWithCapabilities(t *testing.T) {
	for _, c := range []struct {
		name      string
		valid     uint32
		uid       uint32
		writeBack bool
		keeps     bool
	}{
		{"root's write", 0, 0, true, true},
		{"a user's write", 0, 1000, true, false},
		{"root's chown(-1, -1)", fattrCtime, 0, true, false},
		{"without write-back the two look the same", 0, 0, false, false},
		{"a change of the mode", fuse.FATTR_MODE, 0, true, false},
	} {
		r := &rawFS{}
		if c.writeBack {
			r.writeOut = func(uint64) {}
		}
		in := &fuse.SetAttrIn{}
		in.Valid, in.Caller.Uid = c.valid, c.uid
		if got := r.keepsPriv(in); got != c.keeps {
			t.Errorf("%s: keeps setuid: %v, want %v", c.name, got, c.keeps)
		}
	}
}
