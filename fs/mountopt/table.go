package mountopt

import (
	"slices"
	"strings"
)

// takes says whether an option has a value.
type takes uint8

const (
	nothing takes = iota // name
	maybe                // name or name=value
	always               // name=value
)

// A spec is one option: how it is written, what it accepts and where the value
// goes. One line here is all that a new option needs.
type spec struct {
	Doc
	takes takes
	set   func(o *Options, value string) error
}

// A Doc describes an option to people.
type Doc struct {
	Name    string
	Accepts string // what may stand after the "="; empty for a plain word
	Help    string
}

// Docs returns the description of every option that has a meaning here, in the
// order of the manual.
func Docs() []Doc {
	docs := make([]Doc, 0, len(specs))
	for _, s := range specs {
		if s.Help != "" {
			docs = append(docs, s.Doc)
		}
	}
	return docs
}

var byName = func() map[string]*spec {
	m := make(map[string]*spec, len(specs))
	for i := range specs {
		m[specs[i].Name] = &specs[i]
	}
	return m
}()

const onOff = "on, off, 1, 0, yes, no, true, false"

// specs is in the order of the manual.
var specs = []spec{
	{Doc{"lowerdir", "directories, the top first, joined by colons; data-only ones at the end, each after a double colon", "the read-only layers"}, always, setLowers},
	{Doc{"lowerdir+", "a directory", "one more read-only layer, below those before it"}, always, addLower},
	{Doc{"datadir+", "a directory", "one more data-only layer, below all others"}, always, addDataOnly},
	{Doc{"upperdir", "a directory", "the writable layer; without it the mount is read-only"}, always, pathname(func(o *Options) *string { return &o.Upper })},
	{Doc{"workdir", "a directory on the filesystem of upperdir", "where changes are prepared before they appear in upperdir"}, always, pathname(func(o *Options) *string { return &o.Work })},

	{Doc{"redirect_dir", "on, follow, nofollow, off", "rename directories that have lower parts by a redirect mark; follow the marks of others"}, always,
		word(func(o *Options) *RedirectDir { return &o.RedirectDir }, RedirectOn, RedirectFollow, RedirectNoFollow, RedirectOff)},
	{Doc{"metacopy", onOff, "change owner, mode and times of a lower file without copying its data"}, maybe, flag(func(o *Options) *Toggle { return &o.Metacopy })},
	{Doc{"index", onOff, "keep hard links together when a lower file is copied up"}, maybe, flag(func(o *Options) *Toggle { return &o.Index })},
	{Doc{"nfs_export", onOff, "file handles that survive a remount"}, maybe, flag(func(o *Options) *Toggle { return &o.NFSExport })},
	{Doc{"xino", "on, off, auto", "compose inode numbers so that they are unique over several filesystems (lamina's server always does)"}, always,
		word(func(o *Options) *Xino { return &o.Xino }, XinoOn, XinoOff, XinoAuto)},
	{Doc{"verity", "on, off, require", "check the data of metacopy files by fs-verity digests"}, always,
		word(func(o *Options) *string { return &o.Verity }, "on", "off", "require")},
	{Doc{"uuid", "auto, on, off, null", "which identity the filesystem has (only the kernel engine; a FUSE mount has none)"}, always,
		word(func(o *Options) *string { return &o.UUID }, "auto", "on", "off", "null")},
	{Doc{"userxattr", onOff, "keep marks in user.overlay.* instead of trusted.overlay.*"}, maybe, boolean(func(o *Options) *bool { return &o.UserXattr })},
	{Doc{"volatile", onOff, "never sync; after a crash the upper is lost"}, maybe, boolean(func(o *Options) *bool { return &o.Volatile })},
	{Doc{"fsync", onOff, "pass fsync(2) to the upper (default on)"}, maybe, boolean(func(o *Options) *bool { return &o.Fsync })},
	{Doc{"context", `an SELinux label, in double quotes if it holds a comma`, "the SELinux label of all files"}, always, setContext},

	{Doc{"uidmapping", mapAccepts, "show user ids that the layers store as others"}, always, idMap(func(o *Options) *[]IDMap { return &o.UIDMap })},
	{Doc{"gidmapping", mapAccepts, "the same for group ids"}, always, idMap(func(o *Options) *[]IDMap { return &o.GIDMap })},
	{Doc{"squash_to_root", onOff, "show all files as owned by 0:0"}, maybe, boolean(func(o *Options) *bool { return &o.SquashToRoot })},
	{Doc{"squash_to_uid", idAccepts, "show all files as owned by this user"}, always, id(func(o *Options) **uint32 { return &o.SquashUID })},
	{Doc{"squash_to_gid", idAccepts, "show all files as owned by this group"}, always, id(func(o *Options) **uint32 { return &o.SquashGID })},
	{Doc{"xattr_permissions", "0 (off), 1 (security.fuseoverlayfs.override_stat), 2 (user.containers.override_stat)", "keep owner, mode and type of files in an xattr"}, always, setXattrPermissions},

	{Doc{"size", "bytes, with a suffix k, m, g, t, p (powers of 1024); 0 for no limit", "how much the upper may take"}, always, size(func(o *Options) *uint64 { return &o.Size })},
	{Doc{"inodes", "a number, with a suffix k, m, g (powers of 1024); 0 for no limit", "how many files the upper may hold"}, always, size(func(o *Options) *uint64 { return &o.Inodes })},
	{Doc{"format", "auto, overlay, overlay-user, xattr, aufs", "how deletions are marked in the upper"}, always, setFormat},
	{Doc{"passthrough", "auto, on, off", "let the kernel read and write file data itself"}, always, setPassthrough},
	{Doc{"writeback", onOff, "gather small writes in the kernel"}, maybe, setWriteback},
	{Doc{"timeout", "seconds, such as 0, 1.5 or 86400", "how long the kernel may remember names and attributes"}, always, setTimeout},
	{Doc{"static_nlink", onOff, "show directories with one link"}, maybe, boolean(func(o *Options) *bool { return &o.StaticNlink })},
	{Doc{"noxattrs", onOff, "no extended attributes"}, maybe, boolean(func(o *Options) *bool { return &o.NoXattrs })},
	{Doc{"noacl", onOff, "no POSIX ACLs"}, maybe, boolean(func(o *Options) *bool { return &o.NoACL })},
	{Doc{"ino32_t", onOff, "inode numbers that fit into 32 bits"}, maybe, boolean(func(o *Options) *bool { return &o.Ino32 })},
	{Doc{"max_read", "bytes", "the largest read request"}, always, number(func(o *Options) *uint32 { return &o.MaxRead })},
	{Doc{"max_write", "bytes", "the largest write request"}, always, number(func(o *Options) *uint32 { return &o.MaxWrite })},
	{Doc{"debug", onOff, "log every request"}, maybe, boolean(func(o *Options) *bool { return &o.Debug })},
	{Doc{"logfile", "a file", "where the server reports once it is in the background (default: syslog)"}, always, pathname(func(o *Options) *string { return &o.LogFile })},
	{Doc{"plugins", "nothing: layer plugins are not supported", ""}, always, refusePlugins},

	{Doc{"allow_other", onOff, "let other users in"}, maybe, boolean(func(o *Options) *bool { return &o.AllowOther })},
	{Doc{"allow_root", onOff, "let root in"}, maybe, boolean(func(o *Options) *bool { return &o.AllowRoot })},
	{Doc{"auto_unmount", onOff, "unmount when the server dies"}, maybe, boolean(func(o *Options) *bool { return &o.AutoUnmount })},
	{Doc{"default_permissions", onOff, "let the kernel check permissions"}, maybe, flag(func(o *Options) *Toggle { return &o.DefaultPermissions })},
	{Doc{"fsname", "a name", "the source shown in the mount table"}, always, text(func(o *Options) *string { return &o.FSName })},
	{Doc{"subtype", "a name", `what follows "fuse." in the mount table`}, always, text(func(o *Options) *string { return &o.Subtype })},
	{Doc{"ro", "", "read-only"}, nothing, constant(func(o *Options) *bool { return &o.ReadOnly }, true)},
	{Doc{"rw", "", "writable (default)"}, nothing, constant(func(o *Options) *bool { return &o.ReadOnly }, false)},
	{Doc{"suid", "", "honour setuid and setgid bits"}, nothing, constant(func(o *Options) *Toggle { return &o.Suid }, On)},
	{Doc{"nosuid", "", "ignore setuid and setgid bits"}, nothing, constant(func(o *Options) *Toggle { return &o.Suid }, Off)},
	{Doc{"dev", "", "honour device files"}, nothing, constant(func(o *Options) *Toggle { return &o.Dev }, On)},
	{Doc{"nodev", "", "ignore device files"}, nothing, constant(func(o *Options) *Toggle { return &o.Dev }, Off)},
	{Doc{"exec", "", "let programs run (default)"}, nothing, constant(func(o *Options) *Toggle { return &o.Exec }, On)},
	{Doc{"noexec", "", "let no program run"}, nothing, constant(func(o *Options) *Toggle { return &o.Exec }, Off)},
	{Doc{"atime", "", "update access times as the kernel's default is"}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeRel)},
	{Doc{"noatime", "", "never update access times"}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeNever)},
	{Doc{"relatime", "", "update access times at most once a day or after a change"}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeRel)},
	{Doc{"norelatime", "", ""}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeDefault)},
	{Doc{"strictatime", "", "update access times at every read"}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeAlways)},
	{Doc{"nostrictatime", "", ""}, nothing, constant(func(o *Options) *Atime { return &o.Atime }, AtimeDefault)},
	{Doc{"diratime", "", "update access times of directories too (default)"}, nothing, constant(func(o *Options) *bool { return &o.NoDirAtime }, false)},
	{Doc{"nodiratime", "", "never update access times of directories"}, nothing, constant(func(o *Options) *bool { return &o.NoDirAtime }, true)},
	{Doc{"lazytime", "", "keep times in memory for a while"}, nothing, constant(func(o *Options) *bool { return &o.LazyTime }, true)},
	{Doc{"nolazytime", "", ""}, nothing, constant(func(o *Options) *bool { return &o.LazyTime }, false)},
	{Doc{"sync", "", "write everything at once"}, nothing, constant(func(o *Options) *bool { return &o.Sync }, true)},
	{Doc{"async", "", ""}, nothing, constant(func(o *Options) *bool { return &o.Sync }, false)},
	{Doc{"dirsync", "", "write directories at once"}, nothing, constant(func(o *Options) *bool { return &o.DirSync }, true)},
	{Doc{"nosymfollow", "", "follow no symbolic link"}, nothing, constant(func(o *Options) *bool { return &o.NoSymFollow }, true)},
	{Doc{"symfollow", "", ""}, nothing, constant(func(o *Options) *bool { return &o.NoSymFollow }, false)},
	{Doc{"remount", "", ""}, nothing, constant(func(o *Options) *bool { return &o.Remount }, true)},
	{Doc{"private", "", "mounts below this one do not spread"}, nothing, propagation("private")},
	{Doc{"rprivate", "", ""}, nothing, propagation("rprivate")},
	{Doc{"shared", "", ""}, nothing, propagation("shared")},
	{Doc{"rshared", "", ""}, nothing, propagation("rshared")},
	{Doc{"slave", "", ""}, nothing, propagation("slave")},
	{Doc{"rslave", "", ""}, nothing, propagation("rslave")},
	{Doc{"unbindable", "", ""}, nothing, propagation("unbindable")},
	{Doc{"runbindable", "", ""}, nothing, propagation("runbindable")},
}

