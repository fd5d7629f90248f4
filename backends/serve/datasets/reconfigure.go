package datasets

import (
	"errors"
	"fmt"
)

// Reconfigure has a mount do from now on what cfg says of read-only, access times, the
// bound of inodes, the directory of snapshots, and programs, set-user-ID bits and
// devices; the rest of cfg counts when it is mounted the next time. Nested subvolumes
// do what their own properties say by now.
//
// A dataset becomes read-only although files are open for writing: what was written
// before is there, and their next write is EROFS. EPERM tells that only root, or the
// root of the user namespace that mounted it, can change a flag of the kernel's, which
// stays until the next mount; everything else was changed.
func (m *Mount) Reconfigure(cfg Config) error {
	m.reconfiguring.Lock()
	defer m.reconfiguring.Unlock()
	old := m.configured()
	cfg.Dataset, cfg.Target = m.Dataset(), old.Target
	var failed error
	if cfg.Options.ReadOnly && !m.fs.ReadOnly() {
		failed = m.raw.Flush()
	}
	if err := m.fs.SetOptions(cfg.datasetOptions()); err != nil {
		return fmt.Errorf("change the mount on %s: %w", m.target, errors.Join(failed, err))
	}
	m.mounts.mu.Lock()
	m.cfg = cfg
	m.mounts.mu.Unlock()
	if cfg.ShowHidden != old.ShowHidden {
		_ = m.raw.DropInode(m.fs.Root().ID()) // fails where the kernel has not looked
	}
	return errors.Join(failed, m.raw.Reflag(m.flags(&cfg)))
}

// configured returns what the mount was configured to do last.
func (m *Mount) configured() Config {
	m.mounts.mu.Lock()
	defer m.mounts.mu.Unlock()
	return m.cfg
}
