package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// copyUpSpecial copies up a symbolic link, device, FIFO or socket.
func (fs *FS) copyUpSpecial(n *Node) error {
	at := n.lowerPlace()
	dir, err := at.dir.open(fs)
	if err != nil {
		return err
	}
	defer dir.release()
	src, err := dir.obj.Lookup(at.name)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := fs.limits.takeObject(n.typ); err != nil {
		return err
	}
	tmp, err := fs.stageSpecial(src, &st)
	published := false
	defer func() {
		if !published {
			fs.limits.giveObject(n.typ)
			if err == nil {
				fs.work.remove(tmp)
			}
		}
	}()
	if err != nil {
		return err
	}
	dst, err := fs.work.dir.Lookup(tmp)
	if err != nil {
		return err
	}
	if err := fs.copyAttributes(dst, src, &st, n, false); err != nil {
		dst.Close()
		return err
	}
	if err := fs.publishSpecial(n, tmp, dst, &st); err != nil {
		dst.Close()
		return err
	}
	published = true
	return nil
}

func (fs *FS) stageSpecial(src layer.Object, st *layer.Stat) (string, error) {
	if st.Type() != unix.S_IFLNK {
		return fs.work.temp(func(d layer.Dir, name string) error {
			return d.Mknod(name, st.Type()|0o600, st.Rdev)
		})
	}
	target, err := src.Readlink()
	if err != nil {
		return "", err
	}
	return fs.work.temp(func(d layer.Dir, name string) error { return d.Symlink(target, name) })
}

// publishSpecial moves a staged object to the name that the node has by now.
// It takes over dst when it succeeds.
func (fs *FS) publishSpecial(n *Node, tmp string, dst layer.Object, lower *layer.Stat) error {
	for {
		p, name := n.where()
		if p == nil {
			n.becomeUpperSpecial(dst, true)
			return fs.work.dir.Unlink(tmp)
		}
		if err := fs.copyUpDir(p); err != nil {
			return err
		}
		done, err := func() (bool, error) {
			p.dir.mu.Lock()
			defer p.dir.mu.Unlock()
			if q, qname := n.where(); q != p || qname != name {
				return false, nil
			}
			ino, err := fs.ownIno(n, dst, lower)
			if err != nil {
				return true, err
			}
			x, err := fs.indexStaged(n, dst, lower)
			if err != nil {
				return true, err
			}
			err = fs.inParent(p, n.has(stateOrigin), func(d layer.Dir) error {
				if err := fs.work.dir.Rename(tmp, d, name, 0); err != nil {
					return err
				}
				err := x.published()
				if err != nil {
					_ = d.Unlink(name)
				}
				return err
			})
			if err != nil {
				x.drop()
				return true, err
			}
			fs.renumber(n, p, ino)
			x.enter()
			n.becomeUpperSpecial(dst, x != nil)
			fs.entryIsUpper(p, name)
			return true, nil
		}()
		if done {
			return err
		}
	}
}

// becomeUpperSpecial makes an open copy the node's object. keep holds it for good,
// because no single name leads to it.
func (n *Node) becomeUpperSpecial(copy layer.Object, keep bool) {
	if keep {
		n.mu.Lock()
		n.extLocked().pinObj = copy
		n.mu.Unlock()
	} else {
		copy.Close()
	}
	n.set(stateUpper)
	n.clear(stateNoXattrs)
}
