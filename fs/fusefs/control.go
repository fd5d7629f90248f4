package fusefs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Controller is a mounted filesystem as its control socket needs it. All
// methods may be called at any time, also side by side.
type Controller interface {
	Counters() Counters
	// Options returns the options in force, defaults included.
	Options() map[string]string
	// Unmount takes the mount away. A busy one gives EBUSY, unless lazy, which
	// takes it out of sight at once and lets those who use it finish.
	Unmount(lazy bool) error
}

// A Layered is a [Controller] that consists of layers which its owner may see
// and change while it is in use.
type Layered interface {
	// Layers returns the layers from the top.
	Layers() []LayerInfo
	// AddLower puts the directory at path, which is absolute, among the lowers
	// as number index; 0 is right below the upper, -1 below all others.
	AddLower(index int, path string) error
	// DelLower takes a lower out. What is open of it stays readable. It fails
	// with EBUSY when nothing would be left and with ENOENT when no lower has
	// that path.
	DelLower(path string) error
}

// Counters tell what a server did since it was mounted and what it holds now.
type Counters struct {
	Requests map[string]uint64 `json:"requests"` // by name of the FUSE operation
	Errors   uint64            `json:"errors"`   // requests answered by an error, ENOENT and ENODATA aside

	BytesRead    uint64 `json:"bytes_read"`    // through the server: passthrough and cached reads do not count
	BytesWritten uint64 `json:"bytes_written"` // likewise
	CopyUps      uint64 `json:"copy_ups"`
	CopyUpBytes  uint64 `json:"copy_up_bytes"` // data really copied: shared extents and holes do not count

	Nodes       uint64 `json:"nodes"`        // inodes that the kernel remembers
	OpenFiles   uint64 `json:"open_files"`   // files that are open now
	Descriptors uint64 `json:"descriptors"`  // descriptors held on layers
	UpperBytes  uint64 `json:"upper_bytes"`  // counted only under size=
	UpperInodes uint64 `json:"upper_inodes"` // counted only under inodes=
}

// String returns the counters as lines of "name value", the requests last.
func (c Counters) String() string {
	var b strings.Builder
	for _, line := range []struct {
		name string
		n    uint64
	}{
		{"errors", c.Errors}, {"bytes_read", c.BytesRead}, {"bytes_written", c.BytesWritten},
		{"copy_ups", c.CopyUps}, {"copy_up_bytes", c.CopyUpBytes},
		{"nodes", c.Nodes}, {"open_files", c.OpenFiles}, {"descriptors", c.Descriptors},
		{"upper_bytes", c.UpperBytes}, {"upper_inodes", c.UpperInodes}, {"requests", c.Total()},
	} {
		fmt.Fprintf(&b, "%-20s %d\n", line.name, line.n)
	}
	for _, op := range slices.Sorted(maps.Keys(c.Requests)) {
		fmt.Fprintf(&b, "  %-18s %d\n", op, c.Requests[op])
	}
	return b.String()
}

// Total returns the number of all requests.
func (c Counters) Total() uint64 {
	var n uint64
	for _, count := range c.Requests {
		n += count
	}
	return n
}

// The roles of a layer.
const (
	RoleUpper    = "upper"
	RoleLower    = "lower"
	RoleDataOnly = "data-only"
)

// A LayerInfo describes one layer of a mounted union.
type LayerInfo struct {
	Role   string `json:"role"`
	Index  int    `json:"index"` // among the layers of its role, 0 at the top
	Path   string `json:"path"`  // as it was given
	Format string `json:"format,omitempty"`
}

// Info says which mount a control socket belongs to.
type Info struct {
	Target  string    `json:"target"`  // absolute path of the mount point
	Source  string    `json:"source"`  // as the mount table shows it
	Type    string    `json:"type"`    // likewise, such as fuse.lamina
	Dev     string    `json:"dev"`     // major:minor of the mounted filesystem
	Via     string    `json:"via"`     // how it was mounted, see device
	PID     int       `json:"pid"`     // of the server, in its own pid namespace; 0 for kernel overlayfs
	UID     int       `json:"uid"`     // of the server, in its own user namespace
	Version string    `json:"version"` // of the program that serves
	Started time.Time `json:"started"`
}

// What the control socket of a mount is asked for, as package control carries
// it. An operation that needs no argument is {"op":"layers"}.
const (
	opInfo     = "info"
	opCounters = "counters"
	opLayers   = "layers"
	opOptions  = "options"
	opAddLower = "add-lower" // index, path
	opDelLower = "del-lower" // path
	opMod      = "mod"       // read_only
	opUnmount  = "unmount"   // lazy
	opTrace    = "trace"     // after
	opMetrics  = "metrics"   // the counters as Prometheus reads them
)

type controlRequest struct {
	Op       string `json:"op"`
	Index    int    `json:"index,omitempty"`
	Path     string `json:"path,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Lazy     bool   `json:"lazy,omitempty"`
	After    uint64 `json:"after,omitempty"`
}
