package layerdir

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/backends/tree"
)

// Create stages a layer and publishes it.
func (d *Driver) Create(ctx context.Context, id, parent string, o driver.CreateOptions) error {
	l, p, err := d.newLayer(id, parent, o)
	if err != nil {
		return d.fail("create", id, err, "")
	}
	s, err := d.newStage("create")
	if err != nil {
		return d.fail("create", id, err, "")
	}
	defer s.drop()
	if err := d.fill(ctx, s, l, p); err != nil {
		return d.fail("create", id, err, "")
	}
	// Crash up to here: the stage, swept. From the last rename on: the layer.
	err = d.locked(func() error {
		if _, _, err := d.newLayer(id, parent, o); err != nil {
			return err // another process was faster
		}
		return d.publish(s, id)
	})
	return d.fail("create", id, err, "")
}

// newLayer checks what was asked for.
func (d *Driver) newLayer(id, parent string, o driver.CreateOptions) (l, p *driver.Layer, err error) {
	if err := checkID(id); err != nil {
		return nil, nil, err
	}
	if d.recorded(d.root, id) || d.Elsewhere(id) {
		return nil, nil, driver.ErrExists
	}
	l = &driver.Layer{ID: id, Size: o.Size, Inodes: o.Inodes}
	if l.Size == 0 {
		l.Size = d.Size
	}
	if l.Inodes == 0 {
		l.Inodes = d.Inodes
	}
	if err := d.checkLimits(l, o); err != nil {
		return nil, nil, err
	}
	if parent == "" {
		return l, nil, nil
	}
	if p, err = d.record(parent); err != nil {
		return nil, nil, fmt.Errorf("parent %s: %w", parent, err)
	}
	if !p.Committed {
		return nil, nil, fmt.Errorf("parent %s: %w; commit it first", parent, driver.ErrActive)
	}
	l.Parents = append([]string{parent}, p.Parents...)
	if most := d.kind.Capabilities(d).MaxDepth; most > 0 && len(l.Parents) > most {
		return nil, nil, fmt.Errorf("%w: %d, and %s takes %d", driver.ErrTooDeep, len(l.Parents), d.Name(), most)
	}
	return l, p, nil
}

func (d *Driver) checkLimits(l *driver.Layer, o driver.CreateOptions) error {
	c := d.kind.Capabilities(d)
	switch {
	case o.Size < 0 || o.Inodes < 0:
		return fmt.Errorf("a limit below 0 is %w", driver.ErrUnsupported)
	case l.Size > 0 && !c.Size, l.Inodes > 0 && !c.Inodes:
		return fmt.Errorf("a limit is %w by the %s engine; take --engine=userspace", driver.ErrUnsupported, d.choice.Engine)
	}
	return nil
}

// fill makes all parts and the record in the stage.
func (d *Driver) fill(ctx context.Context, s *Stage, l, p *driver.Layer) error {
	for _, part := range d.kind.Parts(l.ID) {
		if err := os.MkdirAll(s.Path(part.Staged), 0o711); err != nil {
			return err
		}
	}
	d.Step("fill")
	if err := d.kind.Fill(ctx, d, s, l, p); err != nil {
		return err
	}
	l.Created = time.Now().UTC()
	d.Step("record")
	return rootdir.WriteJSON(d.stagedRecord(s, l.ID), l)
}

// stagedRecord is where the record lies before it is published: in the last part,
// under the name that it has there, or it is that part.
func (d *Driver) stagedRecord(s *Stage, id string) string {
	parts := d.kind.Parts(id)
	last := parts[len(parts)-1]
	if last.Final == d.kind.Record(id) {
		_ = os.Remove(s.Path(last.Staged)) // the directory that stands for it
		return s.Path(last.Staged)
	}
	return s.Path(last.Staged, filepath.Base(d.kind.Record(id)))
}

