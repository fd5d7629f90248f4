package btree

import "bytes"

// Prune returns a copy of a node without the items for which keep is false, or
// nil when none is left. It is for who repairs trees: nothing is counted, and what
// an item referred to is the caller's to see to.
func Prune(n *Node, keep func(i int) bool) *Node {
	out := n.Clone()
	for i := n.Len() - 1; i >= 0; i-- {
		if !keep(i) {
			out.remove(i, i+1)
		}
	}
	if out.Len() == 0 {
		return nil
	}
	return out
}

// AppendItem adds an item behind those that a leaf has, which may become as wide as
// [Node.SetValue] makes them. It reports whether the key is behind theirs and the item
// fits. Only who made the node may call it.
func (n *Node) AppendItem(key, value []byte) bool {
	if n.Level() > 0 || len(key) > MaxKeySize || len(value) > MaxValueSize || !n.behind(key) {
		return false
	}
	payload := leafPayload(nil, value)
	return n.insert(n.Len(), key, payload) || n.appendWide(key, payload)
}

// appendWide appends an item to a leaf that then has up to [MaxStoredSize] bytes, as
// it may have had before.
func (n *Node) appendWide(key, payload []byte) bool {
	fresh := newPacked(n, n.prefix()[:commonPrefix(n.prefix(), key)])
	var scratch [MaxKeySize]byte
	for i := range n.Len() {
		fresh.push(n.AppendKey(scratch[:0], i), n.payload(i))
	}
	fresh.push(key, payload)
	if len(fresh.buf) > MaxStoredSize {
		return false
	}
	n.become(fresh)
	return true
}

// AppendChild does the same with a child of an inner node. The first child has no
// key.
func (n *Node) AppendChild(key []byte, child NodeID) bool {
	first := n.Len() == 0
	if n.Level() == 0 || len(key) > MaxKeySize || child == 0 || child > MaxNodeID || first != (len(key) == 0) || !first && !n.behind(key) {
		return false
	}
	return n.insert(n.Len(), key, innerPayload(nil, child))
}

// behind reports whether a key is more than the last one.
func (n *Node) behind(key []byte) bool {
	if n.Len() <= n.firstKey() {
		return true
	}
	return bytes.Compare(n.AppendKey(nil, n.Len()-1), key) < 0
}
