package mountopt

import "slices"

// Check reports the first contradiction between options, and what a union
// cannot be without. The error is an [Error].
//
// Pairs that the kernel refuses are refused (fs/overlayfs/params.c,
// ovl_fs_params_verify), but only when both were written down: what was left
// open is for the mounter to choose so that it fits.
func (o *Options) Check() error {
	for _, rule := range []func(*Options) error{
		checkLayers, checkFeatures, checkFormat, checkServing,
	} {
		if err := rule(o); err != nil {
			return err
		}
	}
	return nil
}

// CheckServer reports the first option that only kernel overlayfs can honour.
// Ignoring it would break what the user relies on. The error is an [Error].
func (o *Options) CheckServer() error {
	switch {
	case o.Verity == "on" || o.Verity == "require":
		return &Error{Option: "verity", Value: o.Verity, Cause: "the FUSE server does not check digests; use the kernel engine (lamina mount --engine kernel), or leave it out"}
	case o.NFSExport == On:
		return &Error{Option: "nfs_export", Value: "on", Cause: "file handles of a FUSE server do not survive it; use the kernel engine (lamina mount --engine kernel), or leave it out"}
	}
	return nil
}

// unionOnly are the options that say something about layers and what lies in them.
var unionOnly = []string{
	"lowerdir", "upperdir", "workdir", "redirect_dir", "metacopy", "index", "nfs_export", "xino", "verity", "uuid",
	"userxattr", "volatile", "fsync", "xattr_permissions", "size", "inodes", "format", "passthrough", "static_nlink",
	"ino32_t", "remount",
}

// CheckDataset reports the first option that means nothing to a mounted dataset, or
// that nobody knows: unlike for unions, no other program's command lines have to be
// understood. The error is an [Error].
func (o *Options) CheckDataset() error {
	for _, p := range o.params(octalEscape) {
		switch {
		case slices.Contains(unionOnly, p.Name):
			return &Error{Option: p.Name, Value: p.Value, Cause: "means something for unions only; leave it out, the limits of a dataset are its properties"}
		case slices.Contains(o.Unknown, p.Name):
			return &Error{Option: p.Name, Value: p.Value, Cause: "is not known; see the options with: lamina dataset mount --help"}
		}
	}
	return checkServing(o)
}

func checkLayers(o *Options) error {
	switch {
	case len(o.Lower) == 0:
		return &Error{Option: "lowerdir", Cause: "a union needs at least one lower directory; give lowerdir=DIR[:DIR…], the top first"}
	case o.Upper != "" && o.Work == "":
		return &Error{Option: "upperdir", Value: o.Upper, Cause: "a writable mount also needs workdir=DIR, an empty directory on the filesystem of the upper"}
	case o.Upper != "" && o.Upper == o.Work:
		return &Error{Option: "workdir", Value: o.Work, Cause: "it is the upper directory itself; give another directory beside it"}
	}
	return nil
}

func checkFeatures(o *Options) error {
	if o.Metacopy == On {
		if o.RedirectDir == RedirectOff || o.RedirectDir == RedirectNoFollow || o.RedirectDir == RedirectFollow && o.Upper != "" {
			return conflict("metacopy=on", "redirect_dir="+string(o.RedirectDir), "a renamed metacopy file is found only by a redirect")
		}
		if o.NFSExport == On {
			return conflict("metacopy=on", "nfs_export=on", "file handles cannot name a file whose data lies elsewhere")
		}
	}
	if o.NFSExport == On && o.Index == Off && o.Upper != "" {
		return conflict("nfs_export=on", "index=off", "file handles are looked up in the index")
	}
	if o.Verity == "require" && o.Metacopy == Off {
		return conflict("verity=require", "metacopy=off", "digests are kept in metacopy files")
	}
	return nil
}

func checkFormat(o *Options) error {
	switch {
	case o.UserXattr && o.Format == FormatOverlay:
		return conflict("userxattr", "format=overlay", "that format keeps its marks in trusted.overlay.*; take format=overlay-user")
	case o.Format == FormatAufs && o.RedirectDir == RedirectOn:
		return conflict("format=aufs", "redirect_dir=on", "that format has no redirects")
	case o.Format == FormatAufs && o.Metacopy == On:
		return conflict("format=aufs", "metacopy=on", "that format has no metacopy files")
	}
	return nil
}

func checkServing(o *Options) error {
	switch {
	case o.AllowOther && o.AllowRoot:
		return conflict("allow_other", "allow_root", "the first includes the second; give one of them")
	case o.Passthrough == PassthroughOn && o.Writeback != nil && *o.Writeback:
		return conflict("passthrough=on", "writeback=1", "the kernel does not combine them (fuse_init_out.max_stack_depth)")
	}
	return nil
}

func conflict(option, other, why string) error {
	return &Error{Option: option, Cause: "contradicts " + other + ": " + why}
}
