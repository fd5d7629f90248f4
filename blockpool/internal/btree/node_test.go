package btree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Two nodes as FORMAT.md describes them. The leaf has "apple" = "red" and
// "apricot" = ""; the inner node has children 7, from "b" on 8, from "bz" on 2^40.
const (
	leafVector  = "01" + "00" + "0200" + "02" + "0900000000000000" + "6170" + "03706c6503726564" + "057269636f7400"
	innerVector = "01" + "01" + "0300" + "01" + "0a00000000000000" + "62" + "00070000000000" + "00080000000000" + "017a000000000001"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestNodesAreStoredAsFormatSays(t *testing.T) {
	leaf := NewNode(0, 9)
	leaf.insert(0, []byte("apricot"), leafPayload(nil, nil))
	leaf.insert(0, []byte("apple"), leafPayload(nil, []byte("red")))
	leaf = leaf.slice(0, 2)
	inner := NewNode(1, 10)
	inner.insert(0, nil, innerPayload(nil, 7))
	inner.insert(1, []byte("bz"), innerPayload(nil, 1<<40))
	inner.insert(1, []byte("b"), innerPayload(nil, 8))
	inner = inner.slice(0, 3)
	for want, n := range map[string]*Node{leafVector: leaf, innerVector: inner} {
		if got := hex.EncodeToString(n.Bytes()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		p, err := Parse(unhex(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if p.Level() != n.Level() || p.Birth() != n.Birth() || !slices.Equal(p.offs, n.offs) {
			t.Errorf("%s came back as level %d, birth %d, items at %v", want, p.Level(), p.Birth(), p.offs)
		}
	}
	for key, child := range map[string]NodeID{"": 7, "a": 7, "b": 8, "by": 8, "bz": 1 << 40, "c": 1 << 40} {
		if got := inner.Child(inner.childOf([]byte(key))); got != child {
			t.Errorf("key %q leads to child %d, want %d", key, got, child)
		}
	}
}

func TestDamagedNodesAreRefused(t *testing.T) {
	leaf := func(change func(b []byte) []byte) []byte { return change(unhex(t, leafVector)) }
	inner := func(change func(b []byte) []byte) []byte { return change(unhex(t, innerVector)) }
	set := func(at int, to byte) func(b []byte) []byte {
		return func(b []byte) []byte { b[at] = to; return b }
	}
	for name, b := range map[string][]byte{
		"nothing":                     {},
		"a head cut":                  leaf(func(b []byte) []byte { return b[:12] }),
		"too long":                    make([]byte, MaxStoredSize+1),
		"an unknown version":          leaf(set(0, 2)),
		"a level too high":            inner(set(1, MaxLevel+1)),
		"no items":                    leaf(func(b []byte) []byte { b[2] = 0; return b[:15] }),
		"more items than bytes":       leaf(set(3, 255)),
		"an item too many":            leaf(set(2, 3)),
		"an item too few":             leaf(set(2, 1)),
		"a prefix past the end":       leaf(set(4, 255)),
		"a key past the end":          leaf(set(15, 200)),
		"a value past the end":        leaf(set(19, 120)),
		"an unfinished value length":  leaf(func(b []byte) []byte { b[29] = 0x80; return b }),
		"a long value length":         leaf(func(b []byte) []byte { b[29] = 0x80; return append(b, 0) }),
		"a value too large":           leaf(func(b []byte) []byte { return append(append(b[:29], 0x81, 0x08), make([]byte, 1025)...) }),
		"keys out of order":           leaf(set(24, 'a')),
		"equal keys":                  leaf(func(b []byte) []byte { return append(b[:15], unhex(t, "00000000")...) }),
		"a byte too many":             leaf(func(b []byte) []byte { return append(b, 0) }),
		"a byte too few":              inner(func(b []byte) []byte { return b[:len(b)-1] }),
		"child 0":                     inner(set(15, 0)),
		"a first child with a key":    inner(set(14, 1)),
		"separators out of order":     inner(func(b []byte) []byte { return append(b[:21], append(unhex(t, "017a000000000001"), b[21:28]...)...) }),
		"a prefix and no key":         inner(func(b []byte) []byte { b[2] = 1; return b[:21] }),
		"a key of more than 255 byte": leaf(func(b []byte) []byte { return append(append(b[:22], 254), make([]byte, 255)...) }),
	} {
		if n, err := Parse(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, %v", name, n, err)
		}
	}
}

// look calls everything that reads a node.
func look(n *Node) {
	for i := range n.Len() {
		key := n.AppendKey(nil, i)
		if n.Level() > 0 {
			n.Child(i)
			n.childOf(key)
			continue
		}
		n.Value(i)
		n.search(key)
	}
	n.search([]byte("apple"))
	n.MemSize()
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, leafVector), []byte("apple"))
	f.Add(unhex(f, innerVector), []byte("bz"))
	f.Fuzz(func(t *testing.T, b, key []byte) {
		n, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v does not say that the bytes are damaged", err)
			}
			return
		}
		look(n)
		if s := n.slice(0, n.Len()); !sameItems(n, s) {
			t.Fatalf("%x has other items when its prefix is made anew: %x", b, s.buf)
		}
		// What was stored by others can be changed without fear as well.
		c := n.Clone()
		if len(key) <= MaxKeySize {
			changeNode(t, c, key)
		}
		if !bytes.Equal(n.buf, b) {
			t.Fatal("a change of the clone reached the node")
		}
	})
}

