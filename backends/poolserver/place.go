package poolserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// A Place is where a pool is: the directory with its metadata. The pool's files
// that were not given another place lie there too, and so does the socket of its
// server.
type Place struct {
	Dir string // absolute
}

// ErrNoPool says that there is no pool in a place.
var ErrNoPool = errors.New("no such pool")

// DefaultRoot returns the directory where pools are made and found by name:
// /var/lib/lamina/pools for root, and XDG_DATA_HOME/lamina/pools, which is
// ~/.local/share/lamina/pools unless set, for others.
func DefaultRoot() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/lamina/pools", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lamina/pools"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for pools: %w; set XDG_DATA_HOME or give --root DIR", err)
	}
	return filepath.Join(home, ".local/share/lamina/pools"), nil
}

// IsPath tells the path of a pool from its name.
func IsPath(name string) bool { return strings.Contains(name, "/") || name == "." || name == ".." }

// NewPlace returns where a pool of that name, or path, is to be made.
func NewPlace(root, name string) (Place, error) {
	if !IsPath(name) {
		if err := blockpool.CheckName(name); err != nil {
			return Place{}, fmt.Errorf("pool %q: %w", name, err)
		}
		name = filepath.Join(root, name)
	}
	dir, err := filepath.Abs(name)
	return Place{Dir: dir}, err
}

// Locate finds a pool by its name below root, or by the path of its directory, of
// a replica of its metadata or of one of its devices. It is [ErrNoPool] when there
// is none.
func Locate(root, name string) (Place, error) {
	if !IsPath(name) {
		return named(root, name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return Place{}, err
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Place{}, fmt.Errorf("%s: %w there", path, ErrNoPool)
	case err != nil:
		return Place{}, err
	case st.IsDir():
		p := Place{Dir: path}
		return p, p.check()
	case isReplica(path):
		return Place{Dir: filepath.Dir(path)}, nil
	}
	id, err := blockpool.Identify(path)
	if err != nil {
		return Place{}, err
	}
	for _, replica := range id.Replicas {
		if _, err := os.Stat(replica); err == nil && isReplica(replica) {
			return Place{Dir: filepath.Dir(replica)}, nil
		}
	}
	return Place{}, fmt.Errorf("%s is a device of pool %s, whose metadata is gone from %s: %w", path, id.Name, strings.Join(id.Replicas, " and "), ErrNoPool)
}

// named is [NewPlace] for a pool that must exist.
func named(root, name string) (Place, error) {
	p, err := NewPlace(root, name)
	if err != nil {
		return p, err
	}
	if err := p.check(); errors.Is(err, ErrNoPool) {
		return p, fmt.Errorf("%w called %s in %s; see: lamina pool list", ErrNoPool, name, root)
	} else if err != nil {
		return p, err
	}
	return p, nil
}

// isReplica reports whether a file is called as metadata is.
func isReplica(path string) bool {
	ok, _ := filepath.Match("meta-*.db", filepath.Base(path)) // fails for a bad pattern only
	return ok
}

// check returns ErrNoPool where no metadata is, and an error where the user may
// not look.
func (p Place) check() error {
	entries, err := os.ReadDir(p.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: %w there", p.Dir, ErrNoPool)
	case err != nil:
		return fmt.Errorf("look for a pool: %w", err)
	}
	for _, e := range entries {
		if isReplica(e.Name()) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w there", p.Dir, ErrNoPool)
}

// List returns the pools below root.
func List(root string) ([]Place, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	var list []Place
	for _, e := range entries {
		p := Place{Dir: filepath.Join(root, e.Name())}
		if p.check() == nil {
			list = append(list, p)
		}
	}
	return list, nil
}

// Name returns the name under which the pool is found below its root.
func (p Place) Name() string { return filepath.Base(p.Dir) }

// socket is where the server listens. It lies beside the metadata, so whoever can
// reach the pool's files can reach it, and nobody else.
func (p Place) socket() string { return filepath.Join(p.Dir, "server.control") }

// beside is where the server leaves its log.
func (p Place) beside() string { return filepath.Join(p.Dir, "server") }

// File returns the path of data file number i of a pool whose devices are files in
// its directory.
func (p Place) File(i int) string { return filepath.Join(p.Dir, fmt.Sprintf("data-%d.img", i)) }

// Files returns the data files in the directory. The pool's devices are looked for
// among them, so the directory can be moved as a whole.
func (p Place) Files() []string {
	found, _ := filepath.Glob(filepath.Join(p.Dir, "data-*.img")) // fails for a bad pattern only
	return found
}

// runtimeTarget makes and returns a directory of the user's for mounts that nobody
// chose a place for.
func runtimeTarget(guid blockpool.GUID) (string, error) {
	dir, err := control.RuntimeDir()
	if err != nil {
		return "", err
	}
	target := filepath.Join(dir, "pool-"+guid.String()[:12])
	if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return target, nil
}

// Destroy removes the pool, which must have no server: its metadata, its labels,
// and its data files in the directory; the directory too when nothing else is in
// it. With force also what is left of a pool that cannot be opened.
//
// Crash on the way: labels and metadata go first, so what is left is no pool's.
func (p Place) Destroy(force bool) error {
	files := p.Files()
	err := blockpool.Destroy(p.Dir, blockpool.OpenOptions{SearchDevices: files})
	if err != nil && (!force || errors.Is(err, blockpool.ErrInUse)) {
		return fmt.Errorf("%w; to remove what is left of it use --force", err)
	}
	links, _ := filepath.Glob(filepath.Join(p.Dir, "meta-*.db")) // fails for a bad pattern only
	for _, path := range slices.Concat(links, files, []string{p.socket(), p.rememberedPath(), p.beside() + ".log", p.beside() + daemon.CrashSuffix}) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("destroy pool %s: %w", p.Name(), err)
		}
	}
	os.Remove(p.Dir) // fails when somebody has put something else there
	return nil
}
