package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

// A loader fills layers. Its lease keeps them until their image is recorded, and
// takes away what a killed process was filling.
type loader struct {
	ctx   context.Context
	s     *store.Store
	o     LoadOptions
	lease store.Lease
}

func newLoader(ctx context.Context, s *store.Store, o LoadOptions) (*loader, error) {
	lease, err := s.OwnLease()
	return &loader{ctx, s, o, lease}, err
}

func (l *loader) close() { _ = l.s.Release(l.lease.ID) } // else it ends with the process

// layer sees to it that the store has a layer.
func (l *loader) layer(chain digest.Digest, parent string, diff digest.Digest, b *blob, open opener) error {
	err := l.s.Hold(l.lease.ID, chain.String())
	if !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	_, err = l.fill(parent, b, diff, open)
	return err
}

type opener func() (io.ReadCloser, int64, error)

// fill makes a layer under a name of its own, and gives it its chain id when all is
// there and right. want is its diff id, "" when that is to be found out.
func (l *loader) fill(parent string, b *blob, want digest.Digest, open opener) (digest.Digest, error) {
	name := l.temporary()
	made, err := l.s.Create(l.ctx, name, parent, store.CreateOptions{Lease: l.lease.ID})
	if err != nil {
		return "", err
	}
	diff, size, err := l.unpack(&made, b, open)
	if err == nil && want != "" && diff != want {
		err = mismatch("its content", want, diff)
	}
	if err != nil {
		// The caller's context may have ended; what was begun is taken away all the same.
		return "", errors.Join(err, l.s.Remove(context.WithoutCancel(l.ctx), name))
	}
	chain := diff
	if parent != "" {
		chain = chainID(digest.Digest(parent), diff)
	}
	labels := map[string]string{LabelDiffID: diff.String(), LabelSize: strconv.FormatInt(size, 10)}
	_, err = l.s.Commit(l.ctx, name, chain.String(), store.ImageKind, labels)
	if errors.Is(err, driver.ErrExists) { // another process has loaded the same
		err = l.s.Remove(l.ctx, name)
	}
	if err == nil {
		err = l.s.Hold(l.lease.ID, chain.String())
	}
	return diff, err
}

// temporary is the name of a layer that is being filled.
func (l *loader) temporary() string {
	return "loading-" + l.lease.ID + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

// unpack carries an archive out and returns its diff id and length.
func (l *loader) unpack(to *store.Layer, b *blob, open opener) (digest.Digest, int64, error) {
	f, total, err := open()
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	if b.size >= 0 && total != b.size {
		return "", 0, fmt.Errorf("%w: %d bytes, it should be %d", ErrDigest, total, b.size)
	}
	blob := io.Reader(&progress{f, 0, total, b.name, l.o.Progress})
	var compressed *hashed
	if b.digest != "" {
		compressed = newHashed(blob, b.digest.Algorithm())
		blob = compressed
	}
	diff, size, err := l.unpackFrom(to, blob)
	if err != nil {
		return "", 0, err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil { // behind the end of what was compressed
		return "", 0, err
	}
	if compressed != nil {
		if got := compressed.d.Digest(); got != b.digest {
			return "", 0, mismatch("the blob", b.digest, got)
		}
	}
	return diff, size, nil
}

// unpackFrom carries out what a blob holds. Decompressing, the digest of what comes out
// of that, and carrying out go on side by side. When it returns the blob is nobody's.
func (l *loader) unpackFrom(to *store.Layer, blob io.Reader) (digest.Digest, int64, error) {
	z, err := decompress(blob)
	if err != nil {
		return "", 0, err
	}
	defer z.Close()
	unpacked := newReadAhead(&bounded{z, l.o.MaxBytes + l.o.MaxBytes/4})
	defer unpacked.Close()
	plain := newHashed(unpacked, digest.SHA256)
	digested := newReadAhead(plain)
	err = l.apply(to, digested)
	if err = errors.Join(err, digested.Close()); err != nil {
		return "", 0, err
	}
	return plain.d.Digest(), plain.n, nil
}

// apply hands an archive to the driver and keeps beside the layer what the
// driver does not.
func (l *loader) apply(to *store.Layer, plain io.Reader) (err error) {
	path := l.s.Blob(to, "tar-split.gz")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed) // its text packs well at any
	if err != nil {
		return errors.Join(err, f.Close())
	}
	defer func() { err = errors.Join(err, z.Close(), f.Close()) }()
	split, err := asm.NewInputTarStream(plain, storage.NewJSONPacker(z), storage.NewDiscardFilePutter())
	if err != nil {
		return err
	}
	// What the stream hands over piece by piece, one for each header, is gathered.
	gathered := newReadAhead(split)
	defer gathered.Close()
	_, err = l.s.Driver.Apply(l.ctx, to.ID, gathered, bounds(&l.o))
	// Read on to the end, also after an error: the other side of the stream waits.
	_, rest := io.Copy(io.Discard, gathered)
	if err == nil {
		err = rest
	}
	return err
}

// progress tells how far a blob has been read.
type progress struct {
	r           io.Reader
	done, total int64
	name        string
	tell        func(string, int64, int64)
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	if p.tell != nil {
		p.tell(p.name, p.done, p.total)
	}
	return n, err
}