func sameItems(a, b *Node) bool {
	if a.Len() != b.Len() || a.Level() != b.Level() {
		return false
	}
	for i := range a.Len() {
		if !bytes.Equal(a.AppendKey(nil, i), b.AppendKey(nil, i)) || !bytes.Equal(a.payload(i), b.payload(i)) {
			return false
		}
	}
	return true
}

func changeNode(t *testing.T, n *Node, key []byte) {
	if n.Level() > 0 {
		if i := n.childOf(key); i+1 == n.Len() || !bytes.Equal(key, n.AppendKey(nil, i)) {
			n.insert(i+1, key, innerPayload(nil, 5))
		}
	} else if i, found := n.search(key); found {
		n.setPayload(i, leafPayload(nil, make([]byte, 300)))
	} else {
		n.insert(i, key, leafPayload(nil, []byte("value")))
	}
	for n.Len() > 1 {
		n.remove(n.Len()/2, n.Len()/2+1)
		n.remove(0, min(3, n.Len()-1))
	}
	look(n)
}

// item is what the model of a node holds.
type item struct {
	key   string
	value []byte
}

func compareItem(e item, key string) int { return strings.Compare(e.key, key) }

// TestNodesHoldWhatIsInsertedUpToTheLastByte compares random changes of one leaf
// with a sorted slice, the stored form included.
func TestNodesHoldWhatIsInsertedUpToTheLastByte(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		n, model := NewNode(0, 1), []item(nil)
		most, common := 1+rng.IntN(120), strings.Repeat("x", rng.IntN(60))
		full := 0
		for range 400 {
			key := fmt.Sprintf("%s%d", common[:max(0, len(common)-max(0, rng.IntN(40)-36))], rng.IntN(300))
			i, found := n.search([]byte(key))
			at, has := slices.BinarySearchFunc(model, key, compareItem)
			if i != at || found != has {
				t.Fatalf("seed %d: key %q is item %d, %v, want %d, %v", seed, key, i, found, at, has)
			}
			value := make([]byte, rng.IntN(most))
			payload := leafPayload(nil, value)
			switch {
			case found && rng.IntN(2) == 0:
				j := min(i+rng.IntN(3), n.Len())
				n.remove(i, j)
				model = slices.Delete(model, i, j)
			case found:
				if n.setPayload(i, payload) {
					model[i].value = value
				} else {
					full++
				}
			case n.insert(i, []byte(key), payload):
				model = slices.Insert(model, i, item{key, value})
			default:
				full++ // and not too early, even if the prefix had to go
				if room := MaxNodeSize - len(n.slice(0, n.Len()).buf); len(key)+len(payload)+1 <= room-len(common)*n.Len() {
					t.Fatalf("seed %d: no room for %d bytes in %d", seed, len(key)+len(payload), room)
				}
			}
			checkAgainst(t, n, model)
		}
		if seed%10 == 9 && full == 0 && most > 60 {
			t.Errorf("seed %d: the node was never full", seed)
		}
	}
}

func checkAgainst(t *testing.T, n *Node, model []item) {
	t.Helper()
	if len(model) == 0 {
		if n.Len() != 0 {
			t.Fatalf("%d items are left", n.Len())
		}
		return
	}
	p, err := Parse(n.buf)
	if err != nil {
		t.Fatalf("%v: %x", err, n.buf)
	}
	if !slices.Equal(p.offs, n.offs) || p.Len() != len(model) {
		t.Fatalf("items at %v, stored at %v, want %d", n.offs, p.offs, len(model))
	}
	for i, e := range model {
		if string(p.AppendKey(nil, i)) != e.key || !bytes.Equal(p.Value(i), e.value) {
			t.Fatalf("item %d is %q, want %q", i, p.AppendKey(nil, i), e.key)
		}
	}
}

// TestAWideLeafIsReadAndSplitLikeAnyOther has a leaf outgrow what nodes have, as
// values do that get longer in place.
func TestAWideLeafIsReadAndSplitLikeAnyOther(t *testing.T) {
	n := NewNode(0, 1)
	var keys [][]byte
	for i := 0; ; i++ {
		key := []byte{byte(i >> 8), byte(i)}
		if !n.insert(i, key, leafPayload(nil, []byte{byte(i)})) {
			break
		}
		keys = append(keys, key)
	}
	wide := func(i int) []byte { return []byte{byte(i), 1} }
	for i := range n.Len() {
		if !n.SetValue(i, wide(i)) {
			t.Fatalf("no room for item %d in %d bytes", i, len(n.Bytes()))
		}
	}
	if n.SetValue(0, make([]byte, MaxStoredSize)) {
		t.Error("a leaf of more than what is read")
	}
	for _, n := range []*Node{n, n.Clone()} {
		got, err := Parse(n.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range keys {
			if at, found := got.search(key); !found || !bytes.Equal(got.Value(at), wide(i)) {
				t.Fatalf("item %d is %v", i, got.Value(at))
			}
		}
	}
	if len(n.Bytes()) <= MaxNodeSize {
		t.Fatalf("a leaf of %d bytes", len(n.Bytes()))
	}
	at, _ := splitPoint(n, 3, []byte{0, 2, 1}, false)
	for _, half := range []*Node{n.slice(0, at), n.slice(at, n.Len())} {
		if len(half.Bytes()) > MaxNodeSize {
			t.Errorf("half a leaf has %d bytes", len(half.Bytes()))
		}
	}
}
