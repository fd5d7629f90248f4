package whiteout

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// The values in this file were written, or judged, by the overlayfs of Linux
// 6.18 on a little-endian machine.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func skipBigEndian(t *testing.T) {
	if flagCPUEndian != 0 {
		t.Skip("the handles were written by a little-endian kernel, this machine is big-endian")
	}
}

// kernelHandles are trusted.overlay.origin and .upper values with what stat(1)
// told of the inode.
var kernelHandles = []struct {
	name  string
	value string
	uuid  string
	typ   uint8
	upper bool
	fs    int64
	ino   uint64
}{
	{"ext4 file", "00fb1d00012afa14fa813c4b8f9526708a12432b4204000100bdd5d68c",
		"2afa14fa813c4b8f9526708a12432b42", fidIno32, false, magicExt4, 65540},
	{"ext4 directory", "00fb1d00012afa14fa813c4b8f9526708a12432b4203000100e6112fe5",
		"2afa14fa813c4b8f9526708a12432b42", fidIno32, false, magicExt4, 65539},
	{"ext4 upper of the index", "00fb1d04012afa14fa813c4b8f9526708a12432b42018000007a8f10d0",
		"2afa14fa813c4b8f9526708a12432b42", fidIno32, true, magicExt4, 32769},
	{"ext4 without a UUID", "00fb1d000100000000000000000000000000000000a242980010d711a0",
		"00000000000000000000000000000000", fidIno32, false, magicExt4, 9978530},
	{"tmpfs file", "00fb21000125c721d52d5d498cb96108ef6e72ccd89e6b5c3e0700000000000000",
		"25c721d52d5d498cb96108ef6e72ccd8", fidIno32, false, magicTmpfs, 7},
	{"tmpfs upper", "00fb21040125c721d52d5d498cb96108ef6e72ccd86624293e0300000000000000",
		"25c721d52d5d498cb96108ef6e72ccd8", fidIno32, true, magicTmpfs, 3},
	{"xfs file", "00fb210081901e1cbd08b14b7eb0131d560fb06411850000000000000078d3c10a",
		"901e1cbd08b14b7eb0131d560fb06411", fidIno64, false, magicXFS, 133},
	{"xfs upper in another allocation group", "00fb210481901e1cbd08b14b7eb0131d560fb064118000040000000000adc11620",
		"901e1cbd08b14b7eb0131d560fb06411", fidIno64, true, magicXFS, 262272},
	{"btrfs file", "00fb29004d9fe808b9b7d64915927860d5e7e92e4e0601000000000000050000000000000007000000",
		"9fe808b9b7d64915927860d5e7e92e4e", fidBtrfs, false, magicBtrfs, 262},
	{"btrfs upper", "00fb29044d9fe808b9b7d64915927860d5e7e92e4e0201000000000000050000000000000007000000",
		"9fe808b9b7d64915927860d5e7e92e4e", fidBtrfs, true, magicBtrfs, 258},
}

func TestKernelHandlesTellOriginAndInode(t *testing.T) {
	skipBigEndian(t)
	for _, v := range kernelHandles {
		t.Run(v.name, func(t *testing.T) {
			value := unhex(t, v.value)
			h, err := ParseFileHandle(value)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(h.UUID[:], unhex(t, v.uuid)) || h.Type != v.typ || h.Upper() != v.upper {
				t.Errorf("got %+v", h)
			}
			if ino, ok := h.Inode(); !ok || ino != v.ino {
				t.Errorf("Inode() = %d, %v, want %d", ino, ok, v.ino)
			}
			if ino, ok := h.InodeOn(v.fs); !ok || ino != v.ino {
				t.Errorf("InodeOn = %d, %v, want %d", ino, ok, v.ino)
			}
			if again, err := h.Encode(); err != nil || !bytes.Equal(again, value) {
				t.Errorf("Encode() = %x, %v", again, err)
			}
			made, err := NewFileHandle(h.UUID, int32(h.Type), h.FID, v.upper)
			if err != nil {
				t.Fatal(err)
			}
			if name, err := made.IndexName(); err != nil || name != v.value {
				t.Errorf("IndexName() = %s, %v", name, err)
			}
			byName, err := ParseIndexName(strings.ToUpper(v.value))
			if err != nil || !bytes.Equal(byName.FID, h.FID) {
				t.Errorf("ParseIndexName = %+v, %v", byName, err)
			}
		})
	}
}

