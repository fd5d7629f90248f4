package inspect

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect/safename"
	"github.com/laminafs/lamina/fs/layer"
)

// TypeName returns the S_IFMT bits of a mode as a word.
func TypeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR:
		return "char-device"
	case unix.S_IFBLK:
		return "block-device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "unknown"
}

// ModeText returns a mode as ls shows it.
func ModeText(mode uint32) string {
	b := []byte("?rwxrwxrwx")
	for typ, c := range map[uint32]byte{unix.S_IFREG: '-', unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c',
		unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's'} {
		if mode&unix.S_IFMT == typ {
			b[0] = c
		}
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[i+1] = '-'
		}
	}
	for _, s := range []struct {
		bit uint32
		at  int
		c   byte
	}{{unix.S_ISUID, 3, 's'}, {unix.S_ISGID, 6, 's'}, {unix.S_ISVTX, 9, 't'}} {
		if mode&s.bit != 0 {
			if b[s.at] == '-' {
				s.c -= 'a' - 'A'
			}
			b[s.at] = s.c
		}
	}
	return string(b)
}

// TimeOf returns a time of a layer.
func TimeOf(t layer.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// LayerJSON is a layer for programs. Layers are counted from the bottom, from 1.
type LayerJSON struct {
	Number   int             `json:"number"`
	Name     safename.JSON   `json:"name"`
	Note     safename.JSON   `json:"note,omitempty"`
	Upper    bool            `json:"upper,omitempty"`
	Packed   int64           `json:"packed_bytes,omitempty"`
	Problems []safename.JSON `json:"problems,omitempty"`
}

// Describe returns layer i of Layers for programs.
func (s *Stack) Describe(i int) LayerJSON {
	l := s.layer(i)
	out := LayerJSON{Number: s.Number(i), Name: safename.JSON(l.Name), Note: safename.JSON(l.Note), Upper: l.Upper, Packed: l.Packed}
	for _, p := range l.Problems {
		out.Problems = append(out.Problems, safename.JSON(p))
	}
	return out
}

// ObjectJSON is an object of a layer for programs.
type ObjectJSON struct {
	Type   string        `json:"type"`
	Mode   string        `json:"mode"` // octal
	UID    uint32        `json:"uid"`
	GID    uint32        `json:"gid"`
	Size   int64         `json:"size"`
	Nlink  uint32        `json:"nlink,omitempty"`
	Mtime  time.Time     `json:"mtime"`
	Rdev   string        `json:"rdev,omitempty"`
	Target safename.JSON `json:"target,omitempty"`
}

// Object describes what the layer has; nil for a whiteout.
func (s *Sighting) Object() *ObjectJSON {
	if s.Whiteout != NoWhiteout {
		return nil
	}
	o := &ObjectJSON{
		Type: TypeName(s.Stat.Mode), Mode: fmt.Sprintf("%04o", s.Stat.Mode&0o7777), UID: s.Stat.UID, GID: s.Stat.GID,
		Size: s.Stat.Size, Nlink: s.Stat.Nlink, Mtime: TimeOf(s.Stat.Mtime).UTC(),
	}
	switch s.Stat.Type() {
	case unix.S_IFLNK:
		// One that cannot be read is shown without.
		target, _ := s.Readlink()
		o.Target = safename.JSON(target)
	case unix.S_IFCHR, unix.S_IFBLK:
		o.Rdev = fmt.Sprintf("%d:%d", unix.Major(s.Stat.Rdev), unix.Minor(s.Stat.Rdev))
	}
	return o
}

// SightingJSON is a sighting for programs.
type SightingJSON struct {
	Layer    int           `json:"layer"`
	Name     safename.JSON `json:"layer_name"`
	Path     safename.JSON `json:"path"` // in the layer
	State    string        `json:"state"`
	HiddenBy int           `json:"hidden_by,omitempty"`
	Why      string        `json:"why,omitempty"`
	At       safename.JSON `json:"at,omitempty"`
	Whiteout string        `json:"whiteout,omitempty"`
	Object   *ObjectJSON   `json:"object,omitempty"`
	Opaque   bool          `json:"opaque,omitempty"`
	Metacopy bool          `json:"metacopy,omitempty"`
	Redirect safename.JSON `json:"redirect,omitempty"`
	Error    safename.JSON `json:"error,omitempty"`
}

// EntryJSON is an entry for programs.
type EntryJSON struct {
	Path      safename.JSON  `json:"path"`
	Exists    bool           `json:"exists"`
	Layer     int            `json:"layer,omitempty"` // that provides it
	Error     safename.JSON  `json:"error,omitempty"`
	Sightings []SightingJSON `json:"sightings"`
}

// JSON returns the entry for programs.
func (s *Stack) JSON(e *Entry) EntryJSON {
	out := EntryJSON{Path: safename.JSON("/" + e.Path), Sightings: []SightingJSON{}}
	if top := e.Top(); top != nil {
		out.Exists, out.Layer = true, s.Number(top.Layer)
	}
	if e.Err != nil {
		out.Error = safename.JSON(e.Err.Error())
	}
	for i := range e.Sightings {
		g := &e.Sightings[i]
		j := SightingJSON{
			Layer: s.Number(g.Layer), Name: safename.JSON(s.layer(g.Layer).Name), Path: safename.JSON("/" + g.Path()),
			State: g.State.String(), Object: g.Object(), Opaque: g.Marks.Opaque, Metacopy: g.Marks.Metacopy,
		}
		if g.By >= 0 && g.State == Hidden {
			j.HiddenBy, j.Why, j.At = s.Number(g.By), g.Why.String(), safename.JSON("/"+g.At)
		}
		if g.Whiteout != NoWhiteout {
			j.Whiteout = g.Whiteout.String()
		}
		if g.Marks.Redirect != nil {
			j.Redirect = safename.JSON(g.Marks.Redirect.String())
		}
		if g.Err != nil {
			j.Error = safename.JSON(g.Err.Error())
		}
		out.Sightings = append(out.Sightings, j)
	}
	return out
}
