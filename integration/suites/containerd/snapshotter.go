// Package containerd makes a layer store of lamina a snapshotter of containerd.
//
// # Model
//
//	snapshot      layer of the store, by the same name
//	Prepare       an active layer, mounted in the driver's place
//	View          the same with the label viewLabel, mounted read-only
//	Mounts        a bind mount of where the layer is mounted
//	Commit        the view is taken away, and the layer committed under its new name
//
// A snapshotter of the kernel's overlayfs returns a mount that its caller makes. A
// layer of lamina is mounted by who has its descriptors and its limits, be it the kernel
// or a server, so callers bind what is there.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

const (
	// viewLabel is on layers that are only looked at.
	viewLabel = "lamina.snapshot/view"
	// createdLabel has the time of a commit: for containerd that makes another snapshot,
	// for lamina it is the same layer.
	createdLabel = "lamina.snapshot/created"
	// valuePrefix is before the values of labels, which may be empty in containerd and
	// not in lamina.
	valuePrefix = "="
)

// A Snapshotter is a store that containerd can use.
type Snapshotter struct {
	store *store.Store
	close func() error
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New makes a snapshotter, which owns the store from then on.
func New(s *store.Store) *Snapshotter {
	return &Snapshotter{store: s, close: sync.OnceValue(s.Close)}
}

// Stat tells of one snapshot.
func (s *Snapshotter) Stat(_ context.Context, key string) (snapshots.Info, error) {
	l, err := s.layer(key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return info(&l), nil
}

// layer finds a layer by its whole name.
func (s *Snapshotter) layer(key string) (store.Layer, error) {
	l, err := s.store.Layer(key)
	if err == nil && l.Name != key { // it was found by its id
		err = driver.ErrNotFound
	}
	return l, wrap("look up", key, err)
}

func info(l *store.Layer) snapshots.Info {
	i := snapshots.Info{Name: l.Name, Parent: l.Parent, Kind: snapshots.KindActive, Created: l.Created, Updated: l.Updated}
	if l.Kind != store.Active {
		i.Kind, i.Created = snapshots.KindCommitted, l.Updated
	}
	for name, value := range l.Labels {
		switch name {
		case viewLabel:
			i.Kind = snapshots.KindView
		case createdLabel:
			if at, err := time.Parse(time.RFC3339Nano, value); err == nil {
				i.Created = at
			}
		default:
			if i.Labels == nil {
				i.Labels = map[string]string{}
			}
			i.Labels[name] = strings.TrimPrefix(value, valuePrefix)
		}
	}
	return i
}

// Update changes labels, which is all that can be.
func (s *Snapshotter) Update(_ context.Context, to snapshots.Info, fieldPaths ...string) (snapshots.Info, error) {
	l, err := s.layer(to.Name)
	if err != nil {
		return snapshots.Info{}, err
	}
	was := info(&l)
	if len(fieldPaths) == 0 {
		fieldPaths = []string{"labels"}
	}
	change := map[string]string{}
	for _, path := range fieldPaths {
		if name, ok := strings.CutPrefix(path, "labels."); ok {
			set(change, to.Labels, name)
			continue
		}
		if path != "labels" {
			return snapshots.Info{}, fmt.Errorf("update %s: %s cannot be changed: %w", to.Name, path, errdefs.ErrInvalidArgument)
		}
		for name := range was.Labels {
			set(change, to.Labels, name)
		}
		for name := range to.Labels {
			set(change, to.Labels, name)
		}
	}
	change[createdLabel] = was.Created.Format(time.RFC3339Nano)
	if l, err = s.store.SetLabels(to.Name, change); err != nil {
		return snapshots.Info{}, wrap("update", to.Name, err)
	}
	return info(&l), nil
}

// set notes in a change of the store that a label is to be as in wanted: there, or not.
func set(change, wanted map[string]string, name string) {
	change[name] = ""
	if value, ok := wanted[name]; ok {
		change[name] = valuePrefix + value
	}
}

// Usage tells what a snapshot takes by itself.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	l, err := s.layer(key)
	if err != nil {
		return snapshots.Usage{}, err
	}
	u, err := s.store.Usage(ctx, &l)
	return snapshots.Usage{Inodes: u.Inodes, Size: u.Bytes}, wrap("measure", key, err)
}

// Walk calls fn for the snapshots that match.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, matching ...string) error {
	filter, err := filters.ParseAll(matching...)
	if err != nil {
		return err
	}
	layers, err := s.store.Layers()
	if err != nil {
		return err
	}
	for i := range layers {
		if in := info(&layers[i]); filter.Match(fields(in)) {
			if err := fn(ctx, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// fields are what filters can ask for.
func fields(i snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return i.Name, true
		case "parent":
			return i.Parent, i.Parent != ""
		case "kind":
			return strings.ToLower(i.Kind.String()), true
		case "labels":
			value, ok := i.Labels[strings.Join(path[1:], ".")]
			return value, ok
		}
		return "", false
	})
}

// Cleanup sweeps what crashes have left.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	_, err := s.store.Driver.Cleanup(ctx)
	return err
}

// Close lets go of the store; what is mounted stays so.
func (s *Snapshotter) Close() error { return s.close() }

// wrap gives lamina's causes the names of containerd's.
func wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	for _, c := range []struct{ lamina, containerd error }{
		{driver.ErrNotFound, errdefs.ErrNotFound},
		{driver.ErrExists, errdefs.ErrAlreadyExists},
		{driver.ErrUnsupported, errdefs.ErrNotImplemented},
		{driver.ErrActive, errdefs.ErrFailedPrecondition},
		{driver.ErrCommitted, errdefs.ErrFailedPrecondition},
		{driver.ErrHasChildren, errdefs.ErrFailedPrecondition},
		{driver.ErrMounted, errdefs.ErrFailedPrecondition},
		{store.ErrInUse, errdefs.ErrFailedPrecondition},
	} {
		if errors.Is(err, c.lamina) {
			return fmt.Errorf("%s snapshot %s: %w: %w", op, key, c.containerd, err)
		}
	}
	return fmt.Errorf("%s snapshot %s: %w", op, key, err)
}

// bind is what a caller mounts to have what is at a path.
func bind(path string, kind snapshots.Kind) []mount.Mount {
	mode := "rw"
	if kind != snapshots.KindActive {
		mode = "ro"
	}
	return []mount.Mount{{Type: "bind", Source: path, Options: []string{"rbind", mode}}}
}
