package btree

import (
	"bytes"
	"encoding/binary"
)

// The methods here change a node. Only the writer calls them, and only on nodes
// that are private to it. One that returns false has changed nothing that a
// reader of the node would see, for want of space.

// Clone returns a copy that may be changed.
func (n *Node) Clone() *Node {
	c := &Node{
		buf:  make([]byte, len(n.buf), max(len(n.buf), MaxNodeSize)),
		offs: make([]uint16, len(n.offs), len(n.offs)+16),
	}
	copy(c.buf, n.buf)
	copy(c.offs, n.offs)
	return c
}

// leafPayload appends what an item of a leaf has after its key.
func leafPayload(b, value []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

// innerPayload appends what an item of an inner node has after its key.
func innerPayload(b []byte, child NodeID) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(child))
	return binary.LittleEndian.AppendUint16(b, uint16(child>>32))
}

// setCount writes the number of items to the head.
func (n *Node) setCount() {
	binary.LittleEndian.PutUint16(n.buf[atCount:], uint16(len(n.offs)))
}

// insert adds an item before item i. In an inner node the first item that comes is
// item 0, and its key is empty; later ones go after it.
func (n *Node) insert(i int, key, payload []byte) bool {
	rest := key
	if i >= n.firstKey() {
		p := commonPrefix(n.prefix(), key)
		if p < n.prefixLen() && !n.reprefix(p, 1+len(key)-p+len(payload)) {
			return false
		}
		rest = key[p:]
	}
	size := 1 + len(rest) + len(payload)
	if len(n.buf)+size > MaxNodeSize {
		if !n.compact(key, size, i) {
			return false
		}
		if i >= n.firstKey() {
			rest = key[n.prefixLen():]
		}
		size = 1 + len(rest) + len(payload)
	}
	at := len(n.buf)
	if i < len(n.offs) {
		at = int(n.offs[i])
	}
	n.splice(at, 0, size)
	n.buf[at] = byte(len(rest))
	copy(n.buf[at+1:], rest)
	copy(n.buf[at+1+len(rest):], payload)
	n.offs = append(n.offs, 0)
	copy(n.offs[i+1:], n.offs[i:])
	n.offs[i] = uint16(at)
	for j := i + 1; j < len(n.offs); j++ {
		n.offs[j] += uint16(size)
	}
	n.setCount()
	return true
}

// splice replaces del bytes at at by add bytes, whose content is undefined.
func (n *Node) splice(at, del, add int) {
	old := len(n.buf)
	if add > del {
		n.buf = append(n.buf, make([]byte, add-del)...)
	}
	copy(n.buf[at+add:], n.buf[at+del:old])
	n.buf = n.buf[:old+add-del]
}

// setPayload replaces what item i has after its key.
func (n *Node) setPayload(i int, payload []byte) bool {
	old := len(n.payload(i))
	grow := len(payload) - old
	if len(n.buf)+grow > MaxNodeSize && !n.compact(nil, grow, -1) {
		return false
	}
	n.replace(i, payload)
	return true
}

// replace is setPayload for who knows that there is room.
func (n *Node) replace(i int, payload []byte) {
	old := len(n.payload(i))
	at := n.itemEnd(i) - old
	n.splice(at, old, len(payload))
	copy(n.buf[at:], payload)
	for j := i + 1; j < len(n.offs); j++ {
		n.offs[j] = uint16(int(n.offs[j]) + len(payload) - old)
	}
}

// SetValue replaces the value of item i of a leaf that is the writer's to change.
// It is for who gives something that values name another name, in all leaves that
// name it, shared ones too: no item comes or goes and nothing is split, so the leaf
// may come to have up to [MaxStoredSize] bytes. False says that it would have more,
// and that nothing has changed.
func (n *Node) SetValue(i int, value []byte) bool {
	payload := leafPayload(nil, value)
	if n.setPayload(i, payload) {
		return true
	}
	if len(n.buf)+len(payload)-len(n.payload(i)) > MaxStoredSize {
		return false
	}
	n.replace(i, payload)
	return true
}

// setChild replaces child i of an inner node, which always fits.
func (n *Node) setChild(i int, child NodeID) {
	var b [childSize]byte
	copy(n.payload(i), innerPayload(b[:0], child))
}

// remove takes items i to j-1 out. When item 0 of an inner node goes, the one
// that takes its place loses its key.
func (n *Node) remove(i, j int) {
	if i == j {
		return
	}
	from, to := int(n.offs[i]), n.itemEnd(j-1)
	n.splice(from, to-from, 0)
	n.offs = append(n.offs[:i], n.offs[j:]...)
	for k := i; k < len(n.offs); k++ {
		n.offs[k] -= uint16(to - from)
	}
	if n.Level() > 0 && i == 0 && len(n.offs) > 0 {
		cut := len(n.rest(0))
		n.splice(int(n.offs[0])+1, cut, 0)
		n.buf[n.offs[0]] = 0
		for k := 1; k < len(n.offs); k++ {
			n.offs[k] -= uint16(cut)
		}
	}
	n.setCount()
	if len(n.offs) <= n.firstKey() && n.prefixLen() > 0 {
		n.reprefix(0, 0) // no key is left: it only gets smaller
	}
}