const (
	mapAccepts = "triples stored:shown:length joined by colons, such as 0:1000:1:1:100000:65536"
	idAccepts  = "a number from 0 to 4294967294"
)

// foreign holds the options that other programs read or that steer details of
// libfuse: known, and without effect here.
var foreign = strings.Fields(`
	async_read atomic_o_trunc attr_timeout ac_attr_timeout auto auto_cache
	big_writes blkdev blksize clone_fd comment congestion_threshold default_context
	defaults defcontext direct_io entry_timeout fast_ino fd fscontext gid group
	group_id hard_remove helper intr intr_signal iversion kernel_cache large_read
	loud mand max_background max_idle_threads max_readahead max_threads modules
	negative_timeout no_remote_flock no_remote_lock no_remote_posix_lock
	no_splice_move no_splice_read no_splice_write noauto noauto_cache nofail noforget
	nogroup noiversion nolock nomand nonempty noowner nopath nosilent nouser nousers
	override_creds nooverride_creds owner readdir_ino readdirplus remember rootcontext
	rootmode setuid silent splice_move splice_read splice_write sync_read threaded
	uid umask use_ino user user_id users`)

// isForeign reports whether an option of that name is known to be meant for
// somebody else, such as mount(8), systemd or libfuse.
func isForeign(name string) bool {
	if strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || strings.HasPrefix(name, "_") {
		return true
	}
	return slices.Contains(foreign, name)
}
