package whiteout

import (
	"archive/tar"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMarksOfANestedOverlayAreNotTakenForOurs(t *testing.T) {
	for _, c := range []struct {
		p       Prefix
		stored  string
		private bool
		shown   string // "" for hidden
	}{
		{Trusted, "trusted.overlay.opaque", true, ""},
		{Trusted, "trusted.overlay.overlay.opaque", false, "trusted.overlay.opaque"},
		{Trusted, "trusted.overlay.overlay.overlay.opaque", false, "trusted.overlay.overlay.opaque"},
		{Trusted, "trusted.overlay.", true, ""},
		{Trusted, "trusted.overlay", false, "trusted.overlay"},
		{Trusted, "trusted.overlayfoo", false, "trusted.overlayfoo"},
		{Trusted, "user.overlay.opaque", false, "user.overlay.opaque"},
		{Trusted, "security.capability", false, "security.capability"},
		// The kernel compares one byte less for trusted: not private, and so
		// copied up, though nobody can name it.
		{Trusted, "trusted.overlay.overlay", false, ""},
		{Trusted, "trusted.overlay.overlayfoo", false, ""},
		{User, "user.overlay.overlayfoo", true, ""},
		{User, "user.overlay.opaque", true, ""},
		{User, "user.overlay.overlay.a", false, "user.overlay.a"},
		{User, "trusted.overlay.opaque", false, "trusted.overlay.opaque"},
	} {
		if got := c.p.Private(c.stored); got != c.private {
			t.Errorf("%s: private %v", c.stored, got)
		}
		shown, ok := c.p.Unescape(c.stored)
		if ok != (c.shown != "") || shown != c.shown {
			t.Errorf("%s: shown as %q, %v", c.stored, shown, ok)
		}
		if ok {
			if again, ok := c.p.Escape(shown); !ok || again != c.stored {
				t.Errorf("%s: shown as %s, stored as %s", c.stored, shown, again)
			}
		}
	}
	long := string(User) + strings.Repeat("n", XattrNameMax-len(User)-len(escape))
	if _, ok := User.Escape(long); !ok {
		t.Error("a name that just fits was refused")
	}
	if _, ok := User.Escape(long + "n"); ok {
		t.Error("a name of 256 bytes was accepted")
	}
}

func TestMarkNames(t *testing.T) {
	for got, want := range map[string]string{
		Trusted.Opaque(): "trusted.overlay.opaque", User.Redirect(): "user.overlay.redirect",
		User.Metacopy(): "user.overlay.metacopy", Trusted.Origin(): "trusted.overlay.origin",
		Trusted.Impure(): "trusted.overlay.impure", Trusted.Nlink(): "trusted.overlay.nlink",
		Trusted.Upper(): "trusted.overlay.upper", User.UUID(): "user.overlay.uuid",
		User.Protattr(): "user.overlay.protattr", User.Whiteout(): "user.overlay.whiteout",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestAufsNamesHaveOneMeaning(t *testing.T) {
	for name, want := range map[string]struct {
		mark   Mark
		target string
	}{
		"f":                 {NotMark, ""},
		".wh":               {NotMark, ""},
		"x.wh.f":            {NotMark, ""},
		".wh.f":             {Whiteout, "f"},
		".wh. ":             {Whiteout, " "},
		".wh.....":          {Whiteout, "...."},
		".wh.\xff\xfe":      {Whiteout, "\xff\xfe"},
		".wh..wh":           {Whiteout, ".wh"},
		".wh..wh..opq":      {OpaqueMarker, ""},
		".wh..wh..opqx":     {Reserved, ""},
		".wh..wh.aufs":      {Reserved, ""},
		".wh..wh.plnk":      {Reserved, ""},
		".wh..wh.orph":      {Reserved, ""},
		".wh..wh.f.0001":    {Reserved, ""},
		".wh..wh.":          {Reserved, ""},
		".wh.":              {Invalid, ""},
		".wh..":             {Invalid, ""},
		".wh...":            {Invalid, ""},
		".wh..opq":          {Whiteout, ".opq"},
		".WH.f":             {NotMark, ""},
		".wh.lib64.so.1.wh": {Whiteout, "lib64.so.1.wh"},
	} {
		mark, target := ParseAufsName(name)
		if mark != want.mark || target != want.target {
			t.Errorf("%q: %v %q, want %v %q", name, mark, target, want.mark, want.target)
		}
		if mark == Whiteout {
			if again, err := AufsWhiteoutName(target); err != nil || again != name {
				t.Errorf("%q: back to %q, %v", name, again, err)
			}
		}
	}
}

func TestNameThatCannotBeDeletedIsRefused(t *testing.T) {
	if _, err := AufsWhiteoutName(strings.Repeat("n", 251)); err != nil {
		t.Errorf("251 bytes: %v", err)
	}
	if _, err := AufsWhiteoutName(strings.Repeat("n", 252)); !errors.Is(err, ErrNameTooLong) {
		t.Errorf("252 bytes: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00", ".wh.f", ".wh."} {
		if got, err := AufsWhiteoutName(name); !errors.Is(err, ErrNotRepresentable) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestTarEntriesMeanWhatTheySay(t *testing.T) {
	for _, c := range []struct {
		name string
		flag byte
		mark Mark
		path string // "" for refused
	}{
		{"etc/passwd", tar.TypeReg, NotMark, "etc/passwd"},
		{"./etc/", tar.TypeDir, NotMark, "etc"},
		{"/etc//./x", tar.TypeReg, NotMark, "etc/x"},
		{"./", tar.TypeDir, NotMark, "."},
		{"etc/.wh.passwd", tar.TypeReg, Whiteout, "etc/passwd"},
		{"./.wh.etc", tar.TypeReg, Whiteout, "etc"},
		{"//.wh.etc", tar.TypeReg, Whiteout, "etc"},
		{"etc/.wh.passwd", tar.TypeLink, Whiteout, "etc/passwd"},
		{"etc/.wh..wh..opq", tar.TypeReg, OpaqueMarker, "etc"},
		{".wh..wh..opq", tar.TypeReg, OpaqueMarker, "."},
		{".wh..wh.plnk", tar.TypeDir, Reserved, ".wh..wh.plnk"},
		{".wh..wh.plnk/12.34", tar.TypeReg, Reserved, ".wh..wh.plnk/12.34"},
		{".wh..wh.orph/.wh.f", tar.TypeReg, Reserved, ".wh..wh.orph/.wh.f"},
		{"../.wh.x", tar.TypeReg, Invalid, ""},
		{"a/../.wh.x", tar.TypeReg, Invalid, ""},
		{"a/..", tar.TypeDir, Invalid, ""},
		{"..", tar.TypeDir, Invalid, ""},
		{".wh.", tar.TypeReg, Invalid, ""},
		{"a/.wh..", tar.TypeReg, Invalid, ""},
		{"a/.wh...", tar.TypeReg, Invalid, ""},
		{"a\x00/.wh.x", tar.TypeReg, Invalid, ""},
		{".wh.a/b", tar.TypeReg, Invalid, ""},
		{"a/.wh..wh..opq/.wh.b", tar.TypeReg, Invalid, ""},
		{".wh.d/", tar.TypeDir, Invalid, ""},
		{".wh.l", tar.TypeSymlink, Invalid, ""},
		{".wh.c", tar.TypeChar, Invalid, ""},
		{"pax_global_header/..", tar.TypeXGlobalHeader, NotMark, ""},
	} {
		mark, path, err := ParseTar(&tar.Header{Name: c.name, Typeflag: c.flag})
		if c.mark == Invalid && !errors.Is(err, ErrMalformed) || c.mark != Invalid && err != nil {
			t.Errorf("%q: %v", c.name, err)
		}
		if mark != c.mark || path != c.path {
			t.Errorf("%q: %v %q, want %v %q", c.name, mark, path, c.mark, c.path)
		}
	}
}

func TestTarHeadersRoundTrip(t *testing.T) {
	epoch := time.Unix(0, 0)
	for _, name := range []string{"a", "a/b", "./a/b c"} {
		h, err := WhiteoutHeader(name, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if h.Size != 0 || h.Typeflag != tar.TypeReg || !h.ModTime.Equal(epoch) {
			t.Errorf("%+v is no empty file of the time asked for", h)
		}
		if mark, path, err := ParseTar(h); err != nil || mark != Whiteout || path != strings.TrimPrefix(name, "./") {
			t.Errorf("%q: %v %q, %v", h.Name, mark, path, err)
		}
	}
	for dir, want := range map[string]string{".": ".wh..wh..opq", "": ".wh..wh..opq", "a/b/": "a/b/.wh..wh..opq"} {
		h, err := OpaqueHeader(dir, epoch)
		if err != nil || h.Name != want {
			t.Errorf("%q: %v, %v", dir, h, err)
		}
	}
	for _, name := range []string{".", "", "/", "..", "a/../..", "a/.wh.b", ".wh.a/b", strings.Repeat("n", 252)} {
		if h, err := WhiteoutHeader(name, epoch); err == nil {
			t.Errorf("%q: an entry %q that deletes it", name, h.Name)
		}
	}
	for _, dir := range []string{"..", "a/..", ".wh.a/b"} {
		if h, err := OpaqueHeader(dir, epoch); err == nil {
			t.Errorf("%q: an entry %q that makes it opaque", dir, h.Name)
		}
	}
}
