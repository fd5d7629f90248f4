package blockpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// checkReplicas looks at each replica as it was found, and compares those that
// are whole.
func (c *checker) checkReplicas(store *meta.Store) {
	var whole []string
	infos := store.Replicas()
	anyWhole := slices.ContainsFunc(infos, func(i meta.ReplicaInfo) bool { return i.Problem == nil })
	for _, i := range infos {
		c.replica(i, store.Txg(), anyWhole)
		if i.Problem == nil && i.Found == store.Txg() {
			whole = append(whole, i.Path)
		}
	}
	for i := 1; i < len(whole); i++ {
		if what := compareReplicas(whole[0], whole[i], store.GUID()); what != "" {
			c.r.add(Finding{Kind: FindReplicaDiffers, Replica: whole[i], Text: fmt.Sprintf("it differs from %s: %s", whole[0], what)})
		}
	}
}

// replica reports what is wrong with one replica; anyWhole tells whether another
// one makes up for it.
func (c *checker) replica(i meta.ReplicaInfo, txg uint64, anyWhole bool) {
	f := Finding{Kind: FindReplica, Replica: i.Path}
	if !anyWhole {
		f.Severity, f.Repair = Damage, bySalvage
	}
	switch {
	case i.Rebuilt && i.Err == nil && !i.Damaged:
		return
	case i.Problem != nil:
		f.Text = i.Problem.Error()
	case i.Damaged:
		f.Text = "damage was met in it since it was opened"
	case i.Found < txg && c.online == nil:
		f.Kind, f.Severity, f.Repair = FindReplicaOld, "", ""
		f.Text = fmt.Sprintf("it has txg %d, the newest one has %d", i.Found, txg)
	case i.Err != nil && !errors.Is(i.Err, meta.ErrClosed):
		f.Text = i.Err.Error()
	default:
		return
	}
	c.r.add(f)
}

// compareReplicas returns the first difference between two replicas, or "".
func compareReplicas(a, b string, guid GUID) string {
	x, err := digest(a, guid)
	if err != nil {
		return err.Error()
	}
	y, err := digest(b, guid)
	if err != nil {
		return err.Error()
	}
	for i, bucket := range meta.Buckets() {
		if x[i] != y[i] {
			return fmt.Sprintf("bucket %v has other contents", bucket)
		}
	}
	return ""
}

// digest returns a hash of each bucket of a replica.
func digest(path string, guid GUID) (sums []uint64, err error) {
	store, err := meta.Open([]string{path}, guid, meta.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	view, err := store.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	for _, b := range meta.Buckets() {
		h := xxhash.New()
		var lengths [8]byte
		err := view.Scan(b, nil, func(key, value []byte) error {
			if b == meta.Txg {
				return nil // the time of the commit, which each replica has its own of
			}
			binary.LittleEndian.PutUint32(lengths[:], uint32(len(key)))
			binary.LittleEndian.PutUint32(lengths[4:], uint32(len(value)))
			h.Write(lengths[:])
			h.Write(key)
			h.Write(value)
			return nil
		})
		if err != nil {
			return nil, err
		}
		sums = append(sums, h.Sum64())
	}
	return sums, nil
}

// anyExists reports whether one of the files is there.
func anyExists(paths []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}
