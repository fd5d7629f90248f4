// Package mountopt reads the options of a union mount, as kernel overlayfs,
// fuse-overlayfs and mount(8) spell them, into one typed struct.
//
//	-o lowerdir=app:base,upperdir=u,workdir=w,volatile
//	        │
//	      Parse ──> Options ──> Check ──> the FUSE server
//	                   └──> Render ─────> kernel overlayfs
//
// The package does no I/O: it never looks whether a directory exists, who the
// user is or what the kernel can do. What depends on that is left unset (the
// zero value of [Toggle] and of the other string types) for the mounter to
// decide.
//
// # Grammar
//
// Options are separated by commas; empty ones are skipped. An option that is
// repeated counts as given last, except lowerdir+ and datadir+, which add.
// A backslash takes the meaning from the next character (`\,` `\:` `\\`) and
// `\ooo` is a byte in octal, as libfuse reads it. In a list of directories
// `\\:` is a colon too: programs that know libfuse's two rounds of unescaping
// write that. A directory whose name ends in a backslash is therefore written
// `\134` in a list. Double quotes protect commas in the SELinux context
// options only, as in mount(8).
//
// An option that nobody knows is no error: it ends up in Options.Unknown, and
// the mount goes on with a warning, because callers of fuse-overlayfs count on
// that. A bad value of a known option is an [Error].
package mountopt

// A Toggle is an on/off option that can also be left to the mounter.
type Toggle string

// The values of a Toggle.
const (
	Unset Toggle = ""
	On    Toggle = "on"
	Off   Toggle = "off"
)

// Or returns the toggle as a bool, or def when it is unset.
func (t Toggle) Or(def bool) bool {
	if t == Unset {
		return def
	}
	return t == On
}

// RedirectDir says whether directories with lower parts are renamed by a
// redirect mark and whether existing marks are followed (overlayfs.rst,
// "redirect_dir").
type RedirectDir string

// The values of redirect_dir; the empty one leaves the choice to the mounter.
const (
	RedirectDefault  RedirectDir = ""
	RedirectOn       RedirectDir = "on"
	RedirectFollow   RedirectDir = "follow"
	RedirectNoFollow RedirectDir = "nofollow"
	RedirectOff      RedirectDir = "off"
)

// Xino says whether inode numbers are composed of a layer number and the
// number in the layer.
type Xino string

// The values of xino; the empty one leaves the choice to the mounter.
const (
	XinoDefault Xino = ""
	XinoOff     Xino = "off"
	XinoAuto    Xino = "auto"
	XinoOn      Xino = "on"
)

// Passthrough says whether reads and writes of file data bypass the server.
type Passthrough string

// The values of passthrough; the empty one means auto.
const (
	PassthroughAuto Passthrough = ""
	PassthroughOn   Passthrough = "on"
	PassthroughOff  Passthrough = "off"
)

// Format names how whiteouts and opaque directories are written into the
// upper.
type Format string

// The values of format; the empty one means auto: the one that fits the user
// and the filesystem of the upper.
const (
	FormatAuto        Format = ""
	FormatOverlay     Format = "overlay"      // char 0:0 and trusted.overlay.*
	FormatOverlayUser Format = "overlay-user" // char 0:0 and user.overlay.*
	FormatXattr       Format = "xattr"        // whiteouts as xattrs of empty files
	FormatAufs        Format = "aufs"         // .wh.NAME
)

// Atime says when reading a file updates its access time.
type Atime string

// The values of the atime family; the empty one leaves the choice to the
// mounter.
const (
	AtimeDefault Atime = ""
	AtimeAlways  Atime = "strictatime"
	AtimeRel     Atime = "relatime"
	AtimeNever   Atime = "noatime"
)

// An IDMap is one extent of uidmapping or gidmapping: Length ids that the
// layers store as Stored and up and the mount shows as Shown and up. In the
// option the stored one comes first: it is the id inside of the container whose
// user namespace maps it to the shown one, so the container sees what is stored.
type IDMap struct {
	Stored, Shown, Length uint32
}

// Options are all options of a union mount. The zero value is not the default
// of each option: use [Parse], with no argument at all if need be.
type Options struct {
	// Layers, as given: paths may be relative and are not cleaned, because
	// "l/ID/../diff1" must pass through the symbolic link l/ID.
	Lower    []string // top first
	DataOnly []string // below all of Lower, found only through redirects of metacopy files
	Upper    string   // empty: the mount is read-only
	Work     string   // on the filesystem of Upper

	// What kernel overlayfs calls its features.
	RedirectDir RedirectDir
	Metacopy    Toggle
	Index       Toggle
	NFSExport   Toggle
	Xino        Xino
	Verity      string // "", off, on, require
	UUID        string // "", auto, on, off, null
	UserXattr   bool   // marks in user.overlay.* instead of trusted.overlay.*
	Volatile    bool   // never sync; the upper is lost with the machine
	Fsync       bool   // pass fsync(2) on; default true
	Context     string // SELinux label of all files

	// Who owns what is seen.
	UIDMap           []IDMap
	GIDMap           []IDMap
	SquashToRoot     bool
	SquashUID        *uint32 // wins over SquashToRoot and UIDMap
	SquashGID        *uint32
	XattrPermissions int // 0 off, 1 security.fuseoverlayfs., 2 user.containers. override_stat

	// How the userspace server serves it.
	StaticNlink bool // st_nlink of directories is 1
	NoXattrs    bool // answer EOPNOTSUPP to all xattr calls
	NoACL       bool
	Ino32       bool     // inode numbers fit into 32 bits
	Timeout     *float64 // seconds that the kernel may cache names and attributes
	Writeback   *bool    // writeback cache
	Passthrough Passthrough
	Format      Format
	Size        uint64 // bytes the upper may take, 0 for no limit
	Inodes      uint64 // files the upper may hold, 0 for no limit
	MaxRead     uint32 // bytes per READ request, 0 for the default
	MaxWrite    uint32 // bytes per WRITE request, 0 for the default
	Debug       bool   // log every request
	LogFile     string // where a server in the background reports; empty: syslog

	// How it is mounted.
	AllowOther         bool
	AllowRoot          bool
	AutoUnmount        bool   // unmount when the server dies
	DefaultPermissions Toggle // let the kernel check modes
	Suid, Dev, Exec    Toggle
	Atime              Atime
	NoDirAtime         bool
	Sync, DirSync      bool
	LazyTime           bool
	NoSymFollow        bool
	ReadOnly           bool
	Remount            bool
	Propagation        string // "", or private, rprivate, shared, …
	FSName             string // the source shown in the mount table
	Subtype            string // what follows "fuse." in the mount table

	// Unknown holds the options that nothing here knows, as they were given.
	Unknown []string
}
