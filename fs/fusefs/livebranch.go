package fusefs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// AddLower opens a directory and puts it among the lowers.
func (s *Server) AddLower(index int, path string) error {
	d, err := layer.OpenHost(path)
	if err != nil {
		return layerError("lower", path, err)
	}
	if st, err := d.Stat(); err != nil || st.Dev == s.mount.dev.dev {
		d.Close()
		if err == nil {
			err = fmt.Errorf("%s lies in the union itself: %w", path, unix.ELOOP)
		}
		return layerError("lower", path, err)
	}
	changed, err := s.union.AddLower(index, union.Branch{Name: path, Root: adapt(d, &s.opt)})
	s.dropCaches(changed)
	return err
}

// DelLower takes a lower out of the union.
func (s *Server) DelLower(path string) error {
	changed, err := s.union.DelLower(path)
	if err != nil {
		return err
	}
	s.dropCaches(changed)
	// The kernel lets go of what nobody uses soon after it was told to. Then
	// the layer is closed, and its filesystem can be unmounted.
	for wait := time.Millisecond; s.union.CloseRetired() > 0 && wait < 100*time.Millisecond; wait *= 2 {
		time.Sleep(wait)
	}
	return nil
}

// dropCaches makes the kernel ask again for every name, and list and look at
// the changed directories anew. A request of the kernel may be waiting for what
// it notifies about, so no lock of the union may be held.
func (s *Server) dropCaches(changed []union.Restacked) {
	if len(changed) == 0 {
		return
	}
	epoch := s.mount.conn.nextEpoch() == nil
	for _, c := range changed {
		// The answers tell only whether the kernel has the object at all.
		_ = s.mount.conn.dropInode(c.Dir.ID())
		s.dropNames(c, !epoch)
	}
}

// dropNames makes the kernel forget the names in one directory that no longer
// stand for what they did, and if all is set every name, those too that it knows
// to be absent.
func (s *Server) dropNames(c union.Restacked, all bool) {
	names := c.Gone
	if all {
		// What cannot be listed cannot be looked up either.
		_ = s.union.ReadDir(c.Dir, 0, func(e union.Listed) bool {
			names = append(names, e.Name)
			return true
		})
	}
	for _, name := range names {
		_ = s.mount.conn.dropEntry(c.Dir.ID(), name)
	}
}
