package btree

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