func TestInodeIsNotReadFromHandlesOfOtherFilesystems(t *testing.T) {
	h := FileHandle{Type: fidIno64, FID: []byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0}}
	const magicFuse, magicErofs = 0x65735546, 0xe0f5e1e2 // their halves are swapped
	for _, fs := range []int64{magicFuse, magicErofs, magicExt4, magicTmpfs, magicBtrfs, 0} {
		if ino, ok := h.InodeOn(fs); ok {
			t.Errorf("filesystem %#x: inode %d", fs, ino)
		}
	}
	// Where f_type is a 32-bit signed number, btrfs has its sign bit set.
	b := FileHandle{Type: fidBtrfs, FID: make([]byte, 20)}
	binary.NativeEndian.PutUint64(b.FID, 262)
	signed := int64(magicBtrfs) - 1<<32
	if ino, ok := b.InodeOn(signed); !ok || ino != 262 {
		t.Errorf("btrfs with a signed f_type: %d, %v", ino, ok)
	}
	if _, ok := (FileHandle{Type: fidIno32, FID: make([]byte, 8)}).Inode(); ok {
		t.Error("inode number 0 passed for one")
	}
}

func TestHandleThatCannotBeUsedIsToldFromADamagedOne(t *testing.T) {
	good := append([]byte{0, 0xfb, 29, 0, 1}, make([]byte, 24)...)
	with := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	set := func(i int, v byte) []byte { return with(func(b []byte) []byte { b[i] = v; return b }) }
	for _, c := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"good", good, nil},
		{"bytes behind its length", append(bytes.Clone(good), 1, 2, 3), nil},
		{"any byte order", set(3, FlagAnyEndian|FlagBigEndian), nil},
		{"empty", nil, ErrOriginUnknown},
		{"later version", set(0, 1), ErrOriginUnknown},
		{"unknown flag", set(3, 8), ErrOriginUnknown},
		{"other byte order", set(3, FlagBigEndian), ErrOriginUnknown},
		{"one byte", good[:1], ErrMalformed},
		{"cut header", good[:20], ErrMalformed},
		{"cut fid", good[:28], ErrMalformed},
		{"magic", set(1, 0xfa), ErrMalformed},
		{"length below the header", set(2, 20), ErrMalformed},
		{"magic before version", with(func(b []byte) []byte { b[0], b[1] = 9, 9; return b }), ErrMalformed},
	} {
		_, err := parseFileHandle(c.value, 0)
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	big := set(3, FlagBigEndian)
	if _, err := parseFileHandle(big, FlagBigEndian); err != nil {
		t.Errorf("a big-endian machine refused its own handle: %v", err)
	}
	if _, err := parseFileHandle(good, FlagBigEndian); !errors.Is(err, ErrOriginUnknown) {
		t.Errorf("a big-endian machine read a little-endian handle: %v", err)
	}
}

func TestHandleTooLongToStoreOrToIndexIsRefused(t *testing.T) {
	if _, err := (FileHandle{FID: make([]byte, 235)}).Encode(); err == nil {
		t.Error("a FID of 235 bytes was encoded")
	}
	if _, err := (FileHandle{FID: make([]byte, 106)}).IndexName(); err != nil {
		t.Errorf("254 digits: %v", err)
	}
	if _, err := (FileHandle{FID: make([]byte, 108)}).IndexName(); !errors.Is(err, ErrNameTooLong) {
		t.Errorf("258 digits: %v", err)
	}
	for _, typ := range []int32{-1, 255, 256, 0x10001} {
		if _, err := NewFileHandle([16]byte{}, typ, nil, false); err == nil {
			t.Errorf("handle type %#x was cut to a byte", typ)
		}
	}
	for _, name := range []string{"", "#866", "00fb", "zz" + strings.Repeat("0", 58), strings.Repeat("0", 59)} {
		if _, err := ParseIndexName(name); !errors.Is(err, ErrMalformed) {
			t.Errorf("index name %q: %v", name, err)
		}
	}
	if !IsTempIndexName("#866") || IsTempIndexName("00fb") || IsTempIndexName("") {
		t.Error("temporaries of the kernel are told by #")
	}
}

