package blockpool

import (
	"cmp"
	"maps"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// pages is what lies in the pages of all replicas, used or not, as metadata: of
// each key the newest value. A key whose bucket can be walked over in some replica,
// and is not in it, was deleted, and is not there.
type pages struct {
	values map[meta.Bucket]map[string]carved
	txg    uint64
}

type carved struct {
	value []byte
	txg   uint64
}

var _ metadata = (*pages)(nil)

// carve reads every page of the replicas.
func carve(wrecks []*meta.Wreck) (*pages, error) {
	p := &pages{values: map[meta.Bucket]map[string]carved{}}
	for _, w := range wrecks {
		err := w.Carve(func(b meta.Bucket, key, value []byte, txg uint64) error {
			p.txg = max(p.txg, txg)
			if p.values[b] == nil {
				p.values[b] = map[string]carved{}
			}
			if old, ok := p.values[b][string(key)]; !ok || old.txg < txg {
				p.values[b][string(key)] = carved{slices.Clone(value), txg}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, b := range meta.Buckets() {
		p.prune(b, wrecks)
	}
	return p, nil
}

// prune takes out what is not in a bucket that can be walked over.
func (p *pages) prune(b meta.Bucket, wrecks []*meta.Wreck) {
	for _, w := range wrecks {
		for _, s := range w.States() {
			if s.Txg == 0 || s.Txg < p.txg {
				continue // an older one lacks what came since
			}
			have := map[string]bool{}
			err := s.Each(b, func(key, _ []byte, _ error) error {
				have[string(key)] = true
				return nil
			})
			if err != nil || b == meta.Nodes {
				continue // nodes that are not used any more may be what is looked for
			}
			maps.DeleteFunc(p.values[b], func(key string, _ carved) bool { return !have[key] })
			return
		}
	}
}

// Get returns the newest value of a key.
func (p *pages) Get(b meta.Bucket, key []byte) ([]byte, error) {
	if v, ok := p.values[b][string(key)]; ok {
		return v.value, nil
	}
	return nil, nil
}

// Each calls f with the newest value of each key.
func (p *pages) Each(b meta.Bucket, f func(key, value []byte, damage error) error) error {
	for _, key := range slices.SortedFunc(maps.Keys(p.values[b]), func(a, b string) int { return cmp.Compare(a, b) }) {
		if err := f([]byte(key), p.values[b][key].value, nil); err != nil {
			return err
		}
	}
	return nil
}
