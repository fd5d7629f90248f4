package btree

import "fmt"

// Drop takes a reference away from each node of stack, and where it was the last
// one, frees the node and drops what it refers to: children are pushed to the
// stack, items go to Items.Release. It stops after budget nodes and returns what
// is left of the stack, which the caller stores in the same commit and goes on
// with later. Each entry of the stack is one reference, held by the stack.
//
// The work goes depth first, so the stack stays within the children of one node
// per level, some hundreds each.
//
// A node that cannot be loaded, or is counted as free, is the last entry of the stack returned with the
// error, and the counts are right: the caller can take the entry off, which leaks
// what is below it, and go on. After any other error see [Store].
func Drop(s Store, items Items, stack []NodeID, budget int) (rest []NodeID, err error) {
	for ; budget > 0 && len(stack) > 0; budget-- {
		last := len(stack) - 1
		id := stack[last]
		refs, err := s.Refs(id)
		if err != nil {
			return stack, fmt.Errorf("btree: drop node %d: count: %w", id, err)
		}
		var n *Node
		switch refs {
		case 0:
			return stack, fmt.Errorf("btree: drop node %d: it is counted as free: %w", id, ErrDamaged)
		case 1:
			if n, err = load(s, id, anyLevel); err != nil {
				return stack, err
			}
		}
		stack = stack[:last]
		if n != nil {
			if stack, err = dropParts(items, n, stack); err != nil {
				return stack, fmt.Errorf("btree: drop node %d: %w", id, err)
			}
		}
		if err := s.Release(id); err != nil {
			return stack, fmt.Errorf("btree: drop node %d: %w", id, err)
		}
	}
	return stack, nil
}

// dropParts pushes the children of a node, or releases its items.
func dropParts(items Items, n *Node, stack []NodeID) ([]NodeID, error) {
	if n.Level() > 0 {
		for i := n.Len() - 1; i >= 0; i-- {
			stack = append(stack, n.Child(i))
		}
		return stack, nil
	}
	var scratch [MaxKeySize]byte
	for i := range n.Len() {
		if err := items.Release(n.AppendKey(scratch[:0], i), n.Value(i)); err != nil {
			return stack, err
		}
	}
	return stack, nil
}
