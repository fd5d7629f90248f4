//go:build integration

package kernel

import (
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// A keptDifference is one that lamina has on purpose, or that the kernel's FUSE
// side makes.
type keptDifference struct {
	what, why string
	match     func(d *difference) bool
	// ends tells that the trees go on to differ, so that the run must end.
	ends bool
}

// kept lists all of them.
var kept = []keptDifference{
	{what: "whiteouts that hide nothing are not listed",
		why: "the kernel lists a directory of one layer as it lies there, with whiteouts that it then does not find",
		match: func(d *difference) bool {
			return d.field == "ghosts" && d.lamina == "" && !strings.Contains(d.kernel, "error")
		}},
	{what: "metacopy files show the blocks that their size would take",
		why:   "looking at the data's own count would cost a system call per stat",
		match: func(d *difference) bool { return d.field == "blocks" && d.config.metacopy }},
	{what: "d_ino is st_ino over several filesystems too",
		why:   "POSIX; the kernel composes numbers only if it finds free bits",
		match: func(d *difference) bool { return d.field == "d_ino" && d.lamina == "" }},
	{what: "d_ino after the kernel was there, rootless",
		why: "in a user namespace it cannot read origins, and takes the impure mark from directories that hold files with one",
		match: func(d *difference) bool {
			return rootless && d.field == "d_ino" && strings.HasPrefix(d.after, "written by")
		}},
	{what: "d_ino where no origin can be noted",
		why: "aufs marks have none, and user.overlay.origin is for files and directories only: such a copy shows the lower number while it is in use, and is listed with its own",
		match: func(d *difference) bool {
			return d.field == "d_ino" && (d.config.upperFormat == formatAufs || rootless && d.kind != "file" && d.kind != "dir")
		}},
	{what: "the names of trusted.* are listed for everybody",
		why: "FUSE does not say who asks; reading them stays root's",
		match: func(d *difference) bool {
			return d.op.Do == "listxattr" && d.op.As != 0 && strings.Contains(d.lamina, "trusted.")
		}},
	{what: "changing a file that has no name left",
		why: "with an index the kernel refuses some with EEXIST, because the copy has no name to be known by, and with ENOENT where the directory has gone too",
		match: func(d *difference) bool {
			refused := func(s string) bool { return strings.Contains(s, "EEXIST") || s == "ENOENT" }
			return refused(d.kernel) && !refused(d.lamina) && unnamed(d)
		}},
	{what: "removing the ACL that a file opened for writing does not have",
		why: "as ext4 the kernel says ok of a file in the upper, where opening has brought it, and ENODATA of others",
		match: func(d *difference) bool {
			return strings.HasSuffix(d.op.Do, "removexattr") && strings.HasPrefix(d.op.Name, "system.posix_acl_") && d.kernel == "ok" && d.lamina == "ENODATA"
		}},
	{what: "what was moved away comes back with its layer",
		why: "kernel overlayfs knows a file by the one that it was copied from, and where that is shown again takes both for one, or for stale",
		match: func(d *difference) bool {
			return d.config.live && (d.aliased || strings.Contains(d.kernel, "stale file handle"))
		}, ends: true},
	{what: "a file without a name has no links",
		why: "POSIX; the kernel shows the count of a lower file that was not copied up",
		match: func(d *difference) bool {
			return unnamed(d) && strings.ReplaceAll(d.kernel, "nlink 1", "nlink 0") == d.lamina
		}},
	{what: "without an index, a file leaves its other names when it is changed",
		why: "the kernel copies up when a file is opened for writing, lamina when it is written to; st_nlink differs between the two",
		match: func(d *difference) bool {
			return !d.config.index && nlink.ReplaceAllString(d.kernel, "") == nlink.ReplaceAllString(d.lamina, "")
		}},
	{what: "xattr whiteouts that hide nothing do not fill a directory",
		why: "the kernel looks for them only in directories that something lies below, and cannot remove the others",
		match: func(d *difference) bool {
			return d.kernel == "ENOTEMPTY" && d.lamina == "ok" && d.config.lowerFormat == formatXattr
		}, ends: true},
	{what: "without write-back root's write to a file with capabilities makes it plain",
		why: "the kernel's FUSE side tells it in the same way as chown(-1, -1)",
		match: func(d *difference) bool {
			return d.op.As == 0 && !d.config.writeBack() && d.kernel != d.lamina && suid.ReplaceAllString(d.kernel, "file 0$1") == d.lamina
		}, ends: true},
	{what: "redirects longer than 256 bytes",
		why:   "the kernel gives up with EXDEV (fs/overlayfs/dir.c, ovl_set_redirect) and has no trouble reading them",
		match: func(d *difference) bool { return d.kernel == "EXDEV" && len(d.op.A)+len(d.op.B) > 200 }, ends: true},
	{what: "under write-back the kernel keeps the mtime of what it gathers",
		why: "and tells the server neither of a truncation to the same size nor of a write within the tick of the last change; what is stored is the time of the server's write, moments later",
		match: func(d *difference) bool {
			return d.field == "mtime" && strings.HasPrefix(d.after, "written by lamina") && d.kernel > d.lamina && d.config.writeBack()
		}},
	{what: "removing one name of a lower file copies nothing up",
		why: "so the kernel, which notes the link count in the copy, counts names that lamina has removed",
		match: func(d *difference) bool {
			return d.field == "nlink" && strings.Contains(d.after, "by lamina") && d.kernel > d.lamina
		}},
	{what: "the mtime survives when the data of a metacopy file arrives",
		why:   "opening for writing changes no time (POSIX); the kernel's late copy of the data does",
		match: func(d *difference) bool { return d.field == "mtime" && d.config.metacopy && d.kernel > d.lamina }},
}

var suid = regexp.MustCompile(`\bfile [2467](\d{3})\b`)

var nlink = regexp.MustCompile(` nlink \d+`)

// unnamed reports whether the operation may have been on a descriptor of an
// unlinked file.
func unnamed(d *difference) bool { return d.op.Do == "unlinked" || verbs[d.op.Do].onSlot }

func keptRow(d *difference) *keptDifference {
	for i := range kept {
		if kept[i].match(d) {
			return &kept[i]
		}
	}
	return nil
}

// forKernel returns the operation that makes the kernel do what lamina does.
//
// RENAME_WHITEOUT is refused by kernel overlayfs, which needs it for itself;
// what a union shows after it is what a plain rename leaves. Ranges cannot be
// collapsed or inserted through FUSE: the kernel refuses before lamina is asked.
func forKernel(o op) op {
	switch o.Do {
	case "rename flags":
		o.Flags &^= unix.RENAME_WHITEOUT
	case "fallocate":
		if o.Flags&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
			o.Flags = unix.FALLOC_FL_COLLAPSE_RANGE | 1<<30 // unknown
		}
	}
	return o
}
