package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// made replies with an object that was just made.
func (r *rawFS) made(out *fuse.EntryOut, n *union.Node, a union.Attr, err error) fuse.Status {
	if err != nil {
		return r.status(err)
	}
	r.entry(out, n.ID(), &a)
	return fuse.OK
}

func (r *rawFS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opMknod)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.union.Mknod(p, name, in.Mode, uint64(in.Rdev), c)
	return r.made(out, n, a, err)
}

func (r *rawFS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opMkdir)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.union.Mkdir(p, name, in.Mode, c)
	return r.made(out, n, a, err)
}

func (r *rawFS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opSymlink)
	p := r.node(h.NodeId)
	if p == nil {
		return stale
	}
	c, err := r.owners.creator(h, 0)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.union.Symlink(p, name, target, c)
	return r.made(out, n, a, err)
}

func (r *rawFS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r.begin(opCreate)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.union.Create(p, name, in.Mode, c)
	return r.madeOpen(out, n, a, err)
}

func (r *rawFS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	r.begin(opTmpfile)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.union.Tmpfile(p, in.Mode, c)
	return r.madeOpen(out, n, a, err)
}

// madeOpen replies with a file that was made and opened in one request.
func (r *rawFS) madeOpen(out *fuse.CreateOut, n *union.Node, a union.Attr, err error) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	if err == nil && r.opens != nil {
		if err = r.opens.open(r.union, n, &out.OpenOut); err != nil {
			r.union.Forget(n, 1)
		}
	}
	return r.made(&out.EntryOut, n, a, err)
}

func (r *rawFS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.begin(opUnlink)
	p := r.node(h.NodeId)
	if p == nil {
		return stale
	}
	return r.status(r.union.Unlink(p, name))
}

func (r *rawFS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.begin(opRmdir)
	p := r.node(h.NodeId)
	if p == nil {
		return stale
	}
	return r.status(r.union.Rmdir(p, name))
}

func (r *rawFS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r.begin(opRename)
	op, np := r.node(in.NodeId), r.node(in.Newdir)
	if op == nil || np == nil {
		return stale
	}
	return r.status(r.union.Rename(op, oldName, np, newName, uint(in.Flags)))
}

func (r *rawFS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opLink)
	p, n := r.node(in.NodeId), r.node(in.Oldnodeid)
	if p == nil || n == nil {
		return stale
	}
	a, err := r.union.Link(n, p, name)
	return r.made(out, n, a, err)
}

func (r *rawFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (r *rawFS) ReleaseDir(*fuse.ReleaseIn) {}

// Positions 1 and 2 in a listing are "." and "..".
const firstName = 2

// maxBatch bounds how many names of a listing are looked up for one reply.
const maxBatch = 2048

// batch lists entries from a position on, for a reply of size bytes that takes
// extra bytes for each.
func (r *rawFS) batch(p *union.Node, pos uint64, size, extra int) ([]union.Listed, error) {
	var list []union.Listed
	full := func(e union.Listed) bool {
		size -= 24 + (len(e.Name)+7)&^7 + extra // linux/fuse.h: struct fuse_dirent
		return size < 0
	}
	for pos < firstName {
		e := union.Listed{Name: ".", Ino: p.Ino(), Type: unix.S_IFDIR, Pos: pos + 1}
		if pos == 1 {
			e.Name, e.Ino = "..", r.union.ParentIno(p)
		}
		if full(e) {
			return list, nil
		}
		list = append(list, e)
		pos++
	}
	err := r.union.ReadDir(p, pos-firstName, func(e union.Listed) bool {
		if full(e) {
			return false
		}
		e.Pos += firstName
		list = append(list, e)
		return len(list) < maxBatch
	})
	return list, err
}

func (r *rawFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.begin(opReaddir)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	list, err := r.batch(p, in.Offset, int(in.Size), 0)
	for _, e := range list {
		if !out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Type, Off: e.Pos}) {
			break
		}
	}
	return r.status(err)
}

// entryOutSize is what a listing with attributes takes for each name on top
// (struct fuse_entry_out).
const entryOutSize = 128

func (r *rawFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.begin(opReaddirplus)
	p := r.node(in.NodeId)
	if p == nil {
		return stale
	}
	list, err := r.batch(p, in.Offset, int(in.Size), entryOutSize)
	for _, e := range list {
		eo := out.AddDirLookupEntry(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Type, Off: e.Pos})
		if eo == nil {
			break
		}
		if e.Pos <= firstName {
			continue
		}
		id, a, err := r.union.LookupID(p, e.Name)
		if err != nil {
			continue // gone meanwhile, or to be told when someone asks for it
		}
		r.entry(eo, id, &a)
		out.FixMode(a.Mode)
	}
	return r.status(err)
}

func (r *rawFS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.fsync(in)
}
