package whiteout

import (
	"archive/tar"
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Every fuzz test below states the two promises of the package comment: no
// bytes make a parser panic or fail without ErrMalformed (or the error of its
// own that it documents), and what was parsed encodes to something that parses
// to the same.

func stable[T any](t *testing.T, value []byte, parse func([]byte) (T, error), encode func(T) ([]byte, error)) {
	t.Helper()
	v, err := parse(value)
	if err != nil {
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrOriginUnknown) {
			t.Errorf("%q: an error of no kind: %v", value, err)
		}
		return
	}
	encoded, err := encode(v)
	if err != nil {
		t.Fatalf("%q: parsed to %+v, which does not encode: %v", value, v, err)
	}
	again, err := parse(encoded)
	if err != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("%q: %+v, then %q: %+v, %v", value, v, encoded, again, err)
	}
}

func always[T any](encode func(T) []byte) func(T) ([]byte, error) {
	return func(v T) ([]byte, error) { return encode(v), nil }
}

func FuzzRedirect(f *testing.F) {
	for _, v := range kernelRedirects {
		f.Add([]byte(v.value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		stable(t, value, ParseRedirect, func(r Redirect) ([]byte, error) {
			for _, name := range r.Path {
				if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
					t.Errorf("%q leads to component %q", value, name)
				}
			}
			return []byte(r.Encode()), nil
		})
	})
}

func FuzzFileHandle(f *testing.F) {
	for _, v := range kernelHandles {
		f.Add(unhex(f, v.value))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		stable(t, value, ParseFileHandle, FileHandle.Encode)
		if h, err := ParseFileHandle(value); err == nil {
			h.Inode()
			if name, err := h.IndexName(); err == nil {
				if byName, err := ParseIndexName(name); err != nil || !reflect.DeepEqual(h, byName) {
					t.Errorf("%x: index name %s: %+v, %v", value, name, byName, err)
				}
			}
		}
	})
}

func FuzzIndexName(f *testing.F) {
	f.Add(kernelHandles[0].value)
	f.Add("#866")
	f.Fuzz(func(t *testing.T, name string) {
		stable(t, []byte(name), func(b []byte) (FileHandle, error) { return ParseIndexName(string(b)) },
			func(h FileHandle) ([]byte, error) {
				index, err := h.IndexName()
				if errors.Is(err, ErrNameTooLong) && len(name) > nameMax {
					t.Skip("longer than any directory entry")
				}
				return []byte(index), err
			})
	})
}

func FuzzMetacopy(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{0, 36, 0, 1}, make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, value []byte) { stable(t, value, ParseMetacopy, Metacopy.Encode) })
}

func FuzzNlink(f *testing.F) {
	f.Add([]byte("U+1"))
	f.Add([]byte("L-0x7f"))
	f.Fuzz(func(t *testing.T, value []byte) { stable(t, value, ParseNlink, always(Nlink.Encode)) })
}

func FuzzOpaque(f *testing.F) {
	f.Add([]byte("y"))
	f.Fuzz(func(t *testing.T, value []byte) { stable(t, value, ParseOpaque, always(OpaqueMark.Encode)) })
}

func FuzzProtattr(f *testing.F) {
	f.Add([]byte("ai"))
	f.Fuzz(func(t *testing.T, value []byte) { stable(t, value, ParseProtattr, always(Protattr.Encode)) })
}

func FuzzOverrideStat(f *testing.F) {
	f.Add([]byte("0:0:755:block-8-0"))
	f.Add([]byte("-1:0:104755"))
	f.Fuzz(func(t *testing.T, value []byte) { stable(t, value, ParseOverrideStat, always(OverrideStat.Encode)) })
}

func FuzzXattrNames(f *testing.F) {
	f.Add("trusted.overlay.overlay.opaque")
	f.Add("user.containers.override_security.capability")
	f.Fuzz(func(t *testing.T, name string) {
		for _, p := range []Prefix{Trusted, User} {
			if stored, ok := p.Escape(name); ok {
				if p.Private(stored) {
					t.Errorf("%q: a user wrote the mark %q", name, stored)
				}
				if shown, ok := p.Unescape(stored); !ok || shown != name {
					t.Errorf("%q: stored as %q, shown as %q", name, stored, shown)
				}
			}
		}
		if stored, ok := EscapeOverride(name); ok {
			if shown, ok := UnescapeOverride(stored); !ok || shown != name {
				t.Errorf("%q: stored as %q, shown as %q", name, stored, shown)
			}
		}
	})
}

