package dataset

import "golang.org/x/sys/unix"

// maxDrop is how many records go in one batch at most.
const maxDrop = 8192

// resize adds to a step that a file gets another size, and reports whether records
// are left to go behind it.
//
// Where many records go they do so afterwards, in pieces. Crash before that is
// done: the file has its new size, and an orphan item, by which the next mount goes
// on.
func (s *step) resize(n *Node, size int64) (pending bool, err error) {
	v := s.v
	if size > v.maxSize() {
		return false, unix.EFBIG
	}
	if err := s.prepareGrow(n, size); err != nil {
		return false, err
	}
	in := s.edit(n)
	old := n.in.size
	in.size = size
	if size >= old {
		return false, nil
	}
	s.Frees = true
	if n.in.trim || v.records(old)-v.records(size) > maxDrop && n.in.mapped > maxDrop {
		end := min(int64(v.records(size))*v.size, int64(v.records(old))*v.size)
		if end > size {
			s.Zero(n.object, size, end-size)
		}
		in.trim = true
		s.markOrphan(n)
		return true, nil
	}
	return false, s.zero(n, size, old)
}

// trimLocked removes the records behind the size of a file, in pieces.
func (n *Node) trimLocked() error {
	v := n.view
	for first := v.records(n.in.size); ; {
		a, b, err := v.tree.NextRecords(n.object, first)
		if err != nil {
			return failed("remove records", n.object, err)
		}
		s := v.step()
		s.Frees = true
		in := s.edit(n)
		if b <= a {
			in.trim = false
			s.markOrphan(n)
			return s.commit("remove records", n.object)
		}
		b = min(b, a+maxDrop)
		s.Zero(n.object, int64(a)*v.size, int64(b-a)*v.size)
		in.mapped -= min(b-a, in.mapped)
		n.known = 0
		if err := s.commit("remove records", n.object); err != nil {
			return err
		}
		first = b
	}
}
