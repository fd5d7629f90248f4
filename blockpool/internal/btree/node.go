package btree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A NodeID names a node for as long as anything refers to it. 0 is no node: the
// root of an empty tree.
type NodeID uint64

// Limits of what is stored.
const (
	// MaxNodeSize is the most bytes that an encoded node has. Two such nodes,
	// each with a seal of 16 bytes and a key of 8, fill a page of bbolt to the
	// byte: 4096 = 16 for the page + 2 × (16 for the element + 8 + 16 + 2000).
	MaxNodeSize = 2000
	// MaxStoredSize is the most that a leaf has whose values [Node.SetValue] has
	// changed. It stays so until its items change, and then it is split.
	MaxStoredSize = 3000
	// MaxKeySize is the most bytes that a key has.
	MaxKeySize = 255
	// MaxValueSize is the most bytes that a value has. One item of the largest
	// key and value leaves a third of its node free.
	MaxValueSize = 1024
	// MaxNodeID is the highest id of a node.
	MaxNodeID NodeID = 1<<48 - 1
	// MaxLevel is the highest level of a node. Leaves have level 0.
	MaxLevel = 31
)

// ErrDamaged is format.ErrDamaged: a node means nothing, or is not the node that
// it is said to be.
var ErrDamaged = format.ErrDamaged

// A Node is one node of a tree: a leaf's items, or the children of an inner node
// with the keys that separate them. It keeps the encoded bytes and where each
// item begins, so that looking at it allocates nothing:
//
//	0  version
//	1  level, 0 for a leaf
//	2  number of items, 2 bytes
//	4  length of the prefix that all keys share
//	5  birth: the transaction group that wrote it, 8 bytes
//	13 the prefix, then the items in the order of their keys:
//
//	leaf   length of the key's rest, the rest, length of the value as a
//	       varint, the value
//	inner  length of the key's rest, the rest, the child's id in 6 bytes
//
// Integers are little endian. The key of an inner item is no more than any key
// below its child, and more than any key below the child before it. Item 0 of an
// inner node has no key, since nothing is to its left: its length is 0 and the
// prefix is none of its business.
//
// A Node that [Loader.Load] returned is never changed.
type Node struct {
	buf  []byte
	offs []uint16 // of the items in buf
}

const (
	nodeVersion = 1

	atLevel  = 1
	atCount  = 2
	atPrefix = 4
	atBirth  = 5
	headSize = 13

	childSize = 6
)

// NewNode returns a node without items.
func NewNode(level int, birth uint64) *Node {
	n := &Node{buf: make([]byte, headSize, MaxNodeSize)}
	n.buf[0], n.buf[atLevel] = nodeVersion, byte(level)
	n.SetBirth(birth)
	return n
}

// Parse returns the node that b encodes, and keeps b. Its error wraps
// format.ErrDamaged. There is no limit to what b may hold: Parse never panics,
// and neither does a method of a node that it returned.
func Parse(b []byte) (*Node, error) {
	if len(b) < headSize || len(b) > MaxStoredSize {
		return nil, fmt.Errorf("node of %d bytes: %w", len(b), ErrDamaged)
	}
	if b[0] != nodeVersion {
		return nil, fmt.Errorf("node has version %d: %w", b[0], ErrDamaged)
	}
	if b[atLevel] > MaxLevel {
		return nil, fmt.Errorf("node has level %d: %w", b[atLevel], ErrDamaged)
	}
	count := int(binary.LittleEndian.Uint16(b[atCount:]))
	at := headSize + int(b[atPrefix])
	if count == 0 || count > len(b) || at > len(b) {
		return nil, fmt.Errorf("node of %d bytes with %d items, and a prefix of %d: %w", len(b), count, b[atPrefix], ErrDamaged)
	}
	n := &Node{buf: b, offs: make([]uint16, count)}
	if count == n.firstKey() && b[atPrefix] != 0 {
		return nil, fmt.Errorf("node has a prefix of %d bytes and no key: %w", b[atPrefix], ErrDamaged)
	}
	for i := range n.offs {
		n.offs[i] = uint16(at)
		size, ok := n.parseItem(i, b[at:])
		if !ok {
			return nil, fmt.Errorf("node's item %d is not whole: %w", i, ErrDamaged)
		}
		at += size
	}
	if at != len(b) {
		return nil, fmt.Errorf("node has %d bytes after its last item: %w", len(b)-at, ErrDamaged)
	}
	for i := n.firstKey() + 1; i < count; i++ {
		if bytes.Compare(n.rest(i-1), n.rest(i)) >= 0 {
			return nil, fmt.Errorf("node's items %d and %d are not in order: %w", i-1, i, ErrDamaged)
		}
	}
	return n, nil
}