func FuzzAufsName(f *testing.F) {
	f.Add(".wh.f")
	f.Add(".wh..wh..opq")
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\x00") || len(name) > nameMax {
			t.Skip("not the name of a directory entry")
		}
		if mark, target := ParseAufsName(name); mark == Whiteout {
			if again, err := AufsWhiteoutName(target); err != nil || again != name {
				t.Errorf("%q deletes %q, which %q deletes: %v", name, target, again, err)
			}
		}
		if whiteout, err := AufsWhiteoutName(name); err == nil {
			if mark, target := ParseAufsName(whiteout); mark != Whiteout || target != name || len(whiteout) > nameMax {
				t.Errorf("%q is deleted by %q: %v of %q", name, whiteout, mark, target)
			}
		}
	})
}

func FuzzTarName(f *testing.F) {
	f.Add("etc/.wh.passwd", byte(tar.TypeReg))
	f.Add("./.wh..wh..opq", byte(tar.TypeLink))
	f.Fuzz(func(t *testing.T, name string, flag byte) {
		mark, path, err := ParseTar(&tar.Header{Name: name, Typeflag: flag})
		if err != nil {
			if !errors.Is(err, ErrMalformed) || mark != Invalid || path != "" {
				t.Errorf("%q: %v %q, %v", name, mark, path, err)
			}
			return
		}
		if strings.HasPrefix(path, "/") || strings.Contains("/"+path+"/", "/../") {
			t.Errorf("%q leads out of the layer: %q", name, path)
		}
		var h *tar.Header
		switch mark {
		case Whiteout:
			h, err = WhiteoutHeader(path, time.Time{})
		case OpaqueMarker:
			h, err = OpaqueHeader(path, time.Time{})
		default:
			return
		}
		if err != nil {
			if errors.Is(err, ErrNameTooLong) {
				return // no filesystem could hold it either
			}
			t.Fatalf("%q: %v of %q cannot be written: %v", name, mark, path, err)
		}
		if m, p, err := ParseTar(h); err != nil || m != mark || p != path {
			t.Errorf("%q: %v of %q became %v of %q, %v", name, mark, path, m, p, err)
		}
	})
}

// FuzzConvertDir promises that a conversion which succeeds loses nothing the
// other format can say: there and back again, and there once more, is the same
// as there.
func FuzzConvertDir(f *testing.F) {
	f.Add("f", "d", byte(1), byte(2), byte(Overlay), byte(Aufs), "trusted.overlay.redirect", []byte("/a"))
	f.Add("f", ".wh.f", byte(0), byte(0), byte(OCI), byte(OverlayXattr), "user.a", []byte("y"))
	f.Add("f", "f", byte(3), byte(0), byte(OverlayUser), byte(OCI), "user.overlay.whiteout", []byte{})
	f.Add(".wh..wh..opq", "", byte(0), byte(2), byte(FuseOverlayfs), byte(Overlay), "user.fuseoverlayfs.opaque", []byte("y"))
	f.Fuzz(func(t *testing.T, name1, name2 string, type1, type2, from, to byte, attr string, value []byte) {
		if name1 == name2 || strings.ContainsAny(name1+name2, "/\x00") {
			t.Skip("no directory has that")
		}
		types := []uint32{typeRegular, typeDir, typeChar, typeSymlink}
		node := func(name string, typ byte, x map[string][]byte) Node {
			n := Node{Name: name, Type: types[typ%4], Xattrs: x, Rdev: uint64(typ / 4 % 2)}
			if name == "" {
				n.Type, n.Rdev = typeDir, 0
			}
			return n
		}
		nodes := []Node{node(name1, type1, map[string][]byte{attr: bytes.Clone(value)}), node(name2, type2, nil)}
		a, b := Format(from%byte(FuseOverlayfs+1)), Format(to%byte(FuseOverlayfs+1))
		there, err := ConvertDir(a, b, nodes)
		if err != nil {
			for _, kind := range []error{ErrMalformed, ErrNotRepresentable, ErrNameTooLong} {
				if errors.Is(err, kind) {
					return
				}
			}
			t.Fatalf("an error of no kind: %v", err)
		}
		for _, n := range there {
			if n.Name != "" && n.Type == typeDir && n.Xattrs != nil {
				return // half of what is known of it; see ConvertDir
			}
		}
		back, err := ConvertDir(b, a, there)
		if err != nil {
			return // what a plain file says in one format can be a mark in the other
		}
		again, err := ConvertDir(a, b, back)
		if err != nil || !sameNodes(there, again) {
			t.Errorf("%v to %v of %+v:\nthere %+v\n back %+v\nagain %+v, %v", a, b, nodes, there, back, again, err)
		}
	})
}
