package mountopt

import (
	"path"
	"strconv"
	"strings"
)

// A Param is one option as it is handed to a kernel or printed. A plain word
// has no value.
type Param struct {
	Name, Value string
}

// String returns the option as it stands between two commas.
func (p Param) String() string {
	if p.Value == "" {
		return p.Name
	}
	return p.Name + "=" + p.Value
}

// String returns all options that were set, in a form that [Parse] reads back
// to the same Options.
func (o *Options) String() string { return join(o.params(octalEscape)) }

// Map returns the same options by name, with values unescaped except in lists.
func (o *Options) Map() map[string]string {
	m := make(map[string]string)
	for _, p := range o.params(func(s string) string { return s }) {
		if p.Value == "" {
			p.Value = "on"
		}
		m[p.Name] = p.Value
	}
	return m
}

// Absolute prefixes all relative paths with dir. They are not cleaned: a ".."
// behind a symbolic link means the parent of where the link leads.
func (o *Options) Absolute(dir string) {
	abs := func(p *string) {
		if *p != "" && !path.IsAbs(*p) {
			*p = strings.TrimSuffix(dir, "/") + "/" + *p
		}
	}
	for i := range o.Lower {
		abs(&o.Lower[i])
	}
	for i := range o.DataOnly {
		abs(&o.DataOnly[i])
	}
	abs(&o.Upper)
	abs(&o.Work)
	abs(&o.LogFile)
}

func join(params []Param) string {
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// octalEscape writes the three special characters so that no round of
// unescaping can take them for anything else.
func octalEscape(s string) string { return octalEscaper.Replace(s) }

var octalEscaper = strings.NewReplacer(`\`, `\134`, `,`, `\054`, `:`, `\072`)

// params lists what was set, in the order of the manual.
func (o *Options) params(esc func(string) string) []Param {
	l := &paramList{esc: esc}
	l.layers(o)
	l.word("redirect_dir", string(o.RedirectDir))
	l.word("metacopy", string(o.Metacopy))
	l.word("index", string(o.Index))
	l.word("nfs_export", string(o.NFSExport))
	l.word("xino", string(o.Xino))
	l.word("verity", o.Verity)
	l.word("uuid", o.UUID)
	l.flag("userxattr", o.UserXattr)
	l.flag("volatile", o.Volatile)
	if !o.Fsync {
		l.word("fsync", "0")
	}
	l.context(o.Context)

	l.idMap("uidmapping", o.UIDMap)
	l.idMap("gidmapping", o.GIDMap)
	l.flag("squash_to_root", o.SquashToRoot)
	l.id("squash_to_uid", o.SquashUID)
	l.id("squash_to_gid", o.SquashGID)
	l.number("xattr_permissions", uint64(o.XattrPermissions))

	l.number("size", o.Size)
	l.number("inodes", o.Inodes)
	l.word("format", string(o.Format))
	l.word("passthrough", string(o.Passthrough))
	if o.Writeback != nil {
		l.word("writeback", string(toggle(*o.Writeback)))
	}
	if o.Timeout != nil {
		l.word("timeout", strconv.FormatFloat(*o.Timeout, 'f', -1, 64))
	}
	l.flag("static_nlink", o.StaticNlink)
	l.flag("noxattrs", o.NoXattrs)
	l.flag("noacl", o.NoACL)
	l.flag("ino32_t", o.Ino32)
	l.number("max_read", uint64(o.MaxRead))
	l.number("max_write", uint64(o.MaxWrite))
	l.flag("debug", o.Debug)
	l.word("logfile", esc(o.LogFile))
	l.mounting(o)
	for _, unknown := range o.Unknown {
		l.flag(unknown, true)
	}
	return l.list
}

type paramList struct {
	esc  func(string) string
	list []Param
}

func (l *paramList) layers(o *Options) {
	var lower strings.Builder
	for i, dir := range o.Lower {
		if i > 0 {
			lower.WriteByte(':')
		}
		lower.WriteString(l.esc(dir))
	}
	for _, dir := range o.DataOnly {
		lower.WriteString("::" + l.esc(dir))
	}
	l.word("lowerdir", lower.String())
	l.word("upperdir", l.esc(o.Upper))
	l.word("workdir", l.esc(o.Work))
}

func (l *paramList) mounting(o *Options) {
	l.flag("allow_other", o.AllowOther)
	l.flag("allow_root", o.AllowRoot)
	l.flag("auto_unmount", o.AutoUnmount)
	l.word("default_permissions", string(o.DefaultPermissions))
	l.word("fsname", l.esc(o.FSName))
	l.word("subtype", l.esc(o.Subtype))
	l.flag("ro", o.ReadOnly)
	l.negatable("suid", o.Suid)
	l.negatable("dev", o.Dev)
	l.negatable("exec", o.Exec)
	l.flag(string(o.Atime), o.Atime != AtimeDefault)
	l.flag("nodiratime", o.NoDirAtime)
	l.flag("lazytime", o.LazyTime)
	l.flag("sync", o.Sync)
	l.flag("dirsync", o.DirSync)
	l.flag("nosymfollow", o.NoSymFollow)
	l.flag("remount", o.Remount)
	l.flag(o.Propagation, o.Propagation != "")
}

func (l *paramList) word(name, value string) {
	if value != "" {
		l.list = append(l.list, Param{name, value})
	}
}

func (l *paramList) flag(name string, set bool) {
	if set {
		l.list = append(l.list, Param{Name: name})
	}
}

func (l *paramList) negatable(name string, t Toggle) {
	l.flag(name, t == On)
	l.flag("no"+name, t == Off)
}

func (l *paramList) number(name string, n uint64) {
	if n != 0 {
		l.word(name, strconv.FormatUint(n, 10))
	}
}

func (l *paramList) id(name string, id *uint32) {
	if id != nil {
		l.word(name, strconv.FormatUint(uint64(*id), 10))
	}
}

func (l *paramList) idMap(name string, maps []IDMap) {
	triples := make([]string, len(maps))
	for i, m := range maps {
		triples[i] = m.String()
	}
	l.word(name, strings.Join(triples, ":"))
}

// context is quoted, because that is how the kernel takes a comma in it
// (security/selinux/hooks.c, selinux_sb_eat_lsm_opts). The kernel knows no
// escapes there.
func (l *paramList) context(label string) {
	if strings.Contains(label, ",") {
		label = `"` + label + `"`
	}
	l.word("context", label)
}
