package union

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// ReadDir lists directory p from position pos, 0 being the start, by calling
// emit until it returns false. "." and ".." are not listed. Positions stay
// valid while the directory changes: a name that is there all the time is
// listed exactly once, and one that was made after the listing began not at all,
// so that who makes or renames files while listing comes to an end.
func (fs *FS) ReadDir(p *Node, pos uint64, emit func(Listed) bool) error {
	if p.dir == nil {
		return unix.ENOTDIR
	}
	d := p.dir
	d.mu.RLock()
	for !d.table.complete {
		d.mu.RUnlock()
		d.mu.Lock()
		err := fs.completeLocked(p)
		d.mu.Unlock()
		if err != nil {
			return err
		}
		d.mu.RLock()
	}
	defer d.mu.RUnlock()
	t := &d.table
	for i := t.listFrom(pos); i >= 0; i-- {
		e := &t.entries[i]
		if e.seq == 0 {
			continue
		}
		ino := e.ino
		if e.node != nil {
			ino = e.node.Ino()
		}
		if !emit(Listed{Name: e.name, Ino: ino, Type: uint32(e.typ), Pos: e.pos()}) {
			return nil
		}
	}
	return nil
}

// ParentIno returns the inode number of the directory that holds directory n, the
// root's own for the root.
func (fs *FS) ParentIno(n *Node) uint64 {
	if p, _ := n.where(); p != nil {
		return p.Ino()
	}
	return n.Ino()
}

// completeLocked reads all parts of a directory, whose lock is held for
// writing, and merges them into its table.
func (fs *FS) completeLocked(p *Node) error {
	d := p.dir
	if d.table.complete {
		return nil
	}
	fs.stats.Listings.Add(1)
	// What is known already keeps its place, to which ids may refer.
	merge := merger{fs: fs, p: p, table: d.table.clone(), known: d.table.lastSeq, hidden: map[string]bool{}}
	parts := d.lowers()
	if up := d.upper.Load(); up != nil {
		if err := merge.part(up, 0, len(parts) == 0); err != nil {
			return err
		}
	}
	for i, rd := range parts {
		if err := merge.part(rd, i+1, i == len(parts)-1); err != nil {
			return err
		}
	}
	merge.finish()
	return nil
}

// merger builds the complete table of a directory, from the top part down.
type merger struct {
	fs     *FS
	p      *Node
	table  dirTable
	known  uint32          // lastSeq of what was known before
	hidden map[string]bool // names that a whiteout has ended
}

// part takes in one part. Its whiteouts hide names of the parts below only, so
// they count once the part is done.
func (m *merger) part(rd *realDir, part int, last bool) error {
	h, err := rd.open(m.fs)
	if err != nil {
		return err
	}
	defer h.release()
	list, err := retryOpen(m.fs, h.obj.ReadDir)
	if err != nil {
		return err
	}
	m.table.reserve(len(list))
	var gone []string
	aufs := false
	for _, e := range list {
		if rd.br.aufs {
			if kind, target := whiteout.ParseAufsName(e.Name); kind != whiteout.NotMark {
				aufs = true
				if kind == whiteout.Whiteout {
					gone = append(gone, target)
				}
				continue
			}
		}
		wh, err := m.isWhiteout(rd, h.obj, &e)
		if err != nil {
			return err
		}
		if wh {
			gone = append(gone, e.Name)
			continue
		}
		if m.hidden[e.Name] || m.table.get(e.Name) != nil {
			continue
		}
		if err := m.add(rd, h.obj, e, part); err != nil {
			return err
		}
	}
	if rd.br.upper && !aufs {
		rd.noAufs.Store(true)
	}
	if !last {
		for _, name := range gone {
			m.hidden[name] = true
		}
	}
	return nil
}

// isWhiteout tells whether an entry says that a name is deleted. It looks at
// character devices, and at empty files where the directory is marked to hold
// whiteouts of that kind.
func (m *merger) isWhiteout(rd *realDir, dir layer.Dir, e *layer.Dirent) (bool, error) {
	if e.Type == 0 || e.Type == unix.S_IFCHR || rd.xattrWhiteouts && e.Type == unix.S_IFREG {
		st, err := dir.StatAt(e.Name)
		if err != nil {
			return false, err
		}
		e.Type = st.Type()
		if st.IsWhiteoutDevice() {
			return true, nil
		}
		if rd.xattrWhiteouts && st.IsRegular() && st.Size == 0 {
			mk, err := m.fs.readMarks(childXattrs{dir, e.Name})
			return mk.whiteout, err
		}
	}
	return false, nil
}

// add enters a name. Its number is the one that a lookup would show. What a
// lookup refuses, because its marks cannot be understood, is listed all the
// same: it must not keep users from the rest of the directory.
func (m *merger) add(rd *realDir, dir layer.Dir, e layer.Dirent, part int) error {
	n := entry{name: e.Name, typ: uint16(e.Type), part: int16(part)}
	dev, err := m.dev(rd, dir)
	if err != nil {
		return err
	}
	n.ino = m.fs.inos.compose(dev, e.Ino)
	d := m.p.dir
	switch {
	case rd.br.upper && e.Type == unix.S_IFDIR && (d.merged() || d.impure):
		// Its number is that of a lower directory, if it is merged with one
		// here or by a redirect.
		f, err := m.fs.resolve(m.p, e.Name, 0)
		if err != nil && !errors.Is(err, whiteout.ErrMalformed) {
			return err
		}
		if f != nil {
			n.ino = m.fs.inoOf(f)
		}
	case rd.br.upper && d.impure && e.Type != unix.S_IFDIR:
		mk, err := m.fs.readMarks(childXattrs{dir, e.Name})
		if err != nil && !errors.Is(err, whiteout.ErrMalformed) {
			return err
		}
		if ino, ok := m.fs.inos.fromOrigin(mk.origin); ok {
			n.ino = ino
		}
	}
	m.table.put(n)
	return nil
}

// dev returns the device of the entries of a directory.
func (m *merger) dev(rd *realDir, dir layer.Dir) (uint64, error) {
	if rd.dev.Load() == 0 {
		st, err := dir.Stat()
		if err != nil {
			return 0, err
		}
		rd.dev.Store(st.Dev)
	}
	return rd.dev.Load(), nil
}

// finish makes the merged table the directory's.
func (m *merger) finish() {
	d := m.p.dir
	m.table.reverse(m.known)
	m.table.complete = true
	d.table = m.table
	d.gen++
}
