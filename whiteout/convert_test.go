package whiteout

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

type xattrs = map[string][]byte

func file(name string, x xattrs) Node { return Node{Name: name, Type: typeRegular, Size: 5, Xattrs: x} }
func mark(name string, x xattrs) Node { return Node{Name: name, Type: typeRegular, Xattrs: x} }
func self(x xattrs) Node              { return Node{Type: typeDir, Xattrs: x} }
func subdir(name string) Node         { return Node{Name: name, Type: typeDir} }
func null(name string) Node           { return Node{Name: name, Type: typeChar} }

var yes, none = []byte("y"), []byte{}

// written is one directory as each format writes it: a file, a subdirectory,
// and a deleted name.
var written = map[Format][]Node{
	Overlay:          {file("f", xattrs{"user.a": yes}), null("gone"), subdir("d")},
	OverlayUser:      {file("f", xattrs{"user.a": yes}), null("gone"), subdir("d")},
	OverlayXattr:     {self(xattrs{"trusted.overlay.opaque": []byte("x")}), file("f", xattrs{"user.a": yes}), mark("gone", xattrs{"trusted.overlay.whiteout": none}), subdir("d")},
	OverlayUserXattr: {self(xattrs{"user.overlay.opaque": []byte("x")}), file("f", xattrs{"user.a": yes}), mark("gone", xattrs{"user.overlay.whiteout": none}), subdir("d")},
	Aufs:             {file("f", xattrs{"user.a": yes}), mark(".wh.gone", nil), subdir("d")},
	OCI:              {file("f", xattrs{"user.a": yes}), mark(".wh.gone", nil), subdir("d")},
}

// A directory's xattrs are converted once, where it is the directory itself.
func TestXattrsOfASubdirectoryAreLeftToItsOwnConversion(t *testing.T) {
	d := Node{Name: "d", Type: typeDir, Xattrs: xattrs{"trusted.overlay.opaque": yes, "trusted.overlay.redirect": []byte("/a")}}
	for from := range written {
		if got := mustConvert(t, from, OCI, []Node{d}); !sameNodes(got, []Node{subdir("d")}) {
			t.Errorf("%v: %+v", from, got)
		}
	}
}

// opaqueDir is a directory that hides all that lies below it.
var opaqueDir = map[Format][]Node{
	Overlay:          {self(xattrs{"trusted.overlay.opaque": yes}), file("f", nil)},
	OverlayUser:      {self(xattrs{"user.overlay.opaque": yes}), file("f", nil)},
	OverlayXattr:     {self(xattrs{"trusted.overlay.opaque": yes}), file("f", nil)},
	OverlayUserXattr: {self(xattrs{"user.overlay.opaque": yes}), file("f", nil)},
	Aufs:             {mark(AufsOpaque, nil), file("f", nil)},
	OCI:              {mark(AufsOpaque, nil), file("f", nil)},
}

func mustConvert(t *testing.T, from, to Format, nodes []Node) []Node {
	t.Helper()
	got, err := ConvertDir(from, to, nodes)
	if err != nil {
		t.Fatalf("%v to %v: %v", from, to, err)
	}
	return got
}

// sameNodes treats a bare self node as none: it says nothing.
func sameNodes(a, b []Node) bool {
	bare := func(n Node) bool { return n.Equal(Node{Type: typeDir}) }
	a, b = slices.DeleteFunc(slices.Clone(a), bare), slices.DeleteFunc(slices.Clone(b), bare)
	return slices.EqualFunc(a, b, Node.Equal)
}

func TestEveryFormatConvertsIntoEveryOther(t *testing.T) {
	for _, vectors := range []map[Format][]Node{written, opaqueDir} {
		for from, nodes := range vectors {
			for to, want := range vectors {
				if got := mustConvert(t, from, to, nodes); !sameNodes(got, want) {
					t.Errorf("%v to %v:\n got %+v\nwant %+v", from, to, got, want)
				}
			}
		}
	}
}

