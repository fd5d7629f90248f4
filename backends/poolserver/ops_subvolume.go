package poolserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve/datasets"
	"github.com/laminafs/lamina/blockpool"
)

// A subvolume, in the words of btrfs, is a dataset that has a name in a directory of
// another one. In the pool it is called below that one, after its own name as far as
// that goes: names of files are freer than those of datasets.

// propertyPath is where a subvolume got its name, from the root of the mount. mv(1) may
// have given it another one since.
const propertyPath = "lamina:path"

// A Spot is a name in a mounted dataset.
type Spot struct {
	Target string `json:"target"` // where the dataset is mounted
	Dir    []byte `json:"dir"`    // of the name, from there; paths need not be text
	DirIno uint64 `json:"dir_ino"`
	Name   []byte `json:"name"`
}

// A Subvolume is a dataset as part of a mount.
type Subvolume struct {
	Dataset string `json:"dataset"` // the name in the pool, without the pool's
	ID      uint64 `json:"id"`
	Path    string `json:"path,omitempty"` // where it was made, from the root of the mount

	ReadOnly bool `json:"read_only"`
}

// mounted returns the mount on a directory.
func (s *Server) mounted(target string) (*datasets.Mount, error) {
	if e := s.exports.get(target); e != nil && e.mount != nil {
		return e.mount, nil
	}
	return nil, fmt.Errorf("%s: no dataset of pool %s is mounted there: %w", target, s.cfg.Place.Name(), unix.EINVAL)
}

// treeBits is how many bits of an inode number are the object's, see package dataset.
const treeBits = 31

// datasetOf returns the dataset that a file of a mount belongs to, by its number.
func (c *call) datasetOf(m *datasets.Mount, ino uint64) (blockpool.VolumeInfo, error) {
	id := ino >> treeBits
	for _, v := range c.pool.Volumes() {
		if id == 0 && v.Name == m.Dataset() || id != 0 && v.ID == id {
			return v, nil
		}
	}
	return blockpool.VolumeInfo{}, fmt.Errorf("tree %d: %w", id, blockpool.ErrNotFound)
}

// subvolume returns the dataset whose root an inode of a mount is.
func (c *call) subvolume(m *datasets.Mount, ino uint64) (blockpool.VolumeInfo, error) {
	if ino&(1<<treeBits-1) != 1 {
		return blockpool.VolumeInfo{}, fmt.Errorf("it is no subvolume, nor where one is mounted: %w", unix.EINVAL)
	}
	return c.datasetOf(m, ino)
}

