package fusefs

import (
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/override"
	"github.com/laminafs/lamina/fs/mountopt"
	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// Config says what to mount where.
type Config struct {
	Options mountopt.Options
	Target  string      // an existing directory
	Log     *log.Logger // nil: the standard logger
}

// A Server is a mounted union. It serves from the moment that [Mount] returns
// until it is unmounted, by whomever.
type Server struct {
	opt   mountopt.Options
	union *union.FS
	mount *FilesystemMount
	opens *openTable // the passthrough profile, nil in the zero-message one
}

var (
	_ Mounted = (*Server)(nil)
	_ Layered = (*Server)(nil)
)

// Mount opens the layers, mounts their union on cfg.Target and serves it. All
// layers are open before anything is mounted, so the server never has to go
// through its own mount, wherever that lies.
func Mount(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = log.Default()
	}
	s := &Server{opt: cfg.Options}
	var err error
	if s.union, err = openUnion(&cfg.Options); err != nil {
		return nil, err
	}
	fsCfg := s.filesystemConfig(&cfg)
	raw, kernel := newRawFS(&fsCfg), fsCfg.kernelOptions()
	serve := fuse.RawFileSystem(raw)
	if s.opt.Passthrough == mountopt.PassthroughOn {
		s.opens = newOpenTable(nil)
		serve = &passthroughFS{rawFS: raw, union: s.union, opens: s.opens}
		kernel.DisabledCapabilities &^= fuse.CAP_PASSTHROUGH
		kernel.ExtraCapabilities |= fuse.CAP_ATOMIC_O_TRUNC
		kernel.MaxStackDepth = 1
	}
	if s.mount, err = raw.mount(&fsCfg, serve, kernel); err != nil {
		return nil, errors.Join(err, s.union.Close())
	}
	limitMemory()
	s.union.OnRelisted(func(dir *union.Node) {
		// The answer tells only whether the kernel has the directory at all.
		_ = s.mount.DropInode(dir.ID())
	})
	if s.opens != nil {
		s.choosePassthrough(cfg.Log)
	}
	s.mount.Start()
	return s, nil
}

// filesystemConfig is how a union is served.
func (s *Server) filesystemConfig(cfg *Config) FilesystemConfig[*union.Node] {
	o := &cfg.Options
	f := FilesystemConfig[*union.Node]{
		FS:        s.union,
		Target:    cfg.Target,
		Flags:     MountFlagsOf(o),
		Owners:    OwnersOf(o),
		Writeback: s.writeback(),
		NoXattrs:  o.NoXattrs,
		NoACL:     o.NoACL,
		MaxWrite:  int(o.MaxWrite),
		ReadAhead: layerReadAhead(o),
		Debug:     o.Debug,
		Log:       cfg.Log,
	}
	if o.Timeout != nil {
		timeout := time.Duration(min(*o.Timeout, forever.Seconds()) * float64(time.Second))
		f.Timeout = &timeout
	}
	return f
}

// choosePassthrough has the kernel read and write files of the layers where it
// will. Without the privilege for that OPEN is answered all the same, so that
// files are copied up when they are opened for writing, and that is said.
func (s *Server) choosePassthrough(logger *log.Logger) {
	if s.union.Bounded() {
		return
	}
	if err := canPassThrough(s.mount.conn, s.union.AnyDescriptor()); err != nil {
		logger.Printf("passthrough=on: the kernel takes no backing files from this process (%v): data goes through the server; it needs root outside of user namespaces and Linux 6.9", err)
		return
	}
	s.opens.server = s.mount.conn
}

// writeback tells whether the kernel may collect what is written, the default.
// Passthrough has no use for it, and a limit has to refuse the write itself, not
// the close.
func (s *Server) writeback() bool {
	if s.opt.Writeback != nil {
		return *s.opt.Writeback
	}
	return s.opt.Passthrough != mountopt.PassthroughOn && !s.union.Bounded()
}

