package layerdir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/backends/driver/views"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/override"
	"github.com/laminafs/lamina/fs/mountopt"
)

// A Driver is an open directory of layers.
type Driver struct {
	kind    Kind
	root    string
	choice  driver.Choice
	servers driver.Servers
	steps   func(string)
	format  format
	noSync  bool
	want    driver.Engine
	others  []string // further roots, which are only read

	// What kinds set while they prepare.
	MountOptions []string // of every view
	Size, Inodes int64    // limits of layers that have none of their own
	HoldsMarks   bool     // committed layers hold overlay marks
}

var (
	_ driver.Driver  = (*Driver)(nil)
	_ driver.Writer  = (*Driver)(nil)
	_ driver.Stacker = (*Driver)(nil)
)

// format is the file lamina.json. What is decided when the directory is made
// holds for all of its layers.
type format struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	// Owners is "inode", or "xattr" when the user who made the directory could
	// not give files away.
	Owners string `json:"owners"`
	// Marks is "trusted" or "user": where overlay marks are kept.
	Marks string `json:"marks"`
}

const (
	formatFile = "lamina.json"
	emptyDir   = ".empty" // no layer is called so, see [driver.CheckID]
	version    = 1
)

// Open opens the directory of a driver and sweeps what crashes have left. It is
// made if its parent exists.
func Open(kind Kind, cfg driver.Config) (*Driver, error) {
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	d := &Driver{kind: kind, root: root, servers: cfg.Servers, steps: cfg.Step, noSync: cfg.Volatile, want: cfg.Engine}
	if d.servers == nil {
		d.servers = views.Background(nil)
	}
	if d.steps == nil {
		d.steps = func(string) {}
	}
	options, err := driver.ParseOptions(kind.Name(), kind.Options(), cfg.Options)
	if err != nil {
		return nil, err
	}
	if err := d.makeRoot(options["userxattr"]); err != nil {
		return nil, d.fail("open", "", err, "")
	}
	obstacles, err := kind.Prepare(d, options)
	if err != nil {
		return nil, d.fail("open", "", err, "")
	}
	if d.format.Owners == "xattr" {
		obstacles = append([]string{"this user cannot give files away: owners are kept in xattrs, which only the userspace engine shows"}, obstacles...)
	}
	if d.choice, err = driver.Choose(cfg.Engine, obstacles...); err != nil {
		return nil, d.fail("open", "", err, "")
	}
	if err := d.addOthers(cfg.Additional); err != nil {
		return nil, d.fail("open", "", err, "")
	}
	_, err = d.Cleanup(context.Background())
	return d, err
}

