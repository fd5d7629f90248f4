package serve

import (
	"sync/atomic"

	"github.com/laminafs/lamina/fs/fusefs"
)

// op is an operation of the kernel, for counting.
type op int

const (
	opLookup op = iota
	opForget
	opGetAttr
	opSetAttr
	opOpen
	opRelease
	opRead
	opWrite
	opFsync
	opFallocate
	opLseek
	opOpenDir
	opReadDir
	opStatfs
	opCount
)

var opNames = [opCount]string{
	"LOOKUP", "FORGET", "GETATTR", "SETATTR", "OPEN", "RELEASE", "READ", "WRITE", "FSYNC", "FALLOCATE", "LSEEK",
	"OPENDIR", "READDIR", "STATFS",
}

type counters struct {
	ops           [opCount]atomic.Uint64
	errors        atomic.Uint64
	read, written atomic.Uint64
}

func (c *counters) add(o op) { c.ops[o].Add(1) }

// counters returns what was done since the volumes were mounted.
func (v *volumeFS) counters() fusefs.Counters {
	out := fusefs.Counters{
		Requests:     map[string]uint64{},
		Errors:       v.count.errors.Load(),
		BytesRead:    v.count.read.Load(),
		BytesWritten: v.count.written.Load(),
	}
	for i := range v.count.ops {
		if n := v.count.ops[i].Load(); n > 0 {
			out.Requests[opNames[i]] = n
		}
	}
	for _, n := range v.nodes.all() {
		out.Nodes++
		n.mu.Lock()
		out.OpenFiles += uint64(n.opened)
		n.mu.Unlock()
	}
	return out
}