// parseItem returns the size of item i, which b begins with.
func (n *Node) parseItem(i int, b []byte) (size int, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	rest := int(b[0])
	if i < n.firstKey() && rest != 0 || rest+n.prefixLen() > MaxKeySize {
		return 0, false
	}
	if size = 1 + rest; size > len(b) {
		return 0, false
	}
	if n.Level() > 0 {
		if size += childSize; size > len(b) {
			return 0, false
		}
		return size, childID(b[size-childSize:]) != 0
	}
	value, w := binary.Uvarint(b[size:])
	if w <= 0 || w != uvarintLen(value) || value > MaxValueSize || size+w+int(value) > len(b) {
		return 0, false
	}
	return size + w + int(value), true
}

// Bytes returns the encoded node, which the caller does not change.
func (n *Node) Bytes() []byte { return n.buf }

// MemSize returns how much memory the node takes, in bytes.
func (n *Node) MemSize() int { return cap(n.buf) + 2*cap(n.offs) + 64 }

// Level returns how far the node is from the leaves, whose level is 0.
func (n *Node) Level() int { return int(n.buf[atLevel]) }

// Birth returns the transaction group that wrote the node.
func (n *Node) Birth() uint64 { return binary.LittleEndian.Uint64(n.buf[atBirth:]) }

// SetBirth says which transaction group writes the node.
func (n *Node) SetBirth(txg uint64) { binary.LittleEndian.PutUint64(n.buf[atBirth:], txg) }

// Len returns the number of items.
func (n *Node) Len() int { return len(n.offs) }

// AppendKey appends the key of item i to b. Item 0 of an inner node has none.
func (n *Node) AppendKey(b []byte, i int) []byte {
	if i < n.firstKey() {
		return b
	}
	return append(append(b, n.prefix()...), n.rest(i)...)
}

// Value returns the value of item i of a leaf. It is a part of the node.
func (n *Node) Value(i int) []byte {
	b := n.buf[n.offs[i]:]
	b = b[1+int(b[0]):]
	size, w := binary.Uvarint(b)
	return b[w : w+int(size) : w+int(size)]
}

// Child returns child i of an inner node.
func (n *Node) Child(i int) NodeID {
	b := n.buf[n.offs[i]:]
	return childID(b[1+int(b[0]):])
}

func childID(b []byte) NodeID {
	return NodeID(binary.LittleEndian.Uint32(b)) | NodeID(binary.LittleEndian.Uint16(b[4:]))<<32
}

// firstKey returns the first item that has a key.
func (n *Node) firstKey() int {
	if n.buf[atLevel] == 0 {
		return 0
	}
	return 1
}

func (n *Node) prefixLen() int { return int(n.buf[atPrefix]) }
func (n *Node) prefix() []byte { return n.buf[headSize : headSize+n.prefixLen()] }

// rest returns the key of item i without the prefix.
func (n *Node) rest(i int) []byte {
	at := int(n.offs[i]) + 1
	return n.buf[at : at+int(n.buf[at-1])]
}

// payload returns item i without its key.
func (n *Node) payload(i int) []byte {
	b := n.buf[n.offs[i]:n.itemEnd(i)]
	return b[1+int(b[0]):]
}

func (n *Node) itemEnd(i int) int {
	if i+1 < len(n.offs) {
		return int(n.offs[i+1])
	}
	return len(n.buf)
}

// search returns the first item of a leaf whose key is key or more, and whether
// it is key.
func (n *Node) search(key []byte) (i int, found bool) {
	i = n.lowerBound(key, 0)
	if i == len(n.offs) {
		return i, false
	}
	p := n.prefixLen()
	return i, len(key) >= p && bytes.Equal(n.prefix(), key[:p]) && bytes.Equal(n.rest(i), key[p:])
}

// childOf returns which child of an inner node key belongs to.
func (n *Node) childOf(key []byte) int {
	i := n.lowerBound(key, 1)
	if i < len(n.offs) {
		p := n.prefixLen()
		if len(key) >= p && bytes.Equal(n.prefix(), key[:p]) && bytes.Equal(n.rest(i), key[p:]) {
			return i
		}
	}
	return i - 1
}

// lowerBound returns the first item from from on whose key is key or more.
func (n *Node) lowerBound(key []byte, from int) int {
	p := n.prefixLen()
	switch c := bytes.Compare(key[:min(len(key), p)], n.prefix()); {
	case c < 0: // also when key is a part of the prefix
		return from
	case c > 0:
		return len(n.offs)
	}
	key = key[p:]
	lo, hi := from, len(n.offs)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if bytes.Compare(n.rest(mid), key) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// Offsets within a node fit their type.
const _ = uint(math.MaxUint16 - MaxStoredSize)
