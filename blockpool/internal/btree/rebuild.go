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

// AppendItem adds an item behind those that a leaf has. It reports whether the key
// is behind theirs and the item fits. Only who made the node may call it.
func (n *Node) AppendItem(key, value []byte) bool {
	if n.Level() > 0 || len(key) > MaxKeySize || len(value) > MaxValueSize || !n.behind(key) {
		return false
	}
	return n.insert(n.Len(), key, leafPayload(nil, value))
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
