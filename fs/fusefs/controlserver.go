package fusefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// A ControlServer answers on the control socket of one mounted filesystem.
type ControlServer struct {
	mount  Controller
	info   Info
	socket *control.Server
}

// ListenControl makes the control socket of a mounted filesystem, in the
// directory of this user where [Live] and [Dial] find it, and answers on it
// until Close. It is named by the device number of the mount: those of live
// filesystems are unique over all namespaces of a machine, pids are not.
func ListenControl(mount Controller, info Info, logger *log.Logger) (*ControlServer, error) {
	dir, err := control.RuntimeDir()
	if err != nil {
		return nil, err
	}
	s := &ControlServer{mount: mount, info: info}
	s.socket, err = control.Listen(filepath.Join(dir, info.Dev+socketSuffix), s.answer, logger)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close removes the socket, ends all connections and waits for them.
func (s *ControlServer) Close() { s.socket.Close() }

// answer carries out one request.
func (s *ControlServer) answer(line []byte) (any, error) {
	var req controlRequest
	if err := json.Unmarshal(line, &req); err != nil {
		return nil, fmt.Errorf("a request is one JSON object per line: %w", err)
	}
	switch req.Op {
	case opInfo:
		return s.info, nil
	case opCounters:
		return s.mount.Counters(), nil
	case opLayers:
		return s.layers(), nil
	case opOptions:
		return s.mount.Options(), nil
	case opAddLower:
		if !filepath.IsAbs(req.Path) {
			return nil, fmt.Errorf("add %q: %w; the path must be absolute, the server has a working directory of its own", req.Path, unix.EINVAL)
		}
		union, err := s.layered()
		if err != nil {
			return nil, err
		}
		return nil, named("add lower", req.Path, union.AddLower(req.Index, req.Path))
	case opDelLower:
		return nil, named("remove lower", req.Path, s.delLower(req.Path))
	case opMod:
		return nil, setReadOnly(s.info.Target, req.ReadOnly)
	case opUnmount:
		return nil, s.mount.Unmount(req.Lazy)
	case opTrace:
		if t, ok := s.mount.(Traced); ok {
			return t.TraceEvents(req.After, traceWait), nil
		}
		return nil, fmt.Errorf("%s is mounted as %s, which cannot be traced: %w", s.info.Target, s.info.Type, unix.EOPNOTSUPP)
	case opMetrics:
		return Metrics(s.info, s.mount.Counters()), nil
	}
	return nil, fmt.Errorf("unknown operation %q (%w); known: info, counters, layers, options, add-lower, del-lower, mod, unmount, trace, metrics", req.Op, unix.EOPNOTSUPP)
}

// layers returns the layers, none where the mount has no such thing.
func (s *ControlServer) layers() []LayerInfo {
	if union, ok := s.mount.(Layered); ok {
		return union.Layers()
	}
	return nil
}

func (s *ControlServer) layered() (Layered, error) {
	if union, ok := s.mount.(Layered); ok {
		return union, nil
	}
	return nil, fmt.Errorf("%s is mounted as %s, which has no layers: %w", s.info.Target, s.info.Type, unix.EOPNOTSUPP)
}

// named adds operation and object to an error that is nothing but an errno.
func named(op, path string, err error) error {
	if errno, ok := err.(unix.Errno); ok {
		return &os.PathError{Op: op, Path: path, Err: errno}
	}
	return err
}

// delLower finds the lower that was meant: users may write its path in another
// way than it was mounted with.
func (s *ControlServer) delLower(path string) error {
	union, err := s.layered()
	if err != nil {
		return err
	}
	err = union.DelLower(path)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	wanted, statErr := os.Stat(path)
	if statErr != nil {
		return err
	}
	for _, l := range union.Layers() {
		if l.Role == RoleUpper || l.Path == path {
			continue
		}
		if is, statErr := os.Stat(l.Path); statErr == nil && os.SameFile(is, wanted) {
			return union.DelLower(l.Path)
		}
	}
	return err
}
