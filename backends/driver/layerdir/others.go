package layerdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/laminafs/lamina/backends/driver"
)

// addOthers takes in further roots. What they hold must mean here what it means
// there: owners that are kept in xattrs need a driver that looks for them, and
// overlay marks one that can read them and looks for no others.
func (d *Driver) addOthers(roots []string) error {
	for _, root := range roots {
		root, err := filepath.Abs(root)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, formatFile))
		if err != nil {
			return fmt.Errorf("additional layers: %w", err)
		}
		f, err := d.parseFormat(root, text)
		switch {
		case err != nil:
		case f.Owners == "xattr" && !d.OwnersInXattrs():
			err = fmt.Errorf("%s keeps owners in xattrs, %s in inodes: using both is %w", root, d.root, driver.ErrUnsupported)
		case d.HoldsMarks && f.Marks != d.format.Marks:
			err = fmt.Errorf("%s keeps overlay marks in %s xattrs, %s in %s ones: using both is %w; make that store again with the option userxattr=%t",
				root, f.Marks, d.root, d.format.Marks, driver.ErrUnsupported, d.format.Marks == "user")
		}
		if err != nil {
			return fmt.Errorf("additional layers: %w", err)
		}
		d.others = append(d.others, root)
	}
	return nil
}

// rootOf returns the root that has a layer, this one if none has.
func (d *Driver) rootOf(id string) string {
	for _, root := range d.others {
		if d.recorded(d.root, id) {
			break
		}
		if d.recorded(root, id) {
			return root
		}
	}
	return d.root
}

func (d *Driver) recorded(root, id string) bool {
	_, err := os.Lstat(filepath.Join(root, d.kind.Record(id)))
	return err == nil
}

// Of returns a path below the root that has a layer.
func (d *Driver) Of(id string, elem ...string) string {
	return filepath.Join(append([]string{d.rootOf(id)}, elem...)...)
}

// Elsewhere reports whether another root has a layer.
func (d *Driver) Elsewhere(id string) bool { return d.rootOf(id) != d.root }

// own returns [driver.ErrElsewhere] for a layer that is only read.
func (d *Driver) own(id string) error {
	if root := d.rootOf(id); root != d.root {
		return fmt.Errorf("%w: %s", driver.ErrElsewhere, root)
	}
	return nil
}

// readRecord returns the text of a record. Of other roots only what never changes
// counts.
func (d *Driver) readRecord(id string) (text []byte, path string, err error) {
	path = d.Of(id, d.kind.Record(id))
	text, err = os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		err = driver.ErrNotFound
	}
	return text, path, err
}