// compact lengthens the prefix as far as the keys allow, key among them when it
// is to become item i, if that makes room for size bytes more.
func (n *Node) compact(key []byte, size, i int) bool {
	first := n.firstKey()
	if len(n.offs) <= first {
		return false
	}
	p := n.prefixLen()
	gain := commonPrefix(n.rest(first), n.rest(len(n.offs)-1))
	own := 0
	if i >= first {
		gain = min(gain, commonPrefix(n.rest(first), key[p:]))
		own = gain
	}
	saved := gain*(len(n.offs)-first) - gain + own
	return gain > 0 && len(n.buf)+size-saved <= MaxNodeSize && n.reprefix(p+gain, 0)
}

// reprefix lays the node out anew with a prefix of p bytes, if that leaves room
// for spare bytes.
func (n *Node) reprefix(p, spare int) bool {
	first := n.firstKey()
	keys := max(0, len(n.offs)-first)
	delta := (n.prefixLen() - p) * (keys - 1) // each rest grows, the prefix shrinks
	if keys == 0 {
		delta = p - n.prefixLen()
	}
	if len(n.buf)+delta+spare > MaxNodeSize {
		return false
	}
	var key []byte
	if keys > 0 {
		key = n.AppendKey(nil, first)
	}
	fresh := newPacked(n, key[:p])
	var scratch [MaxKeySize]byte
	for i := range n.offs {
		fresh.push(n.AppendKey(scratch[:0], i), n.payload(i))
	}
	n.become(fresh)
	return true
}

// become gives n the items of another node, which is not used after that. n keeps
// its birth.
func (n *Node) become(o *Node) {
	o.SetBirth(n.Birth())
	*n = *o
}

// newPacked returns a node like n that has a prefix and no items yet.
func newPacked(n *Node, prefix []byte) *Node {
	fresh := NewNode(n.Level(), n.Birth())
	fresh.buf[atPrefix] = byte(len(prefix))
	fresh.buf = append(fresh.buf, prefix...)
	fresh.offs = make([]uint16, 0, n.Len()+16)
	return fresh
}

// push appends an item. Its key has the node's prefix.
func (n *Node) push(key, payload []byte) {
	rest := key
	if len(n.offs) >= n.firstKey() {
		rest = key[n.prefixLen():]
	}
	n.offs = append(n.offs, uint16(len(n.buf)))
	n.buf = append(n.buf, byte(len(rest)))
	n.buf = append(append(n.buf, rest...), payload...)
	n.setCount()
}

// slice returns a node of items i to j-1, with the longest prefix that they
// allow. i is less than j.
func (n *Node) slice(i, j int) *Node {
	fresh := newPacked(n, nil)
	if first := i + n.firstKey(); first < j {
		p := n.prefixLen() + commonPrefix(n.rest(first), n.rest(j-1))
		fresh = newPacked(n, n.AppendKey(nil, first)[:p])
	}
	var key [MaxKeySize]byte
	for k := i; k < j; k++ {
		if k == i && n.Level() > 0 {
			fresh.push(nil, n.payload(k))
			continue
		}
		fresh.push(n.AppendKey(key[:0], k), n.payload(k))
	}
	return fresh
}

// join returns the node that holds the items of a and then those of b, or nil
// when that has more than limit bytes. separator is the key of b in the parent,
// which its first child gets when they are inner nodes.
func join(a, b *Node, separator []byte, limit int) *Node {
	var first, last [MaxKeySize]byte
	low := edgeKey(first[:0], a, a.firstKey(), separator)
	high := edgeKey(last[:0], b, b.Len()-1, separator)
	p := commonPrefix(low, high)
	size := headSize + p
	for _, n := range []*Node{a, b} {
		keys := n.Len() - n.firstKey()
		size += len(n.buf) - headSize - n.prefixLen() + keys*(n.prefixLen()-p)
	}
	if a.Level() > 0 {
		size += len(separator) - p
	}
	if size > limit {
		return nil
	}
	fresh := newPacked(a, low[:p])
	var key [MaxKeySize]byte
	for _, n := range []*Node{a, b} {
		for i := range n.Len() {
			if n == b && i < n.firstKey() {
				fresh.push(separator, n.payload(i))
				continue
			}
			fresh.push(n.AppendKey(key[:0], i), n.payload(i))
		}
	}
	return fresh
}

// edgeKey returns the key of item i of n, or separator if there is none.
func edgeKey(b []byte, n *Node, i int, separator []byte) []byte {
	if i < n.firstKey() || i >= n.Len() {
		return separator
	}
	return n.AppendKey(b, i)
}

// commonPrefix returns the length of what a and b both begin with.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// separator returns the shortest key that is more than a and no more than b,
// where a is less than b.
func separator(a, b []byte) []byte {
	return bytes.Clone(b[:commonPrefix(a, b)+1])
}
