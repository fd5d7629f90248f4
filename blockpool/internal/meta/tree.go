package meta

// A tree is one of the trees of a file: that of the bucket names, or a bucket.
type tree struct {
	file   []byte // the mapping
	limit  uint64 // pages in use
	root   uint64
	inline []byte // the only page of a small bucket, which lies within its name's value
}

// seek returns the leaf that has, or would have, a key, and the first key
// behind the leaf (nil at the end). Each page on the way must begin with the
// key that its parent has for it, so a damaged branch does not lead astray.
func (t tree) seek(key []byte) (leaf page, behind []byte, err error) {
	if t.inline != nil {
		p, end, err := parsePage(t.inline)
		if err == nil && (!p.leaf || end != len(t.inline)) {
			err = damaged("an inline bucket of %d bytes, %d of them used", len(t.inline), end)
		}
		return p, nil, err
	}
	id, first := t.root, []byte(nil)
	for range maxDepth {
		p, err := readPage(t.file, id, t.limit)
		if err != nil {
			return page{}, nil, err
		}
		if err := checkRange(p, id, first, behind); err != nil {
			return page{}, nil, err
		}
		if p.leaf {
			return p, behind, nil
		}
		i, found := p.search(key)
		if !found && i > 0 {
			i--
		}
		if i+1 < p.n {
			behind = p.key(i + 1)
		}
		id, first = p.child(i), p.key(i)
	}
	return page{}, nil, damaged("the tree of page %d is deeper than %d pages", t.root, maxDepth)
}

// get returns the element of a key as a leaf and an index. When the key is
// absent, ok is false and the element is the one that it would come before;
// then the leaf behind has been looked at too, since a damaged branch key that
// sent the search one leaf too far left shows there.
func (t tree) get(key []byte) (leaf page, i int, ok bool, err error) {
	leaf, behind, err := t.seek(key)
	if err != nil {
		return page{}, 0, false, err
	}
	if i, ok = leaf.search(key); !ok && behind != nil {
		_, _, err = t.seek(behind)
	}
	return leaf, i, ok, err
}

// bucket returns the tree of a bucket from that of the names, an empty one when
// the file has no such bucket.
func (t tree) bucket(b Bucket) (tree, error) {
	leaf, i, ok, err := t.get(b.name())
	if err != nil {
		return tree{}, err
	}
	if ok {
		return t.bucketAt(leaf, i)
	}
	for i := range leaf.n { // the bucket may be there with a damaged name
		if _, ok := bucketByName[string(leaf.key(i))]; !ok {
			return tree{}, damaged("bucket %q is not known", leaf.key(i))
		}
	}
	return emptyTree, nil
}

// emptyTree is a tree of one empty leaf.
var emptyTree = func() tree {
	var leaf [headerSize]byte
	native.PutUint16(leaf[8:], leafFlag)
	return tree{inline: leaf[:]}
}()

func (t tree) bucketAt(leaf page, i int) (tree, error) {
	v := leaf.value(i)
	if !leaf.isBucket(i) || len(v) < 16 {
		return tree{}, damaged("%q is no bucket", leaf.key(i))
	}
	root := native.Uint64(v)
	if root == 0 {
		return tree{inline: v[16:]}, nil
	}
	return tree{file: t.file, limit: t.limit, root: root}, nil
}

// lookup returns the sealed value of a key below the tree of the names, nil
// when it is absent. It is part of the file.
func (t tree) lookup(b Bucket, key []byte) ([]byte, error) {
	sub, err := t.bucket(b)
	if err != nil {
		return nil, err
	}
	leaf, i, ok, err := sub.get(key)
	if err != nil || !ok {
		return nil, err
	}
	return leaf.value(i), nil
}
