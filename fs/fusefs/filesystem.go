package fusefs

import (
	"fmt"
	"log"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/fs/vfs"
)

// FilesystemConfig says what filesystem to serve where, and how.
type FilesystemConfig[N vfs.Node] struct {
	FS     vfs.Filesystem[N]
	Target string     // an existing directory
	Flags  MountFlags // what the kernel is told about the mount
	Owners Owners     // as whose files are shown

	// Timeout is how long the kernel may believe what it was told; nil: for good.
	Timeout *time.Duration
	// Writeback lets the kernel collect what is written and hand it over when the
	// file is closed or synced: a small write into a cached page costs no message
	// then. Who has to refuse writes for want of space refuses the close.
	Writeback bool
	NoXattrs  bool // there are none
	NoACL     bool // ACLs are attributes without a meaning
	// MaxWrite is the largest WRITE in bytes, 0: 1 MiB.
	MaxWrite int
	// ReadAhead is how many KB the kernel reads ahead, where this process may say
	// so; 0 leaves it to the kernel.
	ReadAhead int
	DataWaits bool        // see [RawConfig]
	Debug     bool        // log each request
	Log       *log.Logger // nil: the standard logger
}

// A FilesystemMount is a mounted [vfs.Filesystem].
type FilesystemMount struct {
	*RawMount
	counters  func() Counters
	count     *counters
	timeout   time.Duration
	writeback bool
}

// MountFilesystem mounts a filesystem on cfg.Target in the zero-message profile,
// see the package comment. As with [MountRaw] requests wait for
// [RawMount.Start]. The filesystem stays the caller's, who closes it when
// [RawMount.Wait] has returned.
func MountFilesystem[N vfs.Node](cfg FilesystemConfig[N]) (*FilesystemMount, error) {
	r := newRawFS(&cfg)
	return r.mount(&cfg, r, cfg.kernelOptions())
}

// mount has r, or what is built upon it, mounted.
func (r *rawFS[N]) mount(cfg *FilesystemConfig[N], serve fuse.RawFileSystem, kernel *fuse.MountOptions) (*FilesystemMount, error) {
	raw, err := MountRaw(RawConfig{
		FS: serve, Target: cfg.Target, Flags: cfg.Flags, Kernel: kernel, DataWaits: cfg.DataWaits,
	})
	if err != nil {
		return nil, err
	}
	if r.initialRoot {
		raw.dev.readAhead(cfg.ReadAhead)
	}
	// These answers tell only whether the kernel has the file at all.
	r.dropAttrs = func(node uint64) { _ = raw.conn.dropAttrs(node) }
	if cfg.Writeback {
		r.writeOut = func(node uint64) { _ = raw.conn.dropInode(node) }
	}
	return &FilesystemMount{RawMount: raw, counters: r.counters, count: &r.count, timeout: r.timeout, writeback: cfg.Writeback}, nil
}

// kernelOptions are the features that the server asks the kernel for.
func (cfg *FilesystemConfig[N]) kernelOptions() *fuse.MountOptions {
	o := &fuse.MountOptions{
		MaxBackground:            maxBackground,
		MaxWrite:                 cfg.MaxWrite,
		MaxReadAhead:             1 << 20,
		DisableXAttrs:            cfg.NoXattrs,
		Debug:                    cfg.Debug,
		Logger:                   cfg.Log,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		EnableAcl:                !cfg.NoACL,
		DisableSplice:            true,
		// The mount may be mapped by mount_setattr(2): only requests that make
		// something then say for whom, and nothing else is asked.
		IDMappedMount: cfg.Flags.DefaultPermissions,
		// CAP_NO_EXPORT_SUPPORT: a file handle would hold a node, which is forgotten
		// with the kernel's cache and means another file in the next mount. Who
		// asks for one is better told that there are none.
		//
		// CAP_ASYNC_DIO is not among them: what is read through the cache while
		// an asynchronous direct write is under way would stay there for good,
		// as nothing drops it when the write is done (fuse_aio_complete).
		ExtraCapabilities: fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
			fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_IOCTL_DIR | fuse.CAP_NO_EXPORT_SUPPORT,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}
	if o.MaxWrite == 0 {
		o.MaxWrite = 1 << 20
	}
	if cfg.Writeback {
		o.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	return o
}

// Counters returns what the server has done since the filesystem was mounted.
func (m *FilesystemMount) Counters() Counters { return m.counters() }

// Options returns the options in force.
func (m *FilesystemMount) Options() map[string]string {
	return map[string]string{
		"writeback": onOff(m.writeback),
		"timeout":   fmt.Sprint(m.timeout.Seconds()),
	}
}

// counters returns what was asked so far.
func (r *rawFS[N]) counters() Counters {
	c := Counters{
		Requests:     map[string]uint64{},
		Errors:       r.count.errors.Load(),
		BytesRead:    r.count.read.Load(),
		BytesWritten: r.count.written.Load(),
		Nodes:        uint64(r.fs.Nodes()),
	}
	for i := range r.count.ops {
		if n := r.count.ops[i].Load(); n > 0 {
			c.Requests[opNames[i]] = n
		}
	}
	return c
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