// nameFor returns a free name for a dataset below another one, like that of a file.
func (c *call) nameFor(parent, file string) (string, error) {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.:", r) {
			return r
		}
		return '_'
	}, file)
	base = strings.TrimLeft(base, "_-.:")
	base = cmp.Or(base[:min(len(base), 60)], "subvolume")
	for n := 1; n < 10000; n++ {
		name := parent + "/" + base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		if err := blockpool.CheckName(name); err != nil {
			return "", err
		}
		if !c.exists(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s below %s: %w", base, parent, blockpool.ErrExists)
}

// SubvolumeCreate makes an empty subvolume.
var SubvolumeCreate = Op[Spot, Subvolume]{name: "subvolume.create", run: func(c *call, a Spot) (Subvolume, error) {
	return c.addSubvolume(a, false, func(name string, p map[string]string) error {
		return c.createDataset(name, p, false)
	})
}}

// addSubvolume makes a dataset and gives it a name in a mount.
//
// Crash between the two: a dataset that no directory has; lamina dataset list shows it.
func (c *call) addSubvolume(a Spot, readOnly bool, create func(name string, properties map[string]string) error) (Subvolume, error) {
	m, err := c.server.mounted(a.Target)
	if err != nil {
		return Subvolume{}, err
	}
	parent, err := c.datasetOf(m, a.DirIno)
	if err != nil {
		return Subvolume{}, err
	}
	name, err := c.nameFor(parent.Name, string(a.Name))
	if err != nil {
		return Subvolume{}, err
	}
	at := path.Join(string(a.Dir), string(a.Name))
	properties := map[string]string{"canmount": "noauto"}
	if utf8.ValidString(at) && !strings.ContainsFunc(at, unicode.IsControl) { // as properties must be
		properties[propertyPath] = at
	}
	if readOnly {
		properties["readonly"] = "on"
	}
	if err := create(name, properties); err != nil {
		return Subvolume{}, err
	}
	if err := m.AddSubvolume(string(a.Dir), string(a.Name), name); err != nil {
		_, undo := c.pool.DestroyAll(context.WithoutCancel(c.ctx), []string{name}, false)
		return Subvolume{}, errors.Join(err, undo)
	}
	v, err := c.pool.Volume(name)
	return Subvolume{Dataset: name, ID: v.ID, Path: at, ReadOnly: readOnly}, err
}

// SnapshotSubvolume are the arguments of [SubvolumeSnapshot].
type SnapshotSubvolume struct {
	To        Spot   `json:"to"`
	SourceIno uint64 `json:"source_ino"` // of the root of the subvolume
	ReadOnly  bool   `json:"read_only,omitempty"`
}

// SubvolumeSnapshot makes a subvolume with what another one has now.
var SubvolumeSnapshot = Op[SnapshotSubvolume, Subvolume]{name: "subvolume.snapshot", run: func(c *call, a SnapshotSubvolume) (Subvolume, error) {
	m, err := c.server.mounted(a.To.Target)
	if err != nil {
		return Subvolume{}, err
	}
	source, err := c.subvolume(m, a.SourceIno)
	if err != nil {
		return Subvolume{}, err
	}
	return c.addSubvolume(a.To, a.ReadOnly, func(name string, p map[string]string) error {
		return c.pool.CloneFilesystem(c.ctx, source.Name, name, blockpool.FilesystemOptions{Properties: p})
	})
}}

// DeleteSubvolume are the arguments of [SubvolumeDelete].
type DeleteSubvolume struct {
	Spot
	Ino uint64 `json:"ino"` // of the root of the subvolume
}

// SubvolumeDelete takes a subvolume's name away and destroys its dataset.
//
// Crash between the two: a dataset that no directory has; lamina dataset list shows it.
var SubvolumeDelete = Op[DeleteSubvolume, None]{name: "subvolume.delete", run: func(c *call, a DeleteSubvolume) (None, error) {
	m, err := c.server.mounted(a.Target)
	if err != nil {
		return None{}, err
	}
	v, err := c.subvolume(m, a.Ino)
	if err == nil && v.Name == m.Dataset() {
		err = fmt.Errorf("it is what is mounted: %w; see: lamina dataset destroy", unix.EBUSY)
	}
	if err == nil {
		if _, err = c.pool.Dependents(v.Name, false); err != nil {
			err = fmt.Errorf("%w; destroy them first, see: lamina dataset destroy -r", err)
		}
	}
	if err != nil {
		return None{}, err
	}
	if _, err := m.RemoveSubvolume(string(a.Dir), string(a.Name)); err != nil {
		return None{}, err
	}
	_, err = c.pool.DestroyAll(context.WithoutCancel(c.ctx), []string{v.Name}, false)
	return None{}, err
}}

// ListSubvolumes are the arguments of [SubvolumeList].
type ListSubvolumes struct {
	Target string `json:"target"`
	// Ino is that of a root whose subvolume alone is to be told of; 0: all.
	Ino uint64 `json:"ino,omitempty"`
}

// SubvolumeList returns the dataset that is mounted and those below it, which may be
// subvolumes.
var SubvolumeList = Op[ListSubvolumes, []Subvolume]{name: "subvolume.list", run: func(c *call, a ListSubvolumes) ([]Subvolume, error) {
	m, err := c.server.mounted(a.Target)
	if err != nil {
		return nil, err
	}
	var names []string
	if a.Ino != 0 {
		v, err := c.subvolume(m, a.Ino)
		if err != nil {
			return nil, err
		}
		names = []string{v.Name}
	} else {
		if names, err = c.pool.Children(m.Dataset(), -1); err != nil {
			return nil, err
		}
		names = append([]string{m.Dataset()}, slices.DeleteFunc(names, func(n string) bool { return !isFilesystem(c.pool, n) })...)
	}
	list := []Subvolume{}
	for _, name := range names {
		v, err := c.pool.Volume(name)
		if err != nil {
			continue // destroyed meanwhile
		}
		p, err := c.pool.Properties(c.ctx, name, "readonly", propertyPath)
		if err != nil {
			continue
		}
		s := Subvolume{Dataset: name, ID: v.ID, ReadOnly: p[0].Value == "on"}
		if p[1].Source == blockpool.SourceLocal {
			s.Path = p[1].Value
		}
		list = append(list, s)
	}
	return list, nil
}}
