package datasets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
)

// now returns the name of what a layer is: its snapshot, or the dataset.
func (d *Driver) now(l *driver.Layer) string {
	if l.Committed {
		return d.snapshot(l.ID)
	}
	return d.dataset(l.ID)
}

// before returns the name of what a layer was when it was made.
func (d *Driver) before(l *driver.Layer) string {
	if p := l.Parent(); p != "" {
		return d.snapshot(p)
	}
	return d.dataset(emptySnapshot)
}

// View has the server show a layer where only this user can look, until the view is
// closed or this process ends.
func (d *Driver) View(id string) (*tree.View, error) {
	ctx := context.Background()
	l, err := d.record(ctx, id)
	if err != nil {
		return nil, d.fail("read", id, err, "")
	}
	v, err := d.view(ctx, d.now(l))
	return v, d.fail("read", id, err, "")
}

func (d *Driver) view(ctx context.Context, name string) (*tree.View, error) {
	k := &look{d: d, ended: make(chan error, 1)}
	client, err := d.pool.connect(ctx)
	if err != nil {
		return nil, err
	}
	where := make(chan string, 1)
	client.Progress = func(p poolserver.Progress) {
		var at poolserver.Look
		if raw, err := json.Marshal(p.Event); err == nil && json.Unmarshal(raw, &at) == nil {
			where <- at.Target
		}
	}
	go func() {
		_, err := poolserver.DatasetLook.Call(ctx, client, poolserver.Named{Name: name})
		client.Close()
		k.ended <- err
	}()
	select {
	case err := <-k.ended:
		return nil, errors.Join(err, fmt.Errorf("the view of %s was not made", name))
	case k.target = <-where:
	}
	if k.Dir, err = layer.OpenHost(k.target); err != nil {
		return nil, errors.Join(err, k.end())
	}
	return tree.NewView([]tree.Branch{{Name: name, Root: k}})
}

// A look is the root of what the server shows.
type look struct {
	layer.Dir
	d      *Driver
	target string
	ended  chan error // what the request has come to
}

// Close takes the mount away and waits for the server to have done so.
func (k *look) Close() error { return errors.Join(k.Dir.Close(), k.end()) }

func (k *look) end() error {
	if err := k.d.unmount(context.Background(), k.target, true); err != nil && !errors.Is(err, unix.EINVAL) {
		return err // EINVAL: it is unmounted already
	}
	return <-k.ended
}

// Changes has the server compare a layer with its parent. It tells names and kinds;
// the nodes are not there.
func (d *Driver) Changes(ctx context.Context, id string, f func(tree.Change) error) error {
	l, err := d.record(ctx, id)
	if err != nil {
		return d.fail("compare", id, err, "")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var own error
	_, err = ask(ctx, d, poolserver.DatasetChanges, d.pair(l), func(p poolserver.Progress) {
		var c poolserver.TreeChange
		raw, err := json.Marshal(p.Event)
		if err == nil {
			err = json.Unmarshal(raw, &c)
		}
		if own == nil && err == nil {
			err = f(tree.Change{Path: string(c.Path), Kind: c.Kind, Link: string(c.Link)})
		}
		if own == nil && err != nil {
			own = err
			stop()
		}
	})
	if own != nil {
		err = own
	}
	return d.fail("compare", id, err, "")
}

// pair names what a layer is compared with: a layer without a parent with nothing.
func (d *Driver) pair(l *driver.Layer) poolserver.TreePair {
	p := poolserver.TreePair{To: d.now(l)}
	if l.Parent() != "" {
		p.From = d.before(l)
	}
	return p
}

// Diff has the server write the same as an archive.
func (d *Driver) Diff(ctx context.Context, id string, w io.Writer) error {
	l, err := d.record(ctx, id)
	if err == nil {
		err = d.diff(ctx, l, w)
	}
	return d.fail("diff", id, err, "")
}

func (d *Driver) diff(ctx context.Context, l *driver.Layer, w io.Writer) error {
	r, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	// See apply.
	_, _ = unix.FcntlInt(pw.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, r)
		r.Close() // the server gets EPIPE
		copied <- err
	}()
	_, err = Ask(ctx, d, poolserver.DatasetArchive, d.pair(l), pw)
	pw.Close()
	if e := <-copied; e != nil {
		return e
	}
	return err
}

// Usage measures what the layer has that its parent has not.
func (d *Driver) Usage(ctx context.Context, id string) (driver.Usage, error) {
	l, err := d.record(ctx, id)
	if err != nil {
		return driver.Usage{}, d.fail("measure", id, err, "")
	}
	delta, err := Ask(ctx, d, poolserver.DatasetDelta, poolserver.TreePair{From: d.before(l), To: d.now(l)})
	return driver.Usage{Bytes: delta.Bytes, Inodes: delta.Objects}, d.fail("measure", id, err, "")
}

// Status returns the kind's lines behind those that all have.
func (d *Driver) Status(ctx context.Context) ([]driver.Field, error) {
	fields := []driver.Field{
		{Name: "Root Dir", Value: d.root},
		{Name: "Backing Filesystem", Value: "lamina pool " + d.pool.place.Dir},
		{Name: "Engine", Value: string(d.choice.Engine) + " (" + d.choice.Why + ")"},
	}
	if d.kind.Status == nil {
		return fields, nil
	}
	own, err := d.kind.Status(ctx, d)
	return append(fields, own...), d.fail("status", "", err, "")
}