// kernelRedirects tells what the kernel did with each value on a directory.
var kernelRedirects = []struct {
	value string
	path  string // "" for refused: the directory was EINVAL or EACCES
	abs   bool
}{
	{"dir", "dir", false},
	{"/dir", "dir", true},
	{"/a/b/c", "a|b|c", true},
	{"...", "...", false},
	{".wh.x", ".wh.x", false},
	{"/\xff\xfe/\n", "\xff\xfe|\n", true},
	{strings.Repeat("b", 300), strings.Repeat("b", 300), false},
	{"", "", false},
	{"/", "", false},
	{"//", "", false},
	{"a/", "", false},
	{"/a/", "", false},
	{"//a", "", false},
	{"/a//b", "", false},
	{"a/b", "", false},
	{".", "", false},
	{"..", "", false},
	{"/..", "", false},
	{"/./a", "", false},
	{"/a/.", "", false},
	{"/a/../../etc", "", false},
	{"a\x00", "", false}, // the kernel reads "a"; stricter here
}

func TestRedirectNeverLeadsOutOfALayer(t *testing.T) {
	for _, v := range kernelRedirects {
		r, err := ParseRedirect([]byte(v.value))
		if v.path == "" {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %+v, %v, want it refused", v.value, r, err)
			}
			continue
		}
		if err != nil || strings.Join(r.Path, "|") != v.path || r.Absolute != v.abs {
			t.Errorf("%q: %+v, %v", v.value, r, err)
		}
		if r.Encode() != v.value || !r.Valid() {
			t.Errorf("%q became %q", v.value, r.Encode())
		}
	}
	for _, r := range []Redirect{{}, {Absolute: true}, {Path: []string{"a", "b"}}, {Path: []string{"a/b"}},
		{Absolute: true, Path: []string{"a", ".."}}, {Path: []string{""}}} {
		if r.Valid() {
			t.Errorf("%+v passes for valid", r)
		}
	}
}

func TestOnlySingleByteMakesADirectoryOpaque(t *testing.T) {
	for value, want := range map[string]OpaqueMark{
		"y": OpaqueYes, "x": OpaqueXattrWhiteouts,
		"": NotOpaque, "Y": NotOpaque, "yes": NotOpaque, "y\x00": NotOpaque, "z": NotOpaque,
	} {
		m, err := ParseOpaque([]byte(value))
		if m != want || (err == nil) != (want != NotOpaque) {
			t.Errorf("%q: %v, %v", value, m, err)
		}
		if want != NotOpaque && string(m.Encode()) != value {
			t.Errorf("%q became %q", value, m.Encode())
		}
	}
	if NotOpaque.Encode() != nil {
		t.Error("not opaque is said by no mark")
	}
}

func TestMetacopyKeepsItsDigest(t *testing.T) {
	digest := bytes.Repeat([]byte{0xab}, 32)
	sha256 := append([]byte{0, 36, 0, DigestSHA256}, digest...)
	for _, c := range []struct {
		name  string
		value []byte
		want  *Metacopy
	}{
		{"as 6.18 writes without verity", []byte{}, &Metacopy{}},
		{"header only", []byte{0, 4, 0, 0}, &Metacopy{}},
		{"sha256", sha256, &Metacopy{Algorithm: DigestSHA256, Digest: digest}},
		{"flags", []byte{0, 4, 1, 0}, &Metacopy{Flags: 1}},
		{"short", []byte{0, 3, 0}, nil},
		{"length", append([]byte{0, 35, 0, 1}, digest...), nil},
		{"version", []byte{1, 4, 0, 0}, nil},
		{"long", append([]byte{0, 69, 0, 2}, make([]byte, 65)...), nil},
	} {
		m, err := ParseMetacopy(c.value)
		if c.want == nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %+v, %v", c.name, m, err)
			}
			continue
		}
		if err != nil || m.Flags != c.want.Flags || m.Algorithm != c.want.Algorithm || !bytes.Equal(m.Digest, c.want.Digest) {
			t.Errorf("%s: %+v, %v", c.name, m, err)
		}
	}
	if v, err := (Metacopy{Algorithm: DigestSHA256, Digest: digest}).Encode(); err != nil || !bytes.Equal(v, sha256) {
		t.Errorf("sha256: %x, %v", v, err)
	}
	if v, err := (Metacopy{}).Encode(); err != nil || v == nil || len(v) != 0 {
		t.Errorf("no digest: %x, %v, want an empty value", v, err)
	}
	for _, m := range []Metacopy{{Digest: digest}, {Algorithm: DigestSHA512, Digest: make([]byte, 65)}} {
		if v, err := m.Encode(); err == nil {
			t.Errorf("%+v was encoded as %x", m, v)
		}
	}
}