// Apply fills an active layer from an archive.
func (d *Driver) Apply(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	l, err := d.active(id)
	if err == nil && l.Filled {
		err = driver.ErrFilled
	}
	if err != nil {
		return tree.Applied{}, d.fail("apply", id, err, "")
	}
	// Crash from here on: an active layer with a part of the archive, which the
	// record says, so that nobody writes to it.
	l.Filled = true
	if err := d.locked(func() error { return rootdir.ReplaceJSON(d.path(d.kind.Record(id)), l) }); err != nil {
		return tree.Applied{}, d.fail("apply", id, err, "")
	}
	applied, err := d.apply(ctx, l, archive, o)
	return applied, d.fail("apply", id, err, "the layer holds a part of it; remove the layer")
}

// Write implements [driver.Writer].
func (d *Driver) Write(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	l, err := d.active(id)
	var s Stack
	if err == nil && l.Filled {
		err = driver.ErrFilled
	}
	if err == nil {
		s, err = d.kind.Stack(d, l)
	}
	var applied tree.Applied
	if err == nil {
		applied, err = d.carryOut(ctx, l, s.Top, archive, o)
	}
	return applied, d.fail("write", id, err, "the layer may hold a part of it; remove the layer")
}

func (d *Driver) apply(ctx context.Context, l *driver.Layer, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	content, err := d.kind.BeginApply(ctx, d, l)
	if err != nil {
		return tree.Applied{}, err
	}
	applied, err := d.carryOut(ctx, l, content, archive, o)
	if err != nil {
		return applied, err
	}
	d.Step("applied")
	return applied, d.kind.EndApply(ctx, d, l)
}

// carryOut does what an archive says to what a layer has.
func (d *Driver) carryOut(ctx context.Context, l *driver.Layer, content Content, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	root, err := d.OpenDir(content.Path)
	if err != nil {
		return tree.Applied{}, err
	}
	defer root.Close()
	target := tree.Target{Root: root, Format: content.Format}
	if content.Format != tree.Full && l.Parent() != "" {
		target.Below = func() (*tree.View, error) { return d.View(l.Parent()) }
	}
	d.Step("apply")
	return tree.Apply(ctx, target, archive, o)
}

// active returns the record of a layer that is not committed and not mounted.
func (d *Driver) active(id string) (*driver.Layer, error) {
	l, err := d.record(id)
	if err != nil {
		return nil, err
	}
	if l.Committed {
		return nil, driver.ErrCommitted
	}
	if at, err := d.mounts(id); err != nil || len(at) > 0 {
		if err == nil {
			err = fmt.Errorf("%w on %s; unmount it first", driver.ErrMounted, at[0])
		}
		return nil, err
	}
	return l, nil
}

// Commit makes an active layer one that never changes.
func (d *Driver) Commit(ctx context.Context, id string) error {
	l, err := d.active(id)
	if err != nil {
		return d.fail("commit", id, err, "")
	}
	d.Step("seal")
	if err := d.kind.Seal(ctx, d, l); err != nil {
		return d.fail("commit", id, err, "")
	}
	record := d.path(d.kind.Record(id))
	err = d.locked(func() error {
		if l, err = d.active(id); err != nil {
			return err
		}
		l.Committed = true
		if err := rootdir.WriteJSON(record+rootdir.NewSuffix, l); err != nil {
			return err
		}
		d.Step("write out")
		if err := d.sync(syncTree, d.root); err != nil {
			return err
		}
		// Crash up to here: an active layer, and a file that the next commit
		// replaces. From the rename on: a committed one, all of which is on disk.
		d.Step("commit")
		if err := os.Rename(record+rootdir.NewSuffix, record); err != nil {
			return err
		}
		d.Step("committed")
		if err := d.sync(rootdir.SyncDir, filepath.Dir(record)); err != nil {
			return err
		}
		return d.kind.Tidy(d, l)
	})
	return d.fail("commit", id, err, "")
}

func (d *Driver) sync(how func(string) error, path string) error {
	if d.noSync {
		return nil
	}
	return how(path)
}

// syncTree writes out the filesystem that the layers lie on.
func syncTree(root string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
