package containerd

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

// Prepare makes a snapshot that can be written to.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, key, parent, snapshots.KindActive, opts)
}

// View makes one that can be looked at.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, key, parent, snapshots.KindView, opts)
}

func (s *Snapshotter) create(ctx context.Context, key, parent string, kind snapshots.Kind, opts []snapshots.Opt) ([]mount.Mount, error) {
	wanted, err := apply(opts)
	if err != nil {
		return nil, err
	}
	o := store.CreateOptions{Labels: labels(wanted)}
	if kind == snapshots.KindView {
		o.Labels[viewLabel] = "1"
	}
	// What cannot be had is left out: the label is a hint.
	if size, err := strconv.ParseInt(wanted.Labels[snapshots.LabelSnapshotMaxSize], 10, 64); err == nil && s.store.Driver.Capabilities().Size {
		o.Size = size
	}
	if _, err := s.store.Create(ctx, key, parent, o); err != nil {
		return nil, wrap("create", key, err)
	}
	mounts, err := s.Mounts(ctx, key)
	if err != nil {
		return nil, errors.Join(err, s.store.Remove(ctx, key))
	}
	return mounts, nil
}

func apply(opts []snapshots.Opt) (wanted snapshots.Info, err error) {
	for _, o := range opts {
		err = errors.Join(err, o(&wanted))
	}
	return wanted, err
}

func labels(i snapshots.Info) map[string]string {
	kept := map[string]string{}
	for name, value := range i.Labels {
		kept[name] = valuePrefix + value
	}
	return kept
}

// Mounts says what to mount, which is mounted by lamina already, or now.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	l, err := s.layer(key)
	if err != nil {
		return nil, err
	}
	kind := info(&l).Kind
	if kind == snapshots.KindCommitted {
		return nil, fmt.Errorf("mount snapshot %s: it is committed: %w", key, errdefs.ErrFailedPrecondition)
	}
	at, err := s.store.Driver.Mounts(l.ID)
	if err != nil {
		return nil, wrap("mount", key, err)
	}
	if len(at) > 0 {
		return bind(at[0], kind), nil
	}
	path, err := s.store.Driver.Mount(ctx, l.ID, driver.MountOptions{ReadOnly: kind == snapshots.KindView})
	if err != nil {
		return nil, wrap("mount", key, err)
	}
	return bind(path, kind), nil
}

// unmount takes away what Mounts has mounted.
func (s *Snapshotter) unmount(ctx context.Context, l *store.Layer) error {
	at, err := s.store.Driver.Mounts(l.ID)
	if err != nil || len(at) == 0 {
		return err
	}
	return s.store.Driver.Unmount(ctx, l.ID, "", false)
}

// Commit makes an active snapshot a committed one with another name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	wanted, err := apply(opts)
	if err != nil {
		return err
	}
	l, err := s.layer(key)
	if err != nil {
		return err
	}
	if kind := info(&l).Kind; kind != snapshots.KindActive {
		return fmt.Errorf("commit snapshot %s: it is a %s one: %w", key, kind, errdefs.ErrFailedPrecondition)
	}
	if wanted.Parent != "" && wanted.Parent != l.Parent {
		return fmt.Errorf("commit snapshot %s on another parent, %s: %w", key, wanted.Parent, errdefs.ErrNotImplemented)
	}
	if err := s.unmount(ctx, &l); err != nil {
		return wrap("commit", key, err)
	}
	kept := labels(wanted)
	if _, err := s.store.Commit(ctx, key, name, store.Committed, kept); err != nil {
		return wrap("commit", key, err)
	}
	// The store keeps the labels that the layer had, a snapshotter does not.
	gone := map[string]string{}
	for label := range l.Labels {
		if _, ok := kept[label]; !ok {
			gone[label] = ""
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err = s.store.SetLabels(name, gone)
	return wrap("commit", name, err)
}

// Remove takes a snapshot away.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	l, err := s.layer(key)
	if err != nil {
		return err
	}
	if err := s.unmount(ctx, &l); err != nil {
		return wrap("remove", key, err)
	}
	return wrap("remove", key, s.store.Remove(ctx, key))
}

// unmountAll takes away all that Mounts has mounted.
func (s *Snapshotter) unmountAll(ctx context.Context) error {
	layers, err := s.store.Layers()
	for i := range layers {
		err = errors.Join(err, s.unmount(ctx, &layers[i]))
	}
	return err
}
