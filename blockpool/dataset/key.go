package dataset

import (
	"encoding/binary"
	"math/bits"

	"github.com/laminafs/lamina/blockpool"
)

// The first byte of a key says what the item is. The numbers are on disk.
const (
	keyInode  = blockpool.ItemCounted
	keyEntry  = 0x81
	keyXattr  = 0x82
	keyOrphan = 0x83
	keySuper  = 0x84
	keyLink   = 0x85
)

// rootObject is the root directory.
const rootObject = 1

func appendKey(kind byte, numbers ...uint64) []byte {
	k := make([]byte, 1, 1+8*len(numbers))
	k[0] = kind
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

func inodeKey(object uint64) []byte          { return appendKey(keyInode, object) }
func entryKey(dir, pos uint64) []byte        { return appendKey(keyEntry, dir, pos) }
func xattrKey(object, pos uint64) []byte     { return appendKey(keyXattr, object, pos) }
func orphanKey(object uint64) []byte         { return appendKey(keyOrphan, object) }
func superKey() []byte                       { return appendKey(keySuper) }
func linkKey(object, dir, pos uint64) []byte { return appendKey(keyLink, object, dir, pos) }

// keyNumbers returns the numbers in a key of a kind, false if it is not as long as
// such a key is.
func keyNumbers(key []byte, out ...*uint64) bool {
	if len(key) != 1+8*len(out) {
		return false
	}
	for i, p := range out {
		*p = binary.BigEndian.Uint64(key[1+8*i:])
	}
	return true
}

// collisions is how many names of a directory may have the same hash.
const collisions = 256

// hashBits is how many bits of the hash a new dataset uses: with the number that
// tells collisions apart and the two positions that servers add for "." and "..",
// a position stays within the offsets of directories, which have a sign.
const hashBits = 54

// position returns the first of the positions that a name may have.
func (s *superblock) position(name string) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(s.seed[:]), binary.LittleEndian.Uint64(s.seed[8:])
	return sipHash(k0, k1, name) >> (64 - s.bits) * collisions
}

// sipHash is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input
// PRF"): without its key nobody can tell which names collide.
func sipHash(k0, k1 uint64, s string) uint64 {
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(s)) << 56
	for ; len(s) >= 8; s = s[8:] {
		var m uint64
		for i := range 8 {
			m |= uint64(s[i]) << (8 * i)
		}
		v[3] ^= m
		sipRound(&v)
		sipRound(&v)
		v[0] ^= m
	}
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	v[3] ^= last
	sipRound(&v)
	sipRound(&v)
	v[0] ^= last
	v[2] ^= 0xff
	for range 4 {
		sipRound(&v)
	}
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func sipRound(v *[4]uint64) {
	v[0] += v[1]
	v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
	v[0] = bits.RotateLeft64(v[0], 32)
	v[2] += v[3]
	v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
	v[0] += v[3]
	v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
	v[2] += v[1]
	v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
	v[2] = bits.RotateLeft64(v[2], 32)
}
