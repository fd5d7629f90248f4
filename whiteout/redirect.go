package whiteout

import "strings"

// RedirectMax is the longest redirect that kernel overlayfs writes, in bytes
// (its module parameter redirect_max). A rename that would need a longer one
// fails with EXDEV. Longer ones are read.
const RedirectMax = 256

// A Redirect tells where the lower part of a renamed directory, or the data
// of a renamed metacopy file, lies in the layers below.
//
// An absolute one is a path from the root of the layers. A relative one is a
// single name, to be looked up in the directory where the object itself lies:
// the object was renamed within it.
type Redirect struct {
	Absolute bool
	Path     []string // one component or more
}

// ParseRedirect reads the value of [Prefix.Redirect].
//
// It refuses what the kernel refuses when it reads one (ovl_get_redirect_xattr,
// EINVAL): an empty value, empty components, which includes a final slash, and
// slashes in a relative one. It also refuses "." and "..", which the kernel
// refuses a step later (lookup_one, EACCES), and NUL, where the kernel would
// take what stands before it.
//
// Components may be longer than a directory entry can be; such a one is merely
// never found.
func ParseRedirect(value []byte) (Redirect, error) {
	var r Redirect
	rest, absolute := strings.CutPrefix(string(value), "/")
	r.Absolute = absolute
	if absolute {
		r.Path = strings.Split(rest, "/")
	} else {
		r.Path = []string{rest}
	}
	if reason := r.flaw(); reason != "" {
		return Redirect{}, malformed("redirect", value, "%s", reason)
	}
	return r, nil
}

// flaw returns why no redirect can look like this, "" if one can.
func (r Redirect) flaw() string {
	if len(r.Path) == 0 {
		return "empty path"
	}
	if !r.Absolute && len(r.Path) > 1 {
		return "a relative redirect is a single name"
	}
	for _, name := range r.Path {
		switch {
		case name == "":
			return "empty component"
		case name == "." || name == "..":
			return "component " + name
		case strings.IndexByte(name, 0) >= 0:
			return "NUL byte"
		case strings.IndexByte(name, '/') >= 0:
			return "a relative redirect is a single name"
		}
	}
	return ""
}

// Valid reports whether Encode gives a value that [ParseRedirect] accepts.
func (r Redirect) Valid() bool { return r.flaw() == "" }

// Encode returns the value to store. Only a [Redirect.Valid] one makes sense
// to the kernel, and none longer than [RedirectMax] should be written.
func (r Redirect) Encode() string {
	path := strings.Join(r.Path, "/")
	if r.Absolute {
		return "/" + path
	}
	return path
}

func (r Redirect) String() string { return r.Encode() }