// openUnion opens the layers that the options name and merges them.
func openUnion(o *mountopt.Options) (fs *union.FS, err error) {
	cfg := union.Config{Options: unionOptions(o)}
	var opened []layer.Dir
	defer func() {
		if err != nil && fs == nil {
			for _, d := range opened {
				d.Close()
			}
		}
	}()
	open := func(what, path string, how func(string) (layer.Dir, error)) (union.Branch, error) {
		d, err := how(path)
		if err != nil {
			return union.Branch{}, layerError(what, path, err)
		}
		opened = append(opened, d)
		d = adapt(d, o)
		return union.Branch{Name: path, Root: d}, nil
	}
	for _, path := range o.Lower {
		b, err := open("lower", path, layer.OpenHost)
		if err != nil {
			return nil, err
		}
		cfg.Lowers = append(cfg.Lowers, b)
	}
	for _, path := range o.DataOnly {
		b, err := open("data-only lower", path, layer.OpenHost)
		if err != nil {
			return nil, err
		}
		cfg.DataOnly = append(cfg.DataOnly, b)
	}
	if o.Upper != "" && !o.ReadOnly {
		upper, err := open("upper", o.Upper, layer.OpenHostShared)
		if err != nil {
			return nil, err
		}
		if o.Work == "" {
			return nil, fmt.Errorf("upperdir=%s: no workdir given: name an empty directory on the same filesystem", o.Upper)
		}
		work, err := open("work", o.Work, layer.OpenHostShared)
		if err != nil {
			return nil, err
		}
		cfg.Upper, cfg.Work = &upper, &work
	} else if o.Upper != "" {
		// Mounted read-only, the upper is only the topmost layer.
		b, err := open("upper", o.Upper, layer.OpenHost)
		if err != nil {
			return nil, err
		}
		cfg.Lowers = append([]union.Branch{b}, cfg.Lowers...)
	}
	opened = nil
	return union.New(cfg)
}

// adapt puts what the options want of a layer between it and the union.
func adapt(d layer.Dir, o *mountopt.Options) layer.Dir {
	switch o.XattrPermissions {
	case 1:
		return override.Wrap(d, override.Privileged)
	case 2:
		return override.Wrap(d, override.Containers)
	}
	return d
}

// layerError says which directory cannot be used and what mends it.
func layerError(what, path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.ENOENT):
		hint = ": make it first"
	case errors.Is(err, unix.ENOTDIR):
		hint = ": a layer is a directory; unpack an archive first"
	case errors.Is(err, unix.EACCES):
		hint = ": this user may not enter it"
	}
	return fmt.Errorf("%s directory: %w%s", what, err, hint)
}

func unionOptions(o *mountopt.Options) union.Options {
	u := union.Options{
		Redirect:    o.RedirectDir == mountopt.RedirectOn,
		NoFollow:    o.RedirectDir == mountopt.RedirectNoFollow,
		Metacopy:    o.Metacopy.Or(false),
		Index:       o.Index.Or(true),
		Volatile:    o.Volatile || !o.Fsync,
		NoXattrs:    o.NoXattrs,
		StaticNlink: o.StaticNlink,
		Ino32:       o.Ino32,
		Self:        union.Caller{UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid())},
		Size:        int64(o.Size),
		Inodes:      int64(o.Inodes),
		MaxHandles:  maxHandles(),
		RestorePriv: !initialRoot(),
	}
	if o.UserXattr {
		u.Prefix = whiteout.User
	}
	switch o.Format {
	case mountopt.FormatOverlay:
		u.Prefix, u.Whiteouts = whiteout.Trusted, union.WhiteoutDevice
	case mountopt.FormatOverlayUser:
		u.Prefix, u.Whiteouts = whiteout.User, union.WhiteoutDevice
	case mountopt.FormatXattr:
		u.Whiteouts = union.WhiteoutXattr
	case mountopt.FormatAufs:
		u.Whiteouts = union.WhiteoutAufs
	}
	// Redirects are on where the kernel can follow them: it does not with
	// marks in user.overlay.*.
	u.RedirectAuto = o.RedirectDir == mountopt.RedirectDefault
	return u
}

// initialRoot reports whether this process is root outside of all user
// namespaces, where capabilities count everywhere.
func initialRoot() bool {
	if unix.Geteuid() != 0 {
		return false
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(data)), " ") == "0 0 4294967295"
}

// maxHandles leaves a part of the descriptors that the process may have to
// everything but layers.
func maxHandles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	return int(min(limit.Cur*3/4, 16384))
}

// Info says what is mounted where.
func (s *Server) Info() Info { return s.mount.Info() }

// Wait returns when the union was unmounted and all requests are answered.
func (s *Server) Wait() error {
	s.mount.Wait()
	return s.union.Close()
}

// Unmount takes the mount away. A busy one gives EBUSY, unless lazy, which
// takes it out of sight at once and lets those who use it finish.
func (s *Server) Unmount(lazy bool) error { return s.mount.Unmount(lazy) }
