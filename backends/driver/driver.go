package driver

import (
	"context"
	"io"
	"time"

	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// A Driver keeps layers. Its methods may be called side by side, and by several
// processes. Errors are [Error]s around one of the package's causes or what the
// system answered.
type Driver interface {
	// Name is the driver's: overlay2, vfs, …
	Name() string
	// Engine says which engine works and why that one.
	Engine() Choice
	Capabilities() Capabilities

	// Create makes an active layer that looks like its parent, or is empty when
	// parent is "". [ErrExists], [ErrNotFound] of the parent, [ErrActive] for one
	// that is not committed, [ErrTooDeep], [ErrUnsupported] for limits.
	Create(ctx context.Context, id, parent string, o CreateOptions) error
	// Apply fills an active layer that nothing was written to with what an
	// uncompressed layer archive says; see [tree.Apply] for what it refuses. From
	// then on the layer can only be looked at, committed or removed.
	Apply(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error)
	// Commit makes an active layer a parent for others, durably. It must not be
	// mounted: [ErrMounted].
	Commit(ctx context.Context, id string) error
	// Remove takes a layer away. [ErrMounted] while a view of it is mounted,
	// [ErrHasChildren] while it is a parent.
	Remove(ctx context.Context, id string) error

	// Layer tells what is known of a layer, [ErrNotFound] for none.
	Layer(id string) (Layer, error)
	// Layers returns the ids of all, sorted.
	Layers() ([]string, error)

	// Mount shows a layer in a directory and returns which. An active layer is
	// writable unless ReadOnly and can be mounted once; committed ones are
	// read-only.
	Mount(ctx context.Context, id string, o MountOptions) (path string, err error)
	// Unmount takes a view away, from all places when path is "".
	// [ErrNotMounted], or EBUSY while files are open, unless lazy.
	Unmount(ctx context.Context, id, path string, lazy bool) error
	// Mounts returns where the layer can be seen now.
	Mounts(id string) ([]string, error)

	// View opens the content of a layer without mounting it. It shows the layer
	// as it is now; a mounted one may be changing.
	View(id string) (*tree.View, error)
	// Changes tells in what a layer differs from its parent.
	Changes(ctx context.Context, id string, f func(tree.Change) error) error
	// Diff writes the same as an uncompressed layer archive with the whiteouts of
	// OCI images. The same tree gives the same bytes.
	Diff(ctx context.Context, id string, w io.Writer) error
	// Usage tells what the layer takes by itself.
	Usage(ctx context.Context, id string) (Usage, error)

	// Status returns what users of the driver look for, in its order.
	Status(ctx context.Context) ([]Field, error)
	// Cleanup sweeps what crashes have left, and says what that was.
	Cleanup(ctx context.Context) ([]string, error)
	Close() error
}

// A Writer can carry an archive out on a layer that stays one which can be mounted and
// written to, whoever the user is: what is written through a mount has the owners that
// he may give.
type Writer interface {
	// Write does to a new active layer what [Driver.Apply] does. A crash leaves the
	// layer with a part of the archive, and nothing tells: who wrote removes it.
	Write(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error)
}

// A Stacker keeps layers as directories that can be merged as they are.
type Stacker interface {
	// Stack returns the options of a mount that shows a layer, each layer of its
	// stack being a directory; false for one that is not kept so.
	Stack(id string) (o mountopt.Options, whole bool, err error)
}

// CreateOptions are the wishes for a new layer.
type CreateOptions struct {
	// Size bounds the bytes that the layer may take by itself, Inodes its
	// files; 0 is no bound, or the driver's own.
	Size, Inodes int64
}

// MountOptions say how a view is mounted.
type MountOptions struct {
	// Target is an existing directory; "" is the driver's own place.
	Target   string
	ReadOnly bool
	// Options are further mount options, such as volatile or context="…".
	Options []string
}

// A Layer is what a driver knows of one.
type Layer struct {
	ID      string   `json:"id"`
	Parents []string `json:"parents,omitempty"` // the nearest first
	// Committed ones never change.
	Committed bool `json:"committed"`
	// Filled by Apply, and so never mounted for writing.
	Filled  bool      `json:"filled,omitempty"`
	Size    int64     `json:"size,omitempty"`   // limit in bytes, 0 for none
	Inodes  int64     `json:"inodes,omitempty"` // limit in files, 0 for none
	Created time.Time `json:"created"`
}

// Parent returns the id of the parent, "" for none.
func (l *Layer) Parent() string {
	if len(l.Parents) == 0 {
		return ""
	}
	return l.Parents[0]
}

// Usage is what a layer takes by itself, shared files counted once.
type Usage struct {
	Bytes  int64 `json:"bytes"` // allocated
	Inodes int64 `json:"inodes"`
	// Links are the names of files that are shared with other layers, which a
	// driver with hard-linked trees has many of.
	Links int64 `json:"links,omitempty"`
}

// Capabilities are what a driver can and cannot do, as it is opened here.
type Capabilities struct {
	// MaxDepth is how many parents a layer may have at most, 0 for any number.
	MaxDepth int `json:"max_depth,omitempty"`
	// Size and Inodes tell whether such limits can be set.
	Size   bool `json:"size"`
	Inodes bool `json:"inodes"`
	// Shares tells that a new layer takes no space for what its parent has.
	Shares bool `json:"shares"`
	// KeepsOwners tells that owners, devices and set-user-ID are the inodes' own
	// below the driver's directory. Without, they are kept in xattrs and shown by
	// views only.
	KeepsOwners bool `json:"keeps_owners"`
	// ArbitraryTargets tells that views can be mounted on any directory.
	ArbitraryTargets bool `json:"arbitrary_targets"`
}

// A Field is one line of a driver's status.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
