package memtree

import "hash/maphash"

// A node is part of a treap that is never changed: what changes it makes other
// nodes on the way to the root. So a root is a snapshot.
type node struct {
	key         string
	value       []byte
	left, right *node
}

var seed = maphash.MakeSeed()

// above tells whether a is nearer to the root than b: an order that depends on
// nothing but the keys.
func above(a, b *node) bool {
	x, y := maphash.String(seed, a.key), maphash.String(seed, b.key)
	return x > y || x == y && a.key > b.key
}

func (n *node) get(key string) ([]byte, bool) {
	for n != nil {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	return nil, false
}

// split returns the nodes below key and those from it on.
func split(n *node, key string) (left, right *node) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if n.key < key {
		c.right, right = split(n.right, key)
		return &c, right
	}
	left, c.left = split(n.left, key)
	return left, &c
}

// merge joins two treaps, all keys of the first one being lower.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case above(a, b):
		c := *a
		c.right = merge(a.right, b)
		return &c
	}
	c := *b
	c.left = merge(a, b.left)
	return &c
}

func (n *node) put(key string, value []byte) *node {
	left, rest := split(n, key)
	_, right := split(rest, key+"\x00")
	return merge(merge(left, &node{key: key, value: value}), right)
}

func (n *node) remove(key string) *node { return n.removeRange(key, key+"\x00") }

// removeRange removes the keys from from up to and without to.
func (n *node) removeRange(from, to string) *node {
	left, rest := split(n, from)
	_, right := split(rest, to)
	return merge(left, right)
}

// ascend calls f with the nodes from from up to and without to, "" being the end,
// until it returns false.
func (n *node) ascend(from, to string, f func(*node) bool) bool {
	if n == nil {
		return true
	}
	if n.key > from && !n.left.ascend(from, to, f) {
		return false
	}
	if n.key >= from && (to == "" || n.key < to) && !f(n) {
		return false
	}
	return to != "" && n.key >= to || n.right.ascend(from, to, f)
}