// makeRoot makes the directory, or checks that it is one of this driver.
func (d *Driver) makeRoot(userxattr string) error {
	marks := map[string]string{"true": "user", "false": "trusted"}[userxattr]
	if userxattr != "" && marks == "" {
		return fmt.Errorf("option userxattr=%s is %w; accepted: true, false", userxattr, driver.ErrUnsupported)
	}
	for _, dir := range []string{"", "tmp", "mounts", emptyDir} {
		if err := os.Mkdir(filepath.Join(d.root, dir), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return d.locked(func() error {
		text, err := os.ReadFile(d.path(formatFile))
		if errors.Is(err, os.ErrNotExist) {
			d.format = format{version, d.kind.Name(), owners(d.root), marksOf(d.root)}
			if marks == "trusted" && d.format.Marks != marks {
				return fmt.Errorf("option userxattr=false is %w: this user cannot set trusted xattrs in %s", driver.ErrUnsupported, d.root)
			}
			if marks != "" {
				d.format.Marks = marks
			}
			return rootdir.ReplaceJSON(d.path(formatFile), d.format)
		}
		if err != nil {
			return err
		}
		if d.format, err = d.parseFormat(d.root, text); err != nil {
			return err
		}
		if marks != "" && d.format.Marks != marks {
			return fmt.Errorf("option userxattr=%s is %w: %s was made with %s xattrs", userxattr, driver.ErrUnsupported, d.root, d.format.Marks)
		}
		return nil
	})
}

// parseFormat reads the lamina.json of a root.
func (d *Driver) parseFormat(root string, text []byte) (f format, err error) {
	path := filepath.Join(root, formatFile)
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("%s: %w: %w", path, driver.ErrDamaged, err)
	}
	switch {
	case f.Version != version:
		err = fmt.Errorf("%s: version %d, this program knows %d", path, f.Version, version)
	case f.Driver != d.kind.Name():
		err = fmt.Errorf("%s holds the layers of driver %s", root, f.Driver)
	}
	return f, err
}

// owners finds out by trying whether files can be given to others, as images
// need it.
func owners(root string) string {
	f, err := os.CreateTemp(root, ".owner")
	if err != nil {
		return "xattr"
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if unix.Geteuid() != 0 || f.Chown(1, 1) != nil {
		return "xattr"
	}
	return "inode"
}

func marksOf(root string) string {
	f, err := os.CreateTemp(root, ".marks")
	if err != nil {
		return "user"
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if unix.Fsetxattr(int(f.Fd()), "trusted.overlay.opaque", []byte("y"), 0) != nil {
		return "user"
	}
	return "trusted"
}

// Name returns the driver's.
func (d *Driver) Name() string { return d.kind.Name() }

// Engine says what shows the layers, and why.
func (d *Driver) Engine() driver.Choice { return d.choice }

// Chosen has the driver tell another reason for its engine: of a kind that has chosen
// before it opened the directory.
func (d *Driver) Chosen(why string) { d.choice.Why = why }

// Capabilities says what can be done here.
func (d *Driver) Capabilities() driver.Capabilities {
	c := d.kind.Capabilities(d)
	c.KeepsOwners = d.format.Owners == "inode"
	return c
}

// Close lets go of nothing: all is on disk.
func (d *Driver) Close() error { return nil }

// Path returns a path below the root.
func (d *Driver) Path(elem ...string) string { return d.path(elem...) }

func (d *Driver) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// Step tells that a step is about to be done.
func (d *Driver) Step(name string) { d.steps(name) }

// OverlayFormat is how overlay marks are kept here.
func (d *Driver) OverlayFormat() tree.Format {
	if d.format.Marks == "trusted" {
		return tree.Overlay
	}
	return tree.OverlayUser
}

// OwnersInXattrs tells that this user cannot give files away.
func (d *Driver) OwnersInXattrs() bool { return d.format.Owners == "xattr" }

// OpenDir opens a directory of a layer for reading and changing it.
func (d *Driver) OpenDir(path string) (layer.Dir, error) {
	dir, err := layer.OpenHostShared(path)
	if err != nil {
		return nil, err
	}
	if d.OwnersInXattrs() {
		return override.Wrap(dir, d.owners(path)), nil
	}
	return dir, nil
}

// owners says how the owners of a directory of layers are kept in xattrs. All in this
// root is the user's, so his symbolic links are root's, as his other files are.
func (d *Driver) owners(path string) override.Attr {
	if strings.HasPrefix(path, d.root+"/") {
		return override.Containers.RootLinks()
	}
	return override.Containers
}

// fail makes an error of this driver out of a cause.
func (d *Driver) fail(op, id string, err error, next string) error {
	if err == nil {
		return nil
	}
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	return &driver.Error{Driver: d.kind.Name(), Op: op, Layer: id, Cause: err, Next: next}
}

// Status returns the kind's lines behind those that all have.
func (d *Driver) Status(context.Context) ([]driver.Field, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.root, &st); err != nil {
		return nil, d.fail("status", "", fmt.Errorf("statfs %s: %w", d.root, err), "")
	}
	fields := []driver.Field{
		{Name: "Root Dir", Value: d.root},
		{Name: "Backing Filesystem", Value: filesystemName(st.Type)},
		{Name: "Engine", Value: string(d.choice.Engine) + " (" + d.choice.Why + ")"},
	}
	return append(fields, d.kind.Status(d)...), nil
}

// filesystemName is what docker info prints for a magic number (linux/magic.h).
func filesystemName(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs",
		unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs", unix.FUSE_SUPER_MAGIC: "fuse",
	}
	if name := names[magic]; name != "" {
		return name
	}
	return fmt.Sprintf("0x%x", magic)
}

// unionOptions are the options of a view of a stack.
func (d *Driver) unionOptions(l *driver.Layer, s *Stack, readOnly bool, further []string) (mountopt.Options, error) {
	o, err := mountopt.Parse(append(append([]string{}, d.MountOptions...), further...)...)
	if err != nil {
		return o, err
	}
	if len(o.Unknown) > 0 {
		return o, fmt.Errorf("mount option %s is %w", o.Unknown[0], driver.ErrUnsupported)
	}
	o.Lower = s.Lowers
	if readOnly {
		o.Lower = append([]string{s.Top.Path}, s.Lowers...)
		o.ReadOnly = true
	} else {
		o.Upper, o.Work = s.Top.Path, s.Work
		o.Size, o.Inodes = uint64(l.Size), uint64(l.Inodes)
	}
	// The kernel wants two lowers where there is no upper, and one where there is.
	if len(o.Lower) == 0 || readOnly && len(o.Lower) == 1 {
		o.Lower = append(o.Lower, d.path(emptyDir))
	}
	if o.Index == mountopt.Unset {
		// What an index ties together falls apart when the upper becomes a lower.
		o.Index = mountopt.Off
	}
	if o.Metacopy == mountopt.Unset {
		o.Metacopy = mountopt.Off
	}
	switch {
	case s.Top.Format == tree.Aufs:
		o.Format = mountopt.FormatAufs
	case s.Top.Format == tree.OverlayUser:
		o.UserXattr = true
	}
	if d.OwnersInXattrs() {
		o.XattrPermissions = 2
		if uid, gid := uint32(unix.Geteuid()), uint32(unix.Getegid()); uid != 0 && o.SquashUID == nil && !o.SquashToRoot {
			// Outside of a user namespace this user could not touch what root owns.
			// So all is shown as the user's, and what the user makes is root's.
			o.SquashUID, o.SquashGID = &uid, &gid
			o.UIDMap = []mountopt.IDMap{{Stored: 0, Shown: uid, Length: 1}}
			o.GIDMap = []mountopt.IDMap{{Stored: 0, Shown: gid, Length: 1}}
		}
	}
	return o, nil
}
