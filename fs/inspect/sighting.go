package inspect

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// A State tells what comes of a sighting.
type State int

const (
	// Provides is the object that users see; of a directory its topmost part.
	Provides State = iota
	// Merges is a further part of a directory that users see.
	Merges
	// HoldsData is the file whose data a metacopy file further up shows.
	HoldsData
	// Deletes is a whiteout that is not itself hidden. It need not hide
	// anything.
	Deletes
	// Hidden is what users do not see.
	Hidden
)

func (s State) String() string {
	return [...]string{"provides", "merges", "holds-data", "deletes", "hidden"}[s]
}

// A Reason tells why something is hidden.
type Reason int

const (
	NoReason Reason = iota
	// ByWhiteout: a layer above has deleted the name.
	ByWhiteout
	// ByOpaque: a directory above is opaque.
	ByOpaque
	// ByObject: a layer above has an object of the same name, and the two do
	// not merge.
	ByObject
	// ByRedirect: the directory above, or the metacopy file, continues
	// elsewhere in the layers below.
	ByRedirect
)

func (r Reason) String() string {
	return [...]string{"", "whiteout", "opaque", "replaced", "redirect"}[r]
}

// A Sighting is what one layer has at a place where the stack looks for a name.
type Sighting struct {
	Layer int // index in Stack.Layers
	State State
	// By is the layer that hides it, and Why how; -1 where State is not Hidden.
	By  int
	Why Reason
	// At is the path of the entry at which that happens: its own, or that of a
	// directory further up.
	At string
	// Whiteout is how the name is deleted, if that is what the layer says.
	Whiteout WhiteoutForm
	Stat     layer.Stat
	Marks    Marks
	// Err tells that it is there and could not be looked at completely.
	Err error

	in    *part
	name  string
	sub   layer.Dir
	again bool // sub was closed, and is to be opened again
}

// Path returns where it lies in its layer, without a leading slash. It is not
// the path of the entry where a redirect led there.
func (s *Sighting) Path() string { return join(s.in.path, s.name) }

// IsDir reports whether it is a directory.
func (s *Sighting) IsDir() bool { return s.Whiteout == NoWhiteout && s.Stat.IsDir() }

// IsFile reports whether it is a regular file.
func (s *Sighting) IsFile() bool { return s.Whiteout == NoWhiteout && s.Stat.IsRegular() }

// Size returns the bytes of data that the layer itself has of a regular file.
func (s *Sighting) Size() int64 {
	if !s.IsFile() || s.Marks.Metacopy {
		return 0
	}
	return s.Stat.Size
}

// Readlink returns the target of a symbolic link.
func (s *Sighting) Readlink() (string, error) { return s.in.dir.ReadlinkAt(s.name) }

// OpenFile opens the data that the layer has of a regular file.
func (s *Sighting) OpenFile() (layer.File, error) { return s.in.dir.OpenFile(s.name, unix.O_RDONLY, 0) }

// Xattrs returns all attributes, marks included.
func (s *Sighting) Xattrs() (map[string][]byte, error) {
	if s.name == "" {
		return allXattrs(objectXattrs{s.in.dir})
	}
	return allXattrs(childXattrs{s.in.dir, s.name})
}

// An Entry is a name of a stack, and what all layers have there. It is valid
// until its directory is closed or reads the next one.
type Entry struct {
	Path string // without a leading slash, "" for the root
	Name string
	// Sightings are what the layers have, the top first. Of one layer there may
	// be two: where a redirect leads, and what it leads away from.
	Sightings []Sighting
	// Err tells why what users see cannot be told; they get the same error.
	Err error
}

// Top returns what provides the entry, nil if users do not see it.
func (e *Entry) Top() *Sighting {
	for i := range e.Sightings {
		if e.Sightings[i].State == Provides {
			return &e.Sightings[i]
		}
	}
	return nil
}

// Data returns what has the data of the regular file that users see, nil if
// there is none.
func (e *Entry) Data() *Sighting {
	top := e.Top()
	if top == nil || !top.IsFile() {
		return nil
	}
	if !top.Marks.Metacopy {
		return top
	}
	for i := range e.Sightings {
		if e.Sightings[i].State == HoldsData {
			return &e.Sightings[i]
		}
	}
	return nil
}

// HasDir reports whether any layer has a directory there, hidden or not.
func (e *Entry) HasDir() bool {
	for i := range e.Sightings {
		if e.Sightings[i].IsDir() {
			return true
		}
	}
	return false
}

func (e *Entry) release() {
	for i := range e.Sightings {
		if s := &e.Sightings[i]; s.sub != nil {
			s.sub.Close()
			s.sub = nil
		}
	}
}

func join(dir, name string) string {
	switch {
	case dir == "":
		return name
	case name == "":
		return dir
	}
	return dir + "/" + name
}
