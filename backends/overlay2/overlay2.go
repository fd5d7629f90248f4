package overlay2

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/driver/overlayfs"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Open opens the directory of an overlay2 driver; see [layerdir.Open].
func Open(cfg driver.Config) (driver.Driver, error) {
	d, err := layerdir.Open(kind{}, cfg)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type kind struct{}

func (kind) Name() string { return "overlay2" }

func (kind) Options() []driver.Option {
	return append(layerdir.LimitOptions(),
		driver.Option{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view"},
		driver.Option{Name: "userxattr", Accepts: "true, false", Help: "whether a new store keeps overlay marks where every user can read them; unless set only if this user has no other choice"},
		driver.Option{Name: "override_kernel_check", Accepts: "true, false", Help: "no effect: what the kernel can do is tried"},
	)
}

func (kind) Prepare(d *layerdir.Driver, options map[string]string) (obstacles []string, err error) {
	if err := d.MakeDirs("l"); err != nil {
		return nil, err
	}
	d.HoldsMarks = true
	if o := options["mountopt"]; o != "" {
		d.MountOptions = []string{o}
	}
	if obstacles, err = d.TakeLimits(options); err != nil {
		return nil, err
	}
	more, err := d.TryNative(func(dir string) []string {
		return overlayfs.Obstacles(dir, d.OverlayFormat() == tree.OverlayUser)
	})
	return append(obstacles, more...), err
}

func (kind) Capabilities(d *layerdir.Driver) driver.Capabilities {
	c := driver.Capabilities{Size: d.Userspace(), Inodes: d.Userspace(), Shares: true, ArbitraryTargets: true}
	if !d.Userspace() {
		c.MaxDepth = mountopt.KernelMaxLayers - 1
	}
	return c
}

const recordFile = "layer.json"

func (kind) Parts(id string) []layerdir.Part {
	layer := layerdir.Part{Staged: "layer", Final: id}
	if id == "*" {
		return []layerdir.Part{layer}
	}
	return []layerdir.Part{{Staged: "link", Final: "l/" + shortName(id)}, layer}
}

func (kind) Record(id string) string { return id + "/" + recordFile }

// shortName is 26 letters and digits, as Docker's random ones are.
func shortName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return base32.StdEncoding.EncodeToString(sum[:])[:26]
}

func (k kind) Fill(_ context.Context, d *layerdir.Driver, s *layerdir.Stage, l, parent *driver.Layer) error {
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{"diff", 0o755}, {"work", 0o700}, {"merged", 0o711}} {
		if err := os.Mkdir(s.Path("layer", dir.name), dir.mode); err != nil {
			return err
		}
	}
	if err := d.Mkroot(s.Path("layer", "diff"), parent); err != nil {
		return err
	}
	if err := os.WriteFile(s.Path("layer", "link"), []byte(shortName(l.ID)), 0o644); err != nil {
		return err
	}
	if len(l.Parents) > 0 {
		lower := make([]string, len(l.Parents))
		for i, p := range l.Parents {
			lower[i] = "l/" + shortName(p)
			if d.Elsewhere(p) {
				lower[i] = d.Of(p, "l", shortName(p))
			}
		}
		if err := os.WriteFile(s.Path("layer", "lower"), []byte(strings.Join(lower, ":")), 0o644); err != nil {
			return err
		}
	}
	if err := os.Remove(s.Path("link")); err != nil {
		return err
	}
	return os.Symlink("../"+l.ID+"/diff", s.Path("link"))
}

func (kind) BeginApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	return layerdir.Content{Path: d.Path(l.ID, "diff"), Format: d.OverlayFormat()}, nil
}

func (kind) EndApply(context.Context, *layerdir.Driver, *driver.Layer) error { return nil }

func (kind) Seal(_ context.Context, d *layerdir.Driver, l *driver.Layer) error {
	return os.WriteFile(d.Path(l.ID, "committed"), nil, 0o644)
}

func (kind) Tidy(*layerdir.Driver, *driver.Layer) error { return nil }

// Sweep removes short names that lead nowhere.
func (kind) Sweep(d *layerdir.Driver) (swept []string, err error) {
	entries, err := os.ReadDir(d.Path("l"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := d.Path("l", e.Name())
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return swept, err
		}
		swept = append(swept, "l/"+e.Name())
	}
	return swept, nil
}

func (kind) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{
		Top:   layerdir.Content{Path: d.Of(l.ID, l.ID, "diff"), Format: d.OverlayFormat()},
		Work:  d.Path(l.ID, "work"),
		Place: d.Path(l.ID, "merged"),
	}
	for _, p := range l.Parents {
		s.Lowers = append(s.Lowers, d.Of(p, "l", shortName(p)))
	}
	return s, nil
}

func (kind) NativeLacks(o *mountopt.Options) []string { return o.KernelObstacles() }

func (kind) MountNative(_ *layerdir.Driver, _ *layerdir.Stack, o *mountopt.Options, target string) error {
	return overlayfs.Mount(o, target)
}

func (kind) Status(d *layerdir.Driver) []driver.Field {
	userxattr := d.OverlayFormat() == tree.OverlayUser
	return []driver.Field{
		{Name: "Supports d_type", Value: "true"}, // of the union; what it lies on is asked by stat where it has none
		{Name: "Using metacopy", Value: strconv.FormatBool(strings.Contains(strings.Join(d.MountOptions, ","), "metacopy=on"))},
		{Name: "Native Overlay Diff", Value: "true"},
		{Name: "userxattr", Value: strconv.FormatBool(userxattr)},
	}
}
