package poolserver

import (
	"fmt"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// DiffDatasets are the arguments of [DatasetDiff].
type DiffDatasets struct {
	From string `json:"from"` // snapshot or dataset
	To   string `json:"to"`   // snapshot or dataset, as it is now
}

// A FileDifference is what has become of one name in a dataset.
type FileDifference struct {
	Kind    string `json:"kind"`               // added, removed, changed or renamed
	Path    string `json:"path"`               // from the root of the dataset, beginning with a slash
	OldPath string `json:"old_path,omitempty"` // of what was renamed
	// What is no UTF-8 is here as it is, in base64, and above with U+FFFD in it.
	RawPath    []byte   `json:"raw_path,omitempty"`
	RawOldPath []byte   `json:"raw_old_path,omitempty"`
	Type       string   `json:"type"`           // file, directory, symlink, fifo, socket, block or char
	What       []string `json:"what,omitempty"` // content, mode, owner, times, xattrs, links
}

// DatasetDiff tells in what a dataset differs from another one, by path: each name
// comes as [Progress.Event]. The cost is that of what differs.
var DatasetDiff = Op[DiffDatasets, None]{name: "dataset.diff", run: func(c *call, a DiffDatasets) (None, error) {
	if err := c.pool.Sync(c.ctx); err != nil { // what is compared is what is durable
		return None{}, err
	}
	list, err := diffDatasets(c.pool, a.From, a.To)
	if err != nil {
		return None{}, fmt.Errorf("diff %s %s: %w", a.From, a.To, err)
	}
	for _, d := range list {
		c.tell(Progress{Event: fileDifference(d)})
		if err := c.ctx.Err(); err != nil {
			return None{}, err
		}
	}
	return None{}, nil
}}

func diffDatasets(p *blockpool.Pool, from, to string) ([]dataset.Difference, error) {
	old, err := p.OpenTree(from)
	if err != nil {
		return nil, err
	}
	defer old.Close() // it was only read
	now, err := p.OpenTree(to)
	if err != nil {
		return nil, err
	}
	defer now.Close()
	return dataset.Diff(dataset.PoolTree(old), dataset.PoolTree(now))
}

func fileDifference(d dataset.Difference) FileDifference {
	f := FileDifference{Kind: d.Kind.String(), Path: "/" + d.Path, Type: fileType(d.Type)}
	if d.Kind == dataset.Renamed {
		f.OldPath = "/" + d.OldPath
	}
	if !utf8.ValidString(f.Path) {
		f.RawPath = []byte(f.Path)
	}
	if !utf8.ValidString(f.OldPath) {
		f.RawOldPath = []byte(f.OldPath)
	}
	for _, w := range []struct {
		is   bool
		name string
	}{{d.Content, "content"}, {d.Mode, "mode"}, {d.Owner, "owner"}, {d.Times, "times"}, {d.Xattrs, "xattrs"}, {d.Links, "links"}} {
		if w.is {
			f.What = append(f.What, w.name)
		}
	}
	return f
}

// fileType is the word for the type in a mode.
func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFCHR:
		return "char"
	}
	return "file"
}
