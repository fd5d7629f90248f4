package blockpool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// bbolt writes to real files, which no journal of devices sees. But what a commit
// does is known (bbolt's Tx.Commit): it grows the file; writes pages to free places;
// fdatasync; writes one of the two meta pages; fdatasync. So a commit is recorded by
// comparing the files before and after it, and entered into the journal twice, where
// it began and where it ended. A crash between the two leaves any part of it, whatever
// the devices did meanwhile.

// A boltFile is the content of one replica: its pages in use, and its size.
type boltFile struct {
	pages []byte
	size  int64
}

const boltPage = 4096

// readBolt reads a file up to the last page that one of its meta pages knows.
func readBolt(path string) (boltFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return boltFile{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return boltFile{}, err
	}
	head := make([]byte, 2*boltPage)
	if _, err := io.ReadFull(f, head); err != nil {
		return boltFile{}, err
	}
	// The number of pages follows header, magic, version, page size, flags, root,
	// and free list.
	limit := max(binary.NativeEndian.Uint64(head[56:]), binary.NativeEndian.Uint64(head[boltPage+56:]))
	pages := make([]byte, min(int64(limit)*boltPage, st.Size()))
	_, err = f.ReadAt(pages, 0)
	return boltFile{pages, st.Size()}, err
}

func (b boltFile) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b.pages); err != nil {
		return err
	}
	return f.Truncate(b.size)
}

// A boltCommit is one commit of the metadata to all replicas, in order.
type boltCommit struct{ before, after []boltFile }

// A boltMoment is where a commit began, or ended, in the journal.
type boltMoment struct {
	*boltCommit
	ended bool
}

// A boltRecorder enters commits into a journal.
type boltRecorder struct {
	journal *memdev.Journal
	paths   []string
	pause   time.Duration

	mu  sync.Mutex
	now []boltFile
	err error
}

// newBoltRecorder begins with the files as they are.
func newBoltRecorder(j *memdev.Journal, paths []string) (*boltRecorder, error) {
	r := &boltRecorder{journal: j, paths: paths}
	now, err := r.read()
	r.now = now
	return r, err
}

func (r *boltRecorder) read() (all []boltFile, err error) {
	for _, path := range r.paths {
		f, err := readBolt(path)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// commit is Tunables.commit.
func (r *boltRecorder) commit(commit func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &boltCommit{before: r.now, after: r.now} // as long as it is not known better
	r.journal.Add(boltMoment{c, false})
	time.Sleep(r.pause) // others are at work meanwhile, as when a disk is slow
	err := commit()
	now, readErr := r.read()
	if readErr != nil {
		r.err = readErr
		return err
	}
	c.after, r.now = now, now
	r.journal.Add(boltMoment{c, true})
	return err
}

// boltState returns the files after a crash: base is what they were before the
// first commit that the journal has.
func boltState(s *memdev.State, base []boltFile) []boltFile {
	all := s.Foreign()
	if len(all) == 0 {
		return base
	}
	last := all[len(all)-1].(boltMoment)
	if last.ended {
		return last.after
	}
	return last.crash(rand.New(rand.NewPCG(s.Seed, uint64(s.At))), s.Seed == 0)
}

// crash returns the files when the commit was under way. With whole only the
// process has ended: what was written is there as a whole.
func (c *boltCommit) crash(rng *rand.Rand, whole bool) []boltFile {
	files := append([]boltFile{}, c.before...)
	hit := rng.IntN(len(files))
	copy(files[:hit], c.after)
	before, after := c.before[hit], c.after[hit]
	f := boltFile{make([]byte, max(len(before.pages), len(after.pages))), max(before.size, after.size)}
	copy(f.pages, before.pages)
	stage := rng.IntN(5)
	if stage == 4 {
		f.pages = append(f.pages[:0], after.pages...)
	}
	most := rng.IntN(5)
	for off := 2 * boltPage; off < len(after.pages) && stage < 4; off += boltPage {
		page := after.pages[off : off+boltPage]
		if bytes.Equal(f.pages[off:off+boltPage], page) {
			continue
		}
		switch {
		case stage == 0 || stage == 1 && rng.IntN(4) >= most:
		case stage == 1 && !whole && rng.IntN(3) == 0:
			for s := 0; s < boltPage; s += 512 {
				if rng.IntN(2) == 0 {
					copy(f.pages[off+s:off+s+512], page[s:])
				}
			}
		default:
			copy(f.pages[off:], page)
		}
	}
	if stage == 3 && !whole { // the meta page is torn, within a sector even
		n := rng.IntN(81)
		for off := 0; off < 2*boltPage; off += boltPage {
			if !bytes.Equal(before.pages[off:off+boltPage], after.pages[off:off+boltPage]) {
				copy(f.pages[off:off+n], after.pages[off:])
			}
		}
	}
	files[hit] = f
	return files
}

// writeBolt makes files of a pool in a directory.
func writeBolt(dir string, files []boltFile) error {
	for i, f := range files {
		if err := f.write(ReplicaName(dir, i)); err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
	}
	return nil
}
