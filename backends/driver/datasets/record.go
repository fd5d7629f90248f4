package datasets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
)

// Properties of a layer's dataset.
const (
	propertyParent  = "lamina:parent"  // id
	propertyCreated = "lamina:created" // RFC 3339
	propertyFilled  = "lamina:filled"  // on
	propertySize    = "lamina:size"    // limits as they were asked for
	propertyInodes  = "lamina:inodes"
)

var properties = []string{propertyParent, propertyCreated, propertyFilled, propertySize, propertyInodes}

// committed is the snapshot that a committed layer has.
const committed = "committed"

// reserved are the names in a root that no layer can have, with this package or
// another.
var reserved = []string{"lamina.json", "lock", "tmp", "mounts", "mnt", "pool", "l"}

func checkID(id string) error {
	if err := driver.CheckID(id); err != nil {
		return err
	}
	if slices.Contains(reserved, id) {
		return fmt.Errorf("%w: %q is a name of the driver's own", driver.ErrBadID, id)
	}
	return nil
}

// record returns what is known of a layer, of its parents only the nearest.
func (d *Driver) record(ctx context.Context, id string) (*driver.Layer, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	list, err := query(ctx, d, poolserver.DatasetGet, poolserver.GetDatasets{Names: []string{d.dataset(id)}, Depth: 1, Properties: properties})
	if errors.Is(err, unix.ENOENT) {
		return nil, driver.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	layers, err := d.layersOf(list)
	if err != nil {
		return nil, err
	}
	if l := layers[id]; l != nil {
		return l, nil
	}
	return nil, driver.ErrNotFound
}

// records returns all layers, with all their parents.
func (d *Driver) records(ctx context.Context) (map[string]*driver.Layer, error) {
	list, err := query(ctx, d, poolserver.DatasetGet, poolserver.GetDatasets{Names: []string{d.kind.Below}, Depth: 2, Properties: properties})
	if err != nil {
		return nil, err
	}
	layers, err := d.layersOf(list)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		for at := l; len(at.Parents) > 0; {
			parent := at.Parents[0]
			if at != l {
				l.Parents = append(l.Parents, parent)
			}
			if at = layers[parent]; at == nil || len(l.Parents) > len(layers) {
				return nil, fmt.Errorf("layer %s: its parent %s is missing: %w", l.ID, parent, driver.ErrDamaged)
			}
		}
	}
	return layers, nil
}

// layersOf makes records of datasets. Parents are the nearest ones.
func (d *Driver) layersOf(list []poolserver.Dataset) (map[string]*driver.Layer, error) {
	layers := map[string]*driver.Layer{}
	var sealed []string
	for _, s := range list {
		name, below := strings.CutPrefix(s.Name, d.dataset(""))
		id, snapshot, _ := strings.Cut(name, "@")
		switch {
		case !below || checkID(id) != nil: // the one above, or what somebody else has made
		case snapshot == committed:
			sealed = append(sealed, id)
		case snapshot == "":
			l, err := layerOf(id, s)
			if err != nil {
				return nil, err
			}
			if l != nil {
				layers[id] = l
			}
		}
	}
	for _, id := range sealed {
		if l := layers[id]; l != nil {
			l.Committed = true
		}
	}
	return layers, nil
}

// layerOf reads the properties of a dataset, nil when it is no layer's.
func layerOf(id string, s poolserver.Dataset) (*driver.Layer, error) {
	l := &driver.Layer{ID: id}
	for _, p := range s.Properties {
		if p.Source != "local" {
			continue
		}
		var err error
		switch p.Name {
		case propertyParent:
			l.Parents = []string{p.Value}
		case propertyCreated:
			l.Created, err = time.Parse(time.RFC3339Nano, p.Value)
		case propertyFilled:
			l.Filled = p.Value == "on"
		case propertySize:
			l.Size, err = strconv.ParseInt(p.Value, 10, 64)
		case propertyInodes:
			l.Inodes, err = strconv.ParseInt(p.Value, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: property %s is %w (%v)", id, p.Name, driver.ErrDamaged, err)
		}
	}
	if l.Created.IsZero() {
		return nil, nil
	}
	return l, nil
}

// Layer returns what is known of a layer.
func (d *Driver) Layer(id string) (driver.Layer, error) {
	if err := checkID(id); err != nil {
		return driver.Layer{}, d.fail("look up", id, err, "")
	}
	layers, err := d.records(context.Background())
	if err == nil && layers[id] == nil {
		err = driver.ErrNotFound
	}
	if err != nil {
		return driver.Layer{}, d.fail("look up", id, err, "")
	}
	return *layers[id], nil
}

// Layers lists the layers by id.
func (d *Driver) Layers() ([]string, error) {
	layers, err := d.records(context.Background())
	if err != nil {
		return nil, d.fail("list layers", "", err, "")
	}
	ids := make([]string, 0, len(layers))
	for id := range layers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