func TestFuseOverlayfsLayersAreReadWhateverTheirAge(t *testing.T) {
	stat := []byte("0:0:755:dir")
	for name, c := range map[string]struct{ nodes, want []Node }{
		"device": {[]Node{null("gone")}, written[Overlay][1:2]},
		"file":   {[]Node{mark(".wh.gone", nil)}, written[Overlay][1:2]},
		"kernel xattr": {[]Node{self(xattrs{"trusted.overlay.opaque": yes})},
			[]Node{self(xattrs{"trusted.overlay.opaque": yes})}},
		"user xattr": {[]Node{self(xattrs{"user.overlay.opaque": yes})},
			[]Node{self(xattrs{"trusted.overlay.opaque": yes})}},
		"own xattr": {[]Node{self(xattrs{FuseOverlayfsOpaque: yes, FuseOverlayfsOrigin: []byte("d\x00")})},
			[]Node{self(xattrs{"trusted.overlay.opaque": yes})}},
		"file and xattr": {[]Node{self(xattrs{FuseOverlayfsOpaque: yes}), mark(AufsOpaque, nil)},
			[]Node{self(xattrs{"trusted.overlay.opaque": yes})}},
		"the first xattr says no": {[]Node{self(xattrs{"trusted.overlay.opaque": []byte("n"), FuseOverlayfsOpaque: yes})}, nil},
		"stored owner": {[]Node{self(xattrs{OverrideStatContainers: stat, OverrideStatUser: stat})},
			[]Node{self(xattrs{OverrideStatContainers: stat, OverrideStatUser: stat})}},
	} {
		if got := mustConvert(t, FuseOverlayfs, Overlay, c.nodes); !sameNodes(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := ConvertDir(Overlay, FuseOverlayfs, written[Overlay]); !errors.Is(err, ErrNotRepresentable) {
		t.Errorf("a format that can only be read was written: %v", err)
	}
}

func TestWhatAFormatCannotSayIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		from, to Format
		node     Node
		want     error
	}{
		"aufs has no redirects":           {Overlay, Aufs, self(xattrs{"trusted.overlay.redirect": []byte("/a")}), ErrNotRepresentable},
		"aufs has no metacopy":            {Overlay, OCI, file("f", xattrs{"trusted.overlay.metacopy": none}), ErrNotRepresentable},
		"aufs has no chattr":              {Overlay, Aufs, file("f", xattrs{"trusted.overlay.protattr": []byte("i")}), ErrNotRepresentable},
		"user.* of a symlink":             {Overlay, OverlayUser, Node{Name: "l", Type: typeSymlink, Xattrs: xattrs{"trusted.overlay.protattr": []byte("i")}}, ErrNotRepresentable},
		"a file named like a mark":        {Overlay, OCI, file(".wh.f", nil), ErrNotRepresentable},
		"deleting a file named so":        {Overlay, Aufs, null(".wh.f"), ErrNotRepresentable},
		"deleting a long name":            {Overlay, Aufs, null(strings.Repeat("n", 252)), ErrNameTooLong},
		"a device that is a mark":         {Aufs, Overlay, null("dev"), ErrNotRepresentable},
		"an xattr name that grows":        {Aufs, Overlay, file("f", xattrs{"trusted.overlay." + strings.Repeat("n", 235): none}), ErrNotRepresentable},
		"an unknown mark":                 {Overlay, OverlayUser, file("f", xattrs{"trusted.overlay.future": none}), ErrMalformed},
		"a whiteout of ..":                {OCI, Overlay, mark(".wh...", nil), ErrMalformed},
		"a leftover of aufs":              {Aufs, Overlay, mark(".wh..wh.f.0001", nil), ErrMalformed},
		"a redirect out of the layer":     {Overlay, OverlayUser, self(xattrs{"trusted.overlay.redirect": []byte("..")}), ErrMalformed},
		"a metacopy of a later version":   {Overlay, OverlayUser, file("f", xattrs{"trusted.overlay.metacopy": []byte{1, 4, 0, 0}}), ErrMalformed},
		"a format that does not exist":    {Overlay, Format(99), file("f", nil), ErrNotRepresentable},
		"chattr flags of unknown meaning": {Overlay, OverlayUser, file("f", xattrs{"trusted.overlay.protattr": []byte("z")}), ErrMalformed},
	} {
		got, err := ConvertDir(c.from, c.to, []Node{c.node})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, c.want)
		}
	}
	if _, err := ConvertDir(Format(-1), Overlay, []Node{file("f", nil)}); err == nil {
		t.Error("read a format that does not exist")
	}
}

