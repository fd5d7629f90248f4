package whiteout

import "fmt"

// Digest algorithms of fs-verity (FS_VERITY_HASH_ALG_* of linux/fsverity.h).
const (
	DigestNone   = 0
	DigestSHA256 = 1
	DigestSHA512 = 2
)

// Layout of struct ovl_metacopy: version, len, flags, digest_algo, digest.
const (
	metacopyVersion   = 0
	metacopyHeaderLen = 4
	metacopyDigestMax = 64 // FS_VERITY_MAX_DIGEST_SIZE
)

// A Metacopy is the mark of a regular file that was copied up without its
// data: attributes count here, the data are read from the next layer below
// that has the file (along its [Redirect]).
type Metacopy struct {
	Flags     uint8  // none defined yet; the kernel ignores them
	Algorithm uint8  // of the digest, DigestNone for no digest
	Digest    []byte // fs-verity digest that the data must have, 64 bytes at most
}

// ParseMetacopy reads the value of [Prefix.Metacopy].
//
// An empty value, all that kernels before 6.6 wrote, means no digest. As in
// the kernel (ovl_check_metacopy_xattr, EIO) any other value has version 0, a
// length field that tells its own length, and at most 64 bytes of digest.
func ParseMetacopy(value []byte) (Metacopy, error) {
	if len(value) == 0 {
		return Metacopy{}, nil
	}
	bad := func(reason string, args ...any) (Metacopy, error) {
		return Metacopy{}, malformed("metacopy", value, reason, args...)
	}
	switch {
	case len(value) < metacopyHeaderLen:
		return bad("%d bytes, the header alone has %d", len(value), metacopyHeaderLen)
	case len(value) > metacopyHeaderLen+metacopyDigestMax:
		return bad("%d bytes, %d at most", len(value), metacopyHeaderLen+metacopyDigestMax)
	case value[0] != metacopyVersion:
		return bad("version %d, only %d is known", value[0], metacopyVersion)
	case int(value[1]) != len(value):
		return bad("length field %d, but %d bytes", value[1], len(value))
	}
	m := Metacopy{Flags: value[2], Algorithm: value[3]}
	if m.Algorithm != DigestNone && len(value) > metacopyHeaderLen {
		m.Digest = append([]byte(nil), value[metacopyHeaderLen:]...)
	}
	return m, nil
}

// Encode returns the value to store. Without digest and flags that is the
// empty value, which every kernel with metacopy reads (ovl_set_metacopy_xattr).
// It fails for a digest longer than 64 bytes, or one without its algorithm.
func (m Metacopy) Encode() ([]byte, error) {
	if len(m.Digest) > metacopyDigestMax {
		return nil, fmt.Errorf("metacopy: digest of %d bytes, %d at most", len(m.Digest), metacopyDigestMax)
	}
	if m.Algorithm == DigestNone {
		if len(m.Digest) > 0 {
			return nil, fmt.Errorf("metacopy: digest of %d bytes without an algorithm", len(m.Digest))
		}
		if m.Flags == 0 {
			return []byte{}, nil
		}
	}
	value := []byte{metacopyVersion, byte(metacopyHeaderLen + len(m.Digest)), m.Flags, m.Algorithm}
	return append(value, m.Digest...), nil
}
