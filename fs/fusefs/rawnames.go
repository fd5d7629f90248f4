package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/vfs"
)

// made replies with an object that was just made.
func (r *rawFS[N]) made(out *fuse.EntryOut, p, n N, a vfs.Attr, err error) fuse.Status {
	if err != nil {
		return r.status(err)
	}
	r.entry(out, p, n.ID(), &a)
	return fuse.OK
}

func (r *rawFS[N]) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opMknod)
	p, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.fs.Mknod(p, name, in.Mode, uint64(in.Rdev), c)
	return r.made(out, p, n, a, err)
}

func (r *rawFS[N]) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opMkdir)
	p, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.fs.Mkdir(p, name, in.Mode, c)
	return r.made(out, p, n, a, err)
}

func (r *rawFS[N]) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opSymlink)
	p, ok := r.node(h.NodeId)
	if !ok {
		return stale
	}
	c, err := r.owners.creator(h, 0)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.fs.Symlink(p, name, target, c)
	return r.made(out, p, n, a, err)
}

func (r *rawFS[N]) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r.begin(opCreate)
	p, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.fs.Create(p, name, in.Mode, c)
	return r.madeOpen(out, p, n, a, err)
}

func (r *rawFS[N]) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	r.begin(opTmpfile)
	p, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	c, err := r.owners.creator(&in.InHeader, in.Umask)
	if err != nil {
		return r.status(err)
	}
	n, a, err := r.fs.Tmpfile(p, in.Mode, c)
	return r.madeOpen(out, p, n, a, err)
}

// madeOpen replies with a file that was made and opened in one request.
func (r *rawFS[N]) madeOpen(out *fuse.CreateOut, p, n N, a vfs.Attr, err error) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return r.made(&out.EntryOut, p, n, a, err)
}

func (r *rawFS[N]) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.begin(opUnlink)
	p, ok := r.node(h.NodeId)
	if !ok {
		return stale
	}
	return r.status(r.fs.Unlink(p, name))
}

func (r *rawFS[N]) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r.begin(opRmdir)
	p, ok := r.node(h.NodeId)
	if !ok {
		return stale
	}
	return r.status(r.fs.Rmdir(p, name))
}

func (r *rawFS[N]) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r.begin(opRename)
	op, np, ok := r.nodes(in.NodeId, in.Newdir)
	if !ok {
		return stale
	}
	return r.status(r.fs.Rename(op, oldName, np, newName, uint(in.Flags)))
}

func (r *rawFS[N]) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opLink)
	p, n, ok := r.nodes(in.NodeId, in.Oldnodeid)
	if !ok {
		return stale
	}
	a, err := r.fs.Link(n, p, name)
	return r.made(out, p, n, a, err)
}

func (r *rawFS[N]) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (r *rawFS[N]) ReleaseDir(*fuse.ReleaseIn) {}

// Positions 1 and 2 in a listing are "." and "..".
const firstName = 2

// maxBatch bounds how many names of a listing are looked up for one reply.
const maxBatch = 2048

// batch lists entries from a position on, for a reply of size bytes that takes
// extra bytes for each.
func (r *rawFS[N]) batch(p N, pos uint64, size, extra int) ([]vfs.Listed, error) {
	var list []vfs.Listed
	full := func(e vfs.Listed) bool {
		size -= 24 + (len(e.Name)+7)&^7 + extra // linux/fuse.h: struct fuse_dirent
		return size < 0
	}
	for pos < firstName {
		e := vfs.Listed{Name: ".", Ino: p.Ino(), Type: unix.S_IFDIR, Pos: pos + 1}
		if pos == 1 {
			e.Name, e.Ino = "..", r.fs.ParentIno(p)
		}
		if full(e) {
			return list, nil
		}
		list = append(list, e)
		pos++
	}
	err := r.fs.ReadDir(p, pos-firstName, func(e vfs.Listed) bool {
		if full(e) {
			return false
		}
		e.Pos += firstName
		list = append(list, e)
		return len(list) < maxBatch
	})
	return list, err
}

func (r *rawFS[N]) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.begin(opReaddir)
	p, ok := r.node(in.NodeId)
	if !ok {
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

func (r *rawFS[N]) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.begin(opReaddirplus)
	p, ok := r.node(in.NodeId)
	if !ok {
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
		id, a, err := r.fs.LookupID(p, e.Name)
		if err != nil {
			continue // gone meanwhile, or to be told when someone asks for it
		}
		r.entry(eo, p, id, &a)
		out.FixMode(a.Mode)
	}
	return r.status(err)
}

func (r *rawFS[N]) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.fsync(in)
}
