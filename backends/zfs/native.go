package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/tree"
)

const magic = 0x2fc12fc1 // ZFS_SUPER_MAGIC (include/sys/zfs_vfsops_os.h)

// obstacles says why zfs(8) cannot keep the layers, one sentence each.
func obstacles(h host, parent string, options map[string]string) []string {
	for _, name := range userspaceOnly {
		if _, set := options[name]; set {
			return []string{"option " + name + " is for lamina's own pools; zpool and zfs are told such things themselves"}
		}
	}
	if unix.Geteuid() != 0 {
		return []string{"mounting datasets of zfs is for root"}
	}
	if parent == "" {
		return []string{"the driver's directory does not lie on zfs, and the option fsname names no dataset"}
	}
	if _, err := h.zfs("version"); err != nil {
		return []string{err.Error()}
	}
	pool, _, _ := strings.Cut(parent, "/")
	if _, err := h.zfs("list", "-H", "-o", "name", pool); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// parentOf returns the dataset that a directory lies on, "" when it is not on zfs.
func parentOf(dir string) string {
	var st unix.Statfs_t
	for unix.Statfs(dir, &st) == unix.ENOENT && dir != "/" {
		dir = filepath.Dir(dir)
	}
	if st.Type != magic {
		return ""
	}
	found := ""
	longest := -1
	_, _ = mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		inside := dir == m.Mountpoint || strings.HasPrefix(dir, strings.TrimSuffix(m.Mountpoint, "/")+"/")
		if m.FSType == "zfs" && inside && len(m.Mountpoint) > longest {
			found, longest = m.Source, len(m.Mountpoint)
		}
		return true, false
	})
	return found
}

// Names that the native engine gives.
const (
	propertyStage = "lamina:stage" // the stage in which a dataset was made
	committed     = "committed"    // the snapshot of which children are clones
)

// A native is the driver as zfs(8) does it.
type native struct {
	layerdir.Bound
	host         host
	parent       string // dataset
	mountOptions string
}

var (
	_ layerdir.Kind    = (*native)(nil)
	_ layerdir.Mover   = (*native)(nil)
	_ layerdir.Remover = (*native)(nil)
)

func (*native) Name() string { return "zfs" }

func (*native) Options() []driver.Option { return options() }

func (k *native) Prepare(d *layerdir.Driver, options map[string]string) (_ []string, err error) {
	if err := d.MakeDirs("graph", "mnt", "layers"); err != nil {
		return nil, err
	}
	if text, set := options["size"]; set {
		if d.Size, err = driver.ParseSize(text); err != nil {
			return nil, fmt.Errorf("option size: %w", err)
		}
	}
	_, err = k.host.zfs("create", "-p", "-o", "mountpoint=legacy", k.parent)
	if says(err, saysExists) { // older versions fail in spite of -p
		err = nil
	}
	return nil, err
}

func (*native) Capabilities(*layerdir.Driver) driver.Capabilities {
	return driver.Capabilities{Size: true, Shares: true, ArbitraryTargets: true}
}

func (*native) Parts(id string) []layerdir.Part {
	return []layerdir.Part{
		{Staged: "graph", Final: "graph/" + id},
		{Staged: "mnt", Final: "mnt/" + id},
		{Staged: "record", Final: "layers/" + id + ".json"},
	}
}

func (*native) Record(id string) string { return "layers/" + id + ".json" }

func (k *native) dataset(id string) string { return k.parent + "/" + id }

// Fill makes the dataset, under the name that it keeps.
//
// Crash before the record is published: a dataset without a record, whose stage nobody
// holds any more; swept.
func (k *native) Fill(_ context.Context, d *layerdir.Driver, s *layerdir.Stage, l, parent *driver.Layer) error {
	args := []string{"-o", "mountpoint=legacy", "-o", propertyStage + "=" + filepath.Base(s.Dir)}
	if l.Size > 0 {
		args = append(args, "-o", fmt.Sprint("quota=", l.Size))
	}
	if parent == nil {
		args = append(append([]string{"create"}, args...), k.dataset(l.ID))
	} else {
		args = append(append([]string{"clone"}, args...), k.dataset(parent.ID)+"@"+committed, k.dataset(l.ID))
	}
	if _, err := k.host.zfs(args...); err != nil {
		if says(err, saysExists) {
			return fmt.Errorf("%w, or is being made: %w", driver.ErrExists, err)
		}
		return err
	}
	if parent != nil {
		return nil
	}
	path := s.Path("graph")
	if err := k.host.mount(k.dataset(l.ID), path, k.mountOptions); err != nil {
		return err
	}
	return errors.Join(d.Mkroot(path, nil), k.host.unmount(path))
}

func (k *native) BeginApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	path, err := k.shown(d, l.ID)
	return layerdir.Content{Path: path, Format: tree.Full}, err
}

func (*native) EndApply(context.Context, *layerdir.Driver, *driver.Layer) error { return nil }

