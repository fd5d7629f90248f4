// Package stacks finds the stack of layers that a user means, wherever its
// layers are kept, for package inspect to look into.
//
//	STACK                                   where the layers come from
//	/mnt/x                 a mount          its server, or the mount table
//	lowerdir=b:a,upperdir=u                 directories, as for a mount
//	layer/                                  one directory
//	image.tar, oci/        an image         docker-archive, oci-archive, OCI layout
//	layer.tar.gz                            one tar archive
//	docker-archive:FILE:REF and the like    the same, said outright
//	debian, image:debian   the layer store  an image, with the history of its layers
//	work, layer:work       the layer store  a layer and what it is built on
//	tank/home@monday       a pool           what each snapshot of a dataset has changed
//	STACK#3  STACK#2-4                      layers 1 to 3, or 2 to 4, from the bottom
//
// [Open] asks the sources of a table in turn whether the text is theirs. Nothing is
// mounted; what is no directory is unpacked to files without names at most.
package stacks

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/fs/inspect"
)

// Options are what a caller can choose.
type Options struct {
	// Progress is called while archives are indexed; what is the archive's name.
	Progress func(what string, done, total int64)
	// TempDir takes what archives are unpacked to when data is read.
	TempDir string
	// Store opens the layer store, nil for none, [ErrNoStore] where none was made.
	Store func() (*store.Store, error)
	// Pool connects to the server of the pool of a dataset or snapshot, and returns
	// its name within the pool; nil for none.
	Pool func(ctx context.Context, full string) (c *poolserver.Client, name string, err error)
}

// A source knows one kind of stack. It returns nil, nil for text that is not its
// own.
type source struct {
	prefix string // what names it outright, with the colon
	detect func(text string) bool
	open   func(text string, o *Options) (*inspect.Stack, error)
}

// sources are asked in this order.
var sources = []source{
	{"", isMountOptions, openMountOptions},
	{"mount:", isMount, openMount},
	{"oci:", isLayout, openLayout},
	{"dir:", isDirectory, openDirectory},
	{"docker-archive:", nil, openArchive},
	{"oci-archive:", nil, openArchive},
	{"tar:", nil, openTar},
	{"archive:", isFile, openArchive},
	{"image:", nil, openStoreImage},
	{"layer:", nil, openStoreLayer},
	{"dataset:", nil, openDataset},
}

var rangeSuffix = regexp.MustCompile(`#([0-9]+)(-([0-9]+))?$`)

// Open returns the stack that text means. The caller closes it.
func Open(text string, o Options) (*inspect.Stack, error) {
	if m := rangeSuffix.FindStringSubmatch(text); m != nil {
		if _, err := os.Lstat(text); err != nil { // no file of that very name
			return openRange(strings.TrimSuffix(text, m[0]), m[1], m[3], o)
		}
	}
	for _, s := range sources {
		if rest, ok := strings.CutPrefix(text, s.prefix); ok && s.prefix != "" {
			return s.open(rest, &o)
		}
	}
	for _, s := range sources {
		if s.detect != nil && s.detect(text) {
			return s.open(text, &o)
		}
	}
	if _, err := os.Stat(text); err != nil {
		if s, err := openKept(text, &o); s != nil || err != nil {
			return s, err
		}
		return nil, fmt.Errorf("%q is no stack: %w, and no image, layer or dataset is called so; a stack is a mount, a directory, an image or tar archive, lowerdir=A:B, image:NAME, layer:NAME or dataset:POOL/NAME", text, err)
	}
	return nil, fmt.Errorf("%q is neither a directory nor a file", text)
}

func openRange(text, first, last string, o Options) (*inspect.Stack, error) {
	s, err := Open(text, o)
	if err != nil {
		return nil, err
	}
	from, to := first, last
	if last == "" {
		from, to = "1", first
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		a, b = 0, 0 // more than there can be: refused below
	}
	part, err := s.Part(a, b)
	if err != nil {
		s.Close()
		return nil, err
	}
	part.Closers = []func() error{s.Close}
	return part, nil
}
