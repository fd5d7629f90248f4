//go:build integration

package kernel

import (
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// An op is one operation as data, so that it runs on several mounts, prints,
// and can be left out of a list.
type op struct {
	Do    string `json:"do"`
	A     string `json:"a,omitempty"` // a path from the mountpoint
	B     string `json:"b,omitempty"` // another one, or the target of a symbolic link
	Slot  int    `json:"slot,omitempty"`
	Other int    `json:"other,omitempty"` // another slot
	Flags int    `json:"flags,omitempty"`
	Mode  uint32 `json:"mode,omitempty"`
	Off   int64  `json:"off,omitempty"`
	N     int64  `json:"n,omitempty"`
	UID   int    `json:"uid,omitempty"`
	GID   int    `json:"gid,omitempty"`
	Name  string `json:"name,omitempty"` // of an extended attribute
	Value []byte `json:"value,omitempty"`
	As    int    `json:"as,omitempty"` // index into people
	Umask int    `json:"umask,omitempty"`
	Said  string `json:"said,omitempty"` // the result, for who reads the list
}

// op without methods.
type plainOp op

// MarshalJSON writes names that are no UTF-8 with percent signs, which no name
// of the vocabulary has.
func (o op) MarshalJSON() ([]byte, error) {
	p := plainOp(o)
	for _, name := range []*string{&p.A, &p.B, &p.Name} {
		if !utf8.ValidString(*name) {
			*name = url.PathEscape(*name)
		}
	}
	return json.Marshal(p)
}

func (o *op) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, (*plainOp)(o)); err != nil {
		return err
	}
	for _, name := range []*string{&o.A, &o.B, &o.Name} {
		plain, err := url.PathUnescape(*name)
		if err != nil {
			return err
		}
		*name = plain
	}
	return nil
}

// people are who operations run as.
var people = []struct {
	uid, gid int
	groups   []uint32
}{{0, 0, nil}, {1000, 1000, nil}, {1001, 1001, []uint32{1000}}}

// A side is a mount that operations run on.
type side struct {
	name  string
	root  string
	fd    int // of root
	files [slots]*openFile
}

// slots is how many descriptors are kept open over other operations.
const slots = 6

type openFile struct {
	fd  int
	mem []byte // a shared mapping of it, nil without
}

// open gives the side its mount; close must come before it is unmounted.
func (s *side) open(root string) (err error) {
	s.root = root
	s.fd, err = unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

func (s *side) close() {
	for i := range s.files {
		s.closeSlot(i)
	}
	unix.Close(s.fd)
}

func (s *side) closeSlot(i int) {
	f := s.files[i]
	if f == nil {
		return
	}
	if f.mem != nil {
		unix.Munmap(f.mem)
	}
	unix.Close(f.fd)
	s.files[i] = nil
}

// path returns a path for calls that have no form with a directory descriptor.
func (s *side) path(rel string) string { return filepath.Join(s.root, rel) }

// rel returns a path for calls with the descriptor of the root.
func rel(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// errNoSlot is the result of an operation on a slot with nothing in it.
var errNoSlot = errors.New("no descriptor")

func (s *side) slot(i int) (*openFile, error) {
	if f := s.files[i]; f != nil {
		return f, nil
	}
	return nil, errNoSlot
}

// run does an operation as somebody and returns its result as text: what it
// returned, or the name of its errno.
func (s *side) run(o op) (result string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a mapping beyond the end
	defer func() {
		if e, ok := recover().(interface{ Addr() uintptr }); ok && e != nil {
			result = "SIGBUS"
		}
	}()
	leave := become(o)
	defer leave()
	out, err := verbs[o.Do].do(s, o)
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return strings.TrimSpace(out + " " + unix.ErrnoName(errno))
	case err != nil:
		return err.Error()
	}
	return strings.TrimSpace("ok " + out)
}

// become takes on the ids and umask of an operation. The calls are raw: the ids
// are those of this thread, which belongs to the test.
func become(o op) (leave func()) {
	umask := unix.Umask(o.Umask)
	p := people[o.As]
	if p.uid == 0 {
		return func() { unix.Umask(umask) }
	}
	must(setGroups(p.groups))
	must(setIDs(unix.SYS_SETRESGID, p.gid))
	must(setIDs(unix.SYS_SETRESUID, p.uid))
	return func() {
		must(setIDs(unix.SYS_SETRESUID, 0))
		must(setIDs(unix.SYS_SETRESGID, 0))
		must(setGroups(nil))
		unix.Umask(umask)
	}
}

// must stops a test that would run on with somebody else's ids.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "change the ids of a thread:", err)
		os.Exit(1)
	}
}

// statLine is what fstat and lstat results are compared by.
func statLine(st *unix.Stat_t) string {
	kind := st.Mode & unix.S_IFMT
	line := fmt.Sprintf("%s %04o %d:%d", typeNames[kind], st.Mode&0o7777, st.Uid, st.Gid)
	if kind == unix.S_IFDIR {
		return line
	}
	return fmt.Sprintf("%s size %d nlink %d", line, st.Size, st.Nlink)
}

func (s *side) lstat(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(s.fd, rel(path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", err
	}
	return statLine(&st), nil
}

func fstat(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	return statLine(&st), nil
}

func digest(b []byte) string { return fmt.Sprintf("%d bytes %.6x", len(b), md5.Sum(b)) }