// Seal makes the snapshot that children are clones of. One that a commit has left
// which crashed before its record goes first.
func (k *native) Seal(_ context.Context, _ *layerdir.Driver, l *driver.Layer) error {
	snapshot := k.dataset(l.ID) + "@" + committed
	_, err := k.host.zfs("snapshot", snapshot)
	if !says(err, saysExists) {
		return err
	}
	if _, err := k.host.zfs("destroy", "-d", snapshot); err != nil {
		return err
	}
	_, err = k.host.zfs("snapshot", snapshot)
	return err
}

func (*native) Tidy(*layerdir.Driver, *driver.Layer) error { return nil }

// Sweep destroys datasets without a record that nobody is about to give one.
func (k *native) Sweep(d *layerdir.Driver) (swept []string, err error) {
	out, err := k.host.zfs("list", "-H", "-d", "1", "-t", "filesystem", "-o", "name,"+propertyStage, k.parent)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		name, stage, _ := strings.Cut(strings.TrimSpace(line), "\t")
		id, below := strings.CutPrefix(name, k.parent+"/")
		if !below || stage == "-" || stage == "" || d.StageAlive(stage) { // "-": somebody else's
			continue
		}
		if _, err := os.Lstat(d.Path(k.Record(id))); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := k.destroy(id); err != nil {
			return swept, err
		}
		swept = append(swept, name)
	}
	return swept, nil
}

// destroy destroys a dataset and its snapshot, which nothing is a clone of.
func (k *native) destroy(id string) error {
	_, err := k.host.zfs("destroy", "-r", k.dataset(id))
	if says(err, saysMissing) {
		return nil
	}
	return err
}

// Removable unmounts the dataset, which fails while somebody uses the layer in place.
func (k *native) Removable(d *layerdir.Driver, id string) error {
	path := d.Path("graph", id)
	mounted, err := mountinfo.Mounted(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !mounted {
		return nil
	}
	if err == nil {
		err = k.host.unmount(path)
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w and in use: %w", driver.ErrMounted, err)
	}
	return err
}

// Removed destroys the dataset of a layer whose record is gone.
func (k *native) Removed(_ *layerdir.Driver, id string) error { return k.destroy(id) }

// Move renames what may be a mount point, which is unmounted first.
func (k *native) Move(from, to string) error {
	if mounted, err := mountinfo.Mounted(from); err == nil && mounted {
		if err := k.host.unmount(from); err != nil {
			return err
		}
	}
	return os.Rename(from, to)
}

// Delete deletes a stage, in which a dataset may be mounted.
func (k *native) Delete(dir string) error {
	path := filepath.Join(dir, "graph")
	if mounted, err := mountinfo.Mounted(path); err == nil && mounted {
		if err := k.host.unmount(path); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// shown returns where a layer's dataset is mounted, which it stays until the layer is
// removed or the machine is started again.
func (k *native) shown(d *layerdir.Driver, id string) (string, error) {
	path := d.Path("graph", id)
	mounted, err := mountinfo.Mounted(path)
	if err != nil || mounted {
		return path, err
	}
	err = k.host.mount(k.dataset(id), path, k.mountOptions)
	if errors.Is(err, unix.EBUSY) || says(err, "already mounted") { // by another process, just now
		err = nil
	}
	return path, err
}

// tick is how far behind the clock the times may be that the kernel gives to inodes.
const tick = 20 * time.Millisecond

func (k *native) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{Place: d.Path("mnt", l.ID), Plain: true, Compare: tree.CompareOptions{Since: l.Created.Add(-tick)}}
	path, err := k.shown(d, l.ID)
	if err != nil {
		return s, err
	}
	s.Top = layerdir.Content{Path: path, Format: tree.Full}
	if p := l.Parent(); p != "" {
		path, err := k.shown(d, p)
		if err != nil {
			return s, err
		}
		s.Old = []string{path}
	}
	return s, nil
}

// Status has the lines of docker info; what zfs(8) does not tell is "unknown".
func (k *native) Status(*layerdir.Driver) []driver.Field {
	pool, _, _ := strings.Cut(k.parent, "/")
	health, err := k.host.zpool("list", "-H", "-o", "health", pool)
	if err != nil {
		health = "unknown"
	}
	names := []string{"used", "available", "quota", "compression"}
	out, err := k.host.zfs("get", "-H", "-p", "-o", "value", strings.Join(names, ","), k.parent)
	values := strings.Fields(out)
	if err != nil || len(values) != len(names) {
		values = slices.Repeat([]string{"unknown"}, len(names))
	}
	if values[2] == "0" || values[2] == "none" {
		values[2] = "no"
	}
	return []driver.Field{
		{Name: "Zpool", Value: pool},
		{Name: "Zpool Health", Value: strings.TrimSpace(health)},
		{Name: "Parent Dataset", Value: k.parent},
		{Name: "Space Used By Parent", Value: values[0]},
		{Name: "Space Available", Value: values[1]},
		{Name: "Parent Quota", Value: values[2]},
		{Name: "Compression", Value: values[3]},
	}
}