func TestNlinkShowsWhatTheKernelShows(t *testing.T) {
	for _, c := range []struct {
		value string
		want  Nlink
		canon string // what Encode gives, "" for refused
	}{
		{"U+0", Nlink{true, 0}, "U+0"}, // these three as 6.18 wrote them
		{"U+1", Nlink{true, 1}, "U+1"},
		{"U-1", Nlink{true, -1}, "U-1"},
		{"L-2", Nlink{false, -2}, "L-2"},
		{"L-0", Nlink{false, 0}, "L+0"},
		{"U+0x1F", Nlink{true, 31}, "U+31"},
		{"U-010", Nlink{true, -8}, "U-8"},
		{"U+1\n", Nlink{true, 1}, "U+1"},
		{"U+1\x00rest", Nlink{true, 1}, "U+1"},
		{"U-2147483648", Nlink{true, -1 << 31}, "U-2147483648"},
		{"U+2147483648", Nlink{}, ""},
		{"U+0000000000001", Nlink{}, ""},
		{"", Nlink{}, ""},
		{"U", Nlink{}, ""},
		{"U+", Nlink{}, ""},
		{"U1", Nlink{}, ""},
		{"X+1", Nlink{}, ""},
		{"U++1", Nlink{}, ""},
		{"U+-1", Nlink{}, ""},
		{"U+ 1", Nlink{}, ""},
		{"U+0b1", Nlink{}, ""},
		{"U+0o7", Nlink{}, ""},
		{"U+1_0", Nlink{}, ""},
		{"U+0x", Nlink{}, ""},
		{"U+0x-1", Nlink{}, ""},
		{"U+1\n\n", Nlink{}, ""},
	} {
		n, err := ParseNlink([]byte(c.value))
		if c.canon == "" {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %+v, %v", c.value, n, err)
			}
			continue
		}
		if err != nil || n != c.want || string(n.Encode()) != c.canon {
			t.Errorf("%q: %+v %s, %v", c.value, n, n.Encode(), err)
		}
	}
	// Three lower names, one of them copied up: the name and the index entry
	// are links of the upper inode, users count three.
	n := NlinkOf(3, 2, true)
	if string(n.Encode()) != "U+1" {
		t.Errorf("mark %s, the kernel writes U+1", n.Encode())
	}
	if c, ok := n.Count(2); !ok || c != 3 {
		t.Errorf("count %d, %v", c, ok)
	}
	if c, ok := (Nlink{Diff: -2}).Count(2); ok {
		t.Errorf("count %d of a file that has a name", c)
	}
}

func TestProtattrKeepsChattrFlags(t *testing.T) {
	for value, want := range map[string]Protattr{"a": {Append: true}, "i": {Immutable: true}, "ai": {true, true}} {
		p, err := ParseProtattr([]byte(value))
		if err != nil || p != want || string(p.Encode()) != value {
			t.Errorf("%q: %+v, %v", value, p, err)
		}
	}
	p, err := ParseProtattr([]byte("axi"))
	if !errors.Is(err, ErrMalformed) || !p.Append || p.Immutable {
		t.Errorf("flags up to the unknown byte count: %+v, %v", p, err)
	}
	if _, err := ParseProtattr(nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("empty: %v", err)
	}
	if (Protattr{}).Encode() != nil {
		t.Error("no flags are said by no mark")
	}
}
