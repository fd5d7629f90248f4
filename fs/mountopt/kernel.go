package mountopt

import (
	"fmt"
	"slices"
)

// KernelMaxLayers is how many lowers kernel overlayfs stacks at most
// (fs/overlayfs/params.h, OVL_MAX_STACK), data-only ones included.
const KernelMaxLayers = 500

// kernelParams holds the options that kernel overlayfs has itself. Those of
// every mount (ro, nosuid, noatime, …) are flags of the system call instead.
var kernelParams = []string{
	"redirect_dir", "metacopy", "index", "nfs_export", "xino", "verity", "uuid", "userxattr", "volatile", "context",
}

// KernelParams returns the options for kernel overlayfs, one at a time as
// fsconfig(2) takes them: each lower by itself, unescaped; upper and work with
// the escapes that the kernel removes.
func (o *Options) KernelParams() []Param {
	l := &paramList{esc: escape}
	for _, dir := range o.Lower {
		l.word("lowerdir+", dir)
	}
	for _, dir := range o.DataOnly {
		l.word("datadir+", dir)
	}
	if o.Upper != "" {
		l.word("upperdir", escape(o.Upper))
		l.word("workdir", escape(o.Work))
	}
	return append(l.list, o.kernelFeatures()...)
}

// Render returns the same options as one string for mount(2). The kernel takes
// no more than a page of it: use fsconfig(2) and KernelParams beyond that.
func (o *Options) Render() string {
	layers := Options{Lower: o.Lower, DataOnly: o.DataOnly, Upper: o.Upper, Work: o.Work, Fsync: true}
	if o.Upper == "" {
		layers.Work = ""
	}
	return join(append(layers.params(escape), o.kernelFeatures()...))
}

func (o *Options) kernelFeatures() []Param {
	features := *o
	features.UserXattr = o.UserXattr || o.Format == FormatOverlayUser
	return slices.DeleteFunc(features.params(escape), func(p Param) bool {
		return !slices.Contains(kernelParams, p.Name)
	})
}

// KernelObstacles returns, one sentence each, why kernel overlayfs cannot
// honour these options. None means that it can, as far as options tell: the
// filesystems below and the rights of the user decide the rest.
func (o *Options) KernelObstacles() []string {
	var obstacles []string
	for _, o := range []struct {
		wanted bool
		name   string
	}{
		{len(o.UIDMap) > 0, "uidmapping"},
		{len(o.GIDMap) > 0, "gidmapping"},
		{o.SquashToRoot, "squash_to_root"},
		{o.SquashUID != nil, "squash_to_uid"},
		{o.SquashGID != nil, "squash_to_gid"},
		{o.XattrPermissions != 0, "xattr_permissions"},
		{o.StaticNlink, "static_nlink"},
		{o.NoXattrs, "noxattrs"},
		{o.NoACL, "noacl"},
		{o.Ino32, "ino32_t"},
		{o.Timeout != nil, "timeout"},
		{o.Writeback != nil, "writeback"},
		{o.Passthrough == PassthroughOn, "passthrough"},
		{o.Size != 0, "size"},
		{o.Inodes != 0, "inodes"},
		{o.Format == FormatXattr || o.Format == FormatAufs, "format=" + string(o.Format)},
		{!o.Fsync && !o.Volatile, "fsync=0"},
		{o.MaxRead != 0, "max_read"},
		{o.MaxWrite != 0, "max_write"},
		{o.Debug, "debug"},
		{o.LogFile != "", "logfile"},
		{o.AllowRoot, "allow_root"},
		{o.AutoUnmount, "auto_unmount"},
		{o.DefaultPermissions == Off, "default_permissions=off"},
		{o.Subtype != "", "subtype"},
	} {
		if o.wanted {
			obstacles = append(obstacles, fmt.Sprintf("kernel overlayfs has no option %s", o.name))
		}
	}
	for _, unknown := range o.Unknown {
		obstacles = append(obstacles, fmt.Sprintf("kernel overlayfs would refuse the unknown option %s", unknown))
	}
	if o.UserXattr || o.Format == FormatOverlayUser {
		if o.RedirectDir == RedirectOn || o.RedirectDir == RedirectFollow {
			obstacles = append(obstacles, "kernel overlayfs refuses redirect_dir="+string(o.RedirectDir)+" together with userxattr")
		}
		if o.Metacopy == On {
			obstacles = append(obstacles, "kernel overlayfs refuses metacopy=on together with userxattr")
		}
	}
	if n := len(o.Lower) + len(o.DataOnly); n > KernelMaxLayers {
		obstacles = append(obstacles, fmt.Sprintf("kernel overlayfs stacks at most %d lowers, not %d", KernelMaxLayers, n))
	}
	return obstacles
}
