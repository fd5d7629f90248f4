package btree

import (
	"bytes"
	"fmt"
	"testing"
)

func TestPruneKeepsWhatItIsToldAndANodeThatParses(t *testing.T) {
	for _, level := range []int{0, 1} {
		n := NewNode(level, 7)
		for i := range 40 {
			key, payload := fmt.Appendf(nil, "key%03d", i), leafPayload(nil, fmt.Appendf(nil, "v%d", i))
			if level > 0 {
				payload = innerPayload(nil, NodeID(i+1))
				if i == 0 {
					key = nil
				}
			}
			n.insert(i, key, payload)
		}
		before := bytes.Clone(n.Bytes())
		for _, kept := range [][]int{{0}, {39}, {1, 2, 3}, {0, 20, 39}, {5, 17, 18, 30}} {
			keep := map[int]bool{}
			for _, i := range kept {
				keep[i] = true
			}
			p := Prune(n, func(i int) bool { return keep[i] })
			if _, err := Parse(p.Bytes()); err != nil || p.Len() != len(kept) || p.Birth() != 7 || p.Level() != level {
				t.Fatalf("level %d, %v: %d items, %v", level, kept, p.Len(), err)
			}
			for j, i := range kept {
				if got, want := p.AppendKey(nil, j), n.AppendKey(nil, i); (level == 0 || j > 0) && !bytes.Equal(got, want) {
					t.Errorf("level %d, %v: key %d is %q, want %q", level, kept, j, got, want)
				}
				if !bytes.Equal(p.payload(j), n.payload(i)) {
					t.Errorf("level %d, %v: item %d is %x, want %x", level, kept, j, p.payload(j), n.payload(i))
				}
			}
		}
		if Prune(n, func(int) bool { return false }) != nil {
			t.Error("a node of nothing")
		}
		if !bytes.Equal(n.Bytes(), before) {
			t.Error("the node has changed")
		}
	}
}

func TestANodeIsBuiltFromItsItems(t *testing.T) {
	leaf := NewNode(0, 3)
	n := 0
	for leaf.AppendItem(fmt.Appendf(nil, "a long prefix of key %05d", n), []byte("value")) {
		n++
	}
	back, err := Parse(leaf.Bytes())
	if err != nil || back.Len() != n || n < 100 {
		t.Fatalf("%d items, %v", n, err)
	}
	if leaf.AppendItem([]byte("a long prefix of key 00001"), nil) || leaf.AppendChild([]byte("z"), 1) {
		t.Error("what does not belong there was taken")
	}
	inner := NewNode(2, 3)
	if inner.AppendChild([]byte("key"), 1) || !inner.AppendChild(nil, 1) || inner.AppendChild(nil, 2) || !inner.AppendChild([]byte("b"), 2) || inner.AppendChild([]byte("a"), 3) {
		t.Error("children out of order were taken, or others refused")
	}
	if back, err := Parse(inner.Bytes()); err != nil || back.Len() != 2 {
		t.Errorf("%v", err)
	}
}
