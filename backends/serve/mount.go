package serve

import (
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// VolumesConfig says which volumes to mount where.
type VolumesConfig struct {
	Volumes Volumes
	Target  string // an existing directory
	Source  string // shown in the mount table: the pool's name; empty: lamina
	// AllowOther lets root in where an ordinary user mounts; the modes of the
	// files keep out everybody else. Ordinary users may ask for it only where
	// /etc/fuse.conf says so.
	AllowOther bool
	// Direct keeps the page cache out of it: all that programs read and write is a
	// request.
	Direct bool
	Log    *log.Logger // nil: the standard logger
}

// VolumesType is the type of these mounts in the mount table.
const VolumesType = "fuse." + volumesSubtype

const volumesSubtype = "lamina-volumes"

// A VolumeMount is a directory of volumes that is mounted and served. Whoever
// made it gives it a control socket by [fusefs.Attend], or has it made by
// [fusefs.Serve].
type VolumeMount struct {
	raw *fusefs.RawMount
	fs  *volumeFS
}

var _ fusefs.Mounted = (*VolumeMount)(nil)

// maxTransfer is the largest READ and WRITE in bytes; the kernel takes no larger
// one unless fs.fuse.max_pages_limit was raised.
const maxTransfer = 1 << 20

// MountVolumes mounts volumes as files and serves them until they are unmounted,
// by whomever.
func MountVolumes(cfg VolumesConfig) (*VolumeMount, error) {
	if cfg.Log == nil {
		cfg.Log = log.Default()
	}
	if cfg.Source == "" {
		cfg.Source = "lamina"
	}
	m := &VolumeMount{fs: newVolumeFS(cfg.Volumes, cfg.Log)}
	var err error
	m.raw, err = fusefs.MountRaw(fusefs.RawConfig{
		FS:     m.fs,
		Target: cfg.Target,
		Flags: fusefs.MountFlags{
			FSName: cfg.Source, Subtype: volumesSubtype,
			NoSuid: true, NoDev: true, NoExec: true, NoAtime: true,
			AllowOther: cfg.AllowOther, DefaultPermissions: true,
		},
		Kernel: &fuse.MountOptions{
			MaxBackground:      64,
			MaxWrite:           maxTransfer,
			MaxReadAhead:       maxTransfer,
			DisableXAttrs:      true,
			DisableReadDirPlus: true,
			DisableSplice:      true,
			// Else a new time of the last change, which each write brings, would
			// empty the page cache.
			ExplicitDataCacheControl: true,
			Logger:                   cfg.Log,
			ExtraCapabilities:        fuse.CAP_ASYNC_DIO | fuse.CAP_NO_EXPORT_SUPPORT,
			DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		},
		DataWaits: true,
	})
	if err != nil {
		return nil, err
	}
	m.fs.direct = cfg.Direct
	m.fs.drop = func(id uint64, off, n int64) {
		if err := m.raw.DropRange(id, off, n); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			cfg.Log.Printf("drop %d bytes at %d of inode %d from the page cache: %v", n, off, id, err)
		}
	}
	serveReclaim()
	m.raw.Start()
	return m, nil
}

// serveReclaim tells the kernel that it may be waiting for this process when it
// wants to free memory: dirty pages of a filesystem above a loop device above a
// volume end here. Without it a thread of this process that needs memory could be
// made to write them out itself, and would wait for its own answer. Only root may
// say so (CAP_SYS_RESOURCE), and only root has loop devices. All threads to come
// inherit it. A program built with cgo cannot say it for all of its threads and
// goes without.
var serveReclaim = sync.OnceFunc(func() {
	syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
})

// Info says what is mounted where.
func (m *VolumeMount) Info() fusefs.Info { return m.raw.Info() }

// Counters returns what was done since the volumes were mounted.
func (m *VolumeMount) Counters() fusefs.Counters { return m.fs.counters() }

// Options returns the options in force.
func (m *VolumeMount) Options() map[string]string {
	return map[string]string{"max_transfer": fmt.Sprint(maxTransfer), "direct_io": onOff(m.fs.direct)}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// Wait returns when the volumes were unmounted, all requests are answered and all
// volumes closed.
func (m *VolumeMount) Wait() error {
	m.raw.Wait()
	var failed []error
	for _, n := range m.fs.nodes.all() {
		if err := n.abandon(); err != nil {
			failed = append(failed, fmt.Errorf("close volume %s: %w", n.currentName(), err))
		}
	}
	return errors.Join(failed...)
}

// Loops returns the loop devices over files of this mount.
func (m *VolumeMount) Loops() []Loop { return loopsBelow(m.Info().Target) }

// Unmount takes the mount away. A busy one gives EBUSY, and the error names the
// loop devices that use it. With lazy it goes out of sight at once, and its
// volumes are served until the last one is closed.
func (m *VolumeMount) Unmount(lazy bool) error {
	err := m.raw.Unmount(lazy)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	loops := loopsBelow(m.Info().Target)
	if len(loops) == 0 {
		return err
	}
	var uses, first []string
	for _, l := range loops {
		uses, first = append(uses, l.String()), append(first, l.Release())
	}
	return fmt.Errorf("unmount %s: %w: it is used by %s; first run: %s",
		m.Info().Target, unix.EBUSY, strings.Join(uses, ", "), strings.Join(first, " && "))
}
