package layerdir

import (
	"context"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// A Kind is one driver.
type Kind interface {
	Name() string
	Options() []driver.Option
	// Prepare reads the options and looks whether the native engine works here.
	// Each obstacle is a sentence.
	Prepare(d *Driver, options map[string]string) (obstacles []string, err error)
	Capabilities(d *Driver) driver.Capabilities

	// Parts lists what a layer consists of, in the order of publishing: the last
	// one holds the record, and is "*" in place of an id fit for filepath.Glob.
	Parts(id string) []Part
	// Record is the path of the record below the root.
	Record(id string) string
	// Fill makes the parts of a new layer in a stage; each is an empty directory
	// to begin with. parent is nil for none.
	Fill(ctx context.Context, d *Driver, s *Stage, l, parent *driver.Layer) error
	// BeginApply returns the directory that an archive is applied to.
	BeginApply(ctx context.Context, d *Driver, l *driver.Layer) (Content, error)
	// EndApply makes what was applied the layer's content.
	EndApply(ctx context.Context, d *Driver, l *driver.Layer) error
	// Seal prepares an active layer for being a parent, without changing what it
	// is as an active one.
	Seal(ctx context.Context, d *Driver, l *driver.Layer) error
	// Tidy removes what a committed layer has no use for. It runs under the lock.
	Tidy(d *Driver, l *driver.Layer) error
	// Sweep removes what lies beside the layers and belongs to none. It runs under
	// the lock.
	Sweep(d *Driver) (swept []string, err error)

	Stack(d *Driver, l *driver.Layer) (Stack, error)
	// NativeLacks lists why the kernel cannot mount a view with these options.
	NativeLacks(o *mountopt.Options) []string
	// MountNative mounts a stack by the kernel.
	MountNative(d *Driver, s *Stack, o *mountopt.Options, target string) error
	Status(d *Driver) []driver.Field
}

// A Mover is a [Kind] with parts that rename(2) alone does not move, or that are no
// mere directories to delete.
type Mover interface {
	// Move is os.Rename, within the root.
	Move(from, to string) error
	// Delete is os.RemoveAll of a stage.
	Delete(dir string) error
}

// A Remover is a [Kind] with something of a layer beside its parts.
type Remover interface {
	// Removable refuses what is in use, before anything of the layer is taken away,
	// under the lock.
	Removable(d *Driver, id string) error
	// Removed takes it away when the record is gone, under the lock. What a crash
	// leaves, Sweep finds.
	Removed(d *Driver, id string) error
}

// A Part is one directory of a layer: where it is staged and where it lies when
// it is published, below the stage and the root.
type Part struct{ Staged, Final string }

// Content is a directory with the content of a layer, and how it holds what is
// deleted.
type Content struct {
	Path   string
	Format tree.Format
}

// A Stack is what a layer's view merges. All paths are absolute.
type Stack struct {
	// Top is the layer's own directory, and what is written to when it is active.
	Top    Content
	Lowers []string // the nearest parent first
	Work   string   // for writing; "" when the layer never is
	// Place is where a view is mounted unless another place is asked for.
	Place string
	// Plain tells that Top is a whole tree that needs no mount to be used.
	Plain bool
	// Since is for comparing whole trees, see [tree.CompareOptions].
	Compare tree.CompareOptions
	// Old lists what the parent's view merges, the top first, when that is not
	// Lowers.
	Old []string
}
