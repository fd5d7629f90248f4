package layerdir

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/laminafs/lamina/backends/driver"
)

// reserved are the names in a root that no layer can have.
var reserved = []string{"lamina.json", "lock", "tmp", "mounts", "views", "l"}

func checkID(id string) error {
	if err := driver.CheckID(id); err != nil {
		return err
	}
	if slices.Contains(reserved, id) {
		return fmt.Errorf("%w: %q is a name of the driver's own", driver.ErrBadID, id)
	}
	return nil
}

// Layer reads the record of a layer.
func (d *Driver) Layer(id string) (driver.Layer, error) {
	l, err := d.record(id)
	if err != nil {
		return driver.Layer{}, d.fail("look up", id, err, "")
	}
	return *l, nil
}

func (d *Driver) record(id string) (*driver.Layer, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	text, path, err := d.readRecord(id)
	if err != nil {
		return nil, err
	}
	l := &driver.Layer{}
	if err := json.Unmarshal(text, l); err != nil || l.ID != id {
		return nil, fmt.Errorf("its record %s is %w (%v)", path, driver.ErrDamaged, err)
	}
	if !l.Committed && d.Elsewhere(id) {
		return nil, driver.ErrNotFound
	}
	return l, nil
}

// Layers lists the layers by id.
func (d *Driver) Layers() ([]string, error) {
	pattern := d.path(d.kind.Record("*"))
	before, after, _ := strings.Cut(pattern, "*")
	found, err := filepath.Glob(escapeGlob(before) + "*" + after)
	if err != nil {
		return nil, d.fail("list layers", "", err, "")
	}
	ids := make([]string, 0, len(found))
	for _, p := range found {
		id := strings.TrimSuffix(strings.TrimPrefix(p, before), after)
		if checkID(id) == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func escapeGlob(path string) string { return globEscaper.Replace(path) }

// records reads all that can be read; damaged ones are for check to tell.
func (d *Driver) records() ([]*driver.Layer, error) {
	ids, err := d.Layers()
	if err != nil {
		return nil, err
	}
	var all []*driver.Layer
	for _, id := range ids {
		if l, err := d.record(id); err == nil {
			all = append(all, l)
		}
	}
	return all, nil
}

// child returns a layer that is built on id, "" for none.
func (d *Driver) child(id string) (string, error) {
	all, err := d.records()
	if err != nil {
		return "", err
	}
	for _, l := range all {
		if l.Parent() == id {
			return l.ID, nil
		}
	}
	return "", nil
}