func TestOverlayMarksMoveBetweenNamespaces(t *testing.T) {
	trusted := []Node{
		self(xattrs{"trusted.overlay.redirect": []byte("/a/b"), "trusted.overlay.origin": none, "trusted.overlay.overlay.opaque": yes}),
		file("f", xattrs{"trusted.overlay.metacopy": none, "trusted.overlay.redirect": []byte("g"), "trusted.overlay.nlink": []byte("U+1")}),
	}
	user := []Node{
		self(xattrs{"user.overlay.redirect": []byte("/a/b"), "user.overlay.origin": none, "trusted.overlay.opaque": yes}),
		file("f", xattrs{"user.overlay.metacopy": none, "user.overlay.redirect": []byte("g"), "user.overlay.nlink": []byte("U+1")}),
	}
	if got := mustConvert(t, Overlay, OverlayUser, trusted); !sameNodes(got, user) {
		t.Errorf("to user: %+v", got)
	}
	if got := mustConvert(t, OverlayUser, Overlay, user); !sameNodes(got, trusted) {
		t.Errorf("to trusted: %+v", got)
	}
}

func TestBookkeepingDoesNotStopAConversion(t *testing.T) {
	nodes := []Node{
		self(xattrs{"trusted.overlay.impure": yes, "trusted.overlay.uuid": make([]byte, 16), "user.a": yes}),
		// A redirect stays behind when a metacopy gets its data.
		file("f", xattrs{"trusted.overlay.origin": none, "trusted.overlay.redirect": []byte("../old")}),
	}
	want := []Node{self(xattrs{"user.a": yes}), file("f", nil)}
	if got := mustConvert(t, Overlay, OCI, nodes); !sameNodes(got, want) {
		t.Errorf("got %+v", got)
	}
	plumbing := []Node{mark(AufsBase, nil), subdir(AufsPlinkDir), subdir(AufsOrphDir), file("f", nil)}
	if got := mustConvert(t, Aufs, Overlay, plumbing); !sameNodes(got, want[1:]) {
		t.Errorf("got %+v", got)
	}
}

func TestWhiteoutBesideItsNameKeepsItsMeaning(t *testing.T) {
	nodes := []Node{mark(".wh.d", nil), subdir("d"), mark(".wh.f", nil), file("f", nil)}
	replaced := Node{Name: "d", Type: typeDir, Xattrs: xattrs{"user.overlay.opaque": yes}}
	if got := mustConvert(t, OCI, OverlayUser, nodes); !sameNodes(got, []Node{replaced, file("f", nil)}) {
		t.Errorf("overlay: %+v", got)
	}
	if got := mustConvert(t, OCI, OCI, nodes); !sameNodes(got, []Node{nodes[0], nodes[1], nodes[3]}) {
		t.Errorf("oci: %+v", got)
	}
	if _, err := ConvertDir(OCI, Aufs, nodes); !errors.Is(err, ErrNotRepresentable) {
		t.Errorf("aufs: %v", err)
	}
	if _, err := ConvertDir(Aufs, Overlay, nodes); !errors.Is(err, ErrMalformed) {
		t.Errorf("from aufs: %v", err)
	}
	inOpaque := append([]Node{mark(AufsOpaque, nil), mark(".wh.x", nil)}, nodes...)
	want := []Node{self(xattrs{"trusted.overlay.opaque": yes}), subdir("d"), file("f", nil)}
	if got := mustConvert(t, OCI, OverlayXattr, inOpaque); !sameNodes(got, want) {
		t.Errorf("opaque: %+v", got)
	}
}

func TestEmptyFileIsAWhiteoutOnlyWithItsMark(t *testing.T) {
	nodes := []Node{mark("empty", nil), file("full", xattrs{"trusted.overlay.whiteout": none})}
	want := []Node{mark("empty", nil), file("full", nil)}
	if got := mustConvert(t, Overlay, OCI, nodes); !sameNodes(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestFormatNames(t *testing.T) {
	for f := Overlay; f <= FuseOverlayfs; f++ {
		if got, err := ParseFormat(f.String()); err != nil || got != f {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	if _, err := ParseFormat("unionfs"); err == nil || !strings.Contains(err.Error(), "overlay-user") {
		t.Errorf("the error does not say what is accepted: %v", err)
	}
}
