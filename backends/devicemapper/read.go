package devicemapper

import (
	"context"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
)

// View opens the content of a layer.
func (d *volumes) View(id string) (*tree.View, error) {
	v, _, err := d.view(context.Background(), id)
	return v, d.fail("read", id, err, "")
}

func (d *volumes) view(ctx context.Context, id string) (v *tree.View, r *record, err error) {
	var root layer.Dir
	err = d.locked(func() (err error) {
		if r, err = d.record(id); err != nil {
			return err
		}
		root, err = d.enter(ctx, r, false)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	v, err = tree.NewView([]tree.Branch{{Name: id, Root: root}})
	return v, r, err
}

// Changes compares a layer with its parent.
func (d *volumes) Changes(ctx context.Context, id string, f func(tree.Change) error) error {
	err := d.compare(ctx, id, func(old, new *tree.View, o tree.CompareOptions) error {
		return tree.Compare(ctx, old, new, o, f)
	})
	return d.fail("compare", id, err, "")
}

// Diff writes the same as an archive.
func (d *volumes) Diff(ctx context.Context, id string, w io.Writer) error {
	err := d.compare(ctx, id, func(old, new *tree.View, o tree.CompareOptions) error {
		return tree.Write(ctx, w, old, new, o)
	})
	return d.fail("diff", id, err, "")
}

// compare calls use with the trees of a layer and of its parent. A snapshot keeps the
// inodes of its origin, so what changed later than it was made has changed in it.
func (d *volumes) compare(ctx context.Context, id string, use func(old, new *tree.View, o tree.CompareOptions) error) error {
	new, r, err := d.view(ctx, id)
	if err != nil {
		return err
	}
	defer new.Close()
	if r.Parent() == "" {
		return use(nil, new, tree.CompareOptions{})
	}
	old, _, err := d.view(ctx, r.Parent())
	if err != nil {
		return err
	}
	defer old.Close()
	since := r.Created
	if d.byFuse2fs() {
		since = since.Truncate(time.Second) // its times have no parts of seconds
	}
	return use(old, new, tree.CompareOptions{Since: since.Add(-tick)})
}

// Usage counts the files that the layer added or changed. What the pool holds for it
// is more: blocks are shared or not as a whole.
func (d *volumes) Usage(ctx context.Context, id string) (driver.Usage, error) {
	var u driver.Usage
	err := d.compare(ctx, id, func(old, new *tree.View, o tree.CompareOptions) error {
		seen := map[uint64]bool{}
		return tree.Compare(ctx, old, new, o, func(c tree.Change) error {
			if c.Kind == tree.Deleted {
				return nil
			}
			n, err := new.Find(c.Path)
			if err != nil {
				return err
			}
			defer n.Close()
			if !seen[n.Stat.Ino] {
				seen[n.Stat.Ino] = true
				u.Bytes += int64(n.Stat.Blocks) * 512
				u.Inodes++
			}
			return nil
		})
	})
	return u, d.fail("measure", id, err, "")
}

// Status returns what docker info shows of this driver.
func (d *volumes) Status(ctx context.Context) ([]driver.Field, error) {
	var fields []driver.Field
	err := d.locked(func() error {
		of, err := d.pool.status(ctx)
		if err != nil {
			return err
		}
		s, err := d.pool.space(ctx)
		if err != nil {
			return err
		}
		used, err := d.usedDevices()
		if err != nil {
			return err
		}
		taken, err := d.devices()
		if err != nil {
			return err
		}
		doomed := slices.DeleteFunc(taken, func(n uint32) bool { return slices.Contains(used, n) })
		fields = d.fields(of, s, len(doomed))
		return nil
	})
	return fields, d.fail("status", "", err, "")
}

// fields are in Docker's order, behind those that all drivers have.
func (d *volumes) fields(of []driver.Field, s space, doomed int) []driver.Field {
	fstype, size := d.format.Filesystem, d.format.BaseSize
	if d.format.Base == 0 {
		if fstype, size = d.set.filesystem, d.set.baseSize; fstype == "" {
			fstype = chooseFilesystem(d.choice.Engine)
		}
	}
	yes := func(b bool) string {
		if b {
			return "true"
		}
		return "false"
	}
	fields := append([]driver.Field{{Name: "Root Dir", Value: d.root}, {Name: "Engine", Value: string(d.choice.Engine) + " (" + d.choice.Why + ")"}}, of...)
	fields = append(fields,
		driver.Field{Name: "Base Device Size", Value: human(size)},
		driver.Field{Name: "Backing Filesystem", Value: fstype},
		driver.Field{Name: "Data Space Used", Value: human(s.dataUsed)},
		driver.Field{Name: "Data Space Total", Value: human(s.dataTotal)},
		driver.Field{Name: "Data Space Available", Value: human(s.dataTotal - s.dataUsed)},
	)
	if s.metadataTotal > 0 {
		fields = append(fields,
			driver.Field{Name: "Metadata Space Used", Value: human(s.metadataUsed)},
			driver.Field{Name: "Metadata Space Total", Value: human(s.metadataTotal)},
			driver.Field{Name: "Metadata Space Available", Value: human(s.metadataTotal - s.metadataUsed)},
		)
	}
	return append(fields,
		driver.Field{Name: "Thin Pool Minimum Free Space", Value: human(s.dataTotal / 100 * int64(d.set.minFree))},
		driver.Field{Name: "Deferred Removal Enabled", Value: yes(d.set.deferRemove)},
		driver.Field{Name: "Deferred Deletion Enabled", Value: yes(d.set.deferDelete)},
		driver.Field{Name: "Deferred Deleted Device Count", Value: strconv.Itoa(doomed)},
	)
}
