package fusefs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// socketSuffix ends the names of the control sockets of mounts: 0:53.sock.
const socketSuffix = ".sock"

// Live returns a connection to every server that this user may talk to, in
// order of their mount points, and sweeps the sockets of dead ones. The caller
// closes the clients.
func Live() ([]*Client, error) {
	var clients []*Client
	var failed []error
	for _, dir := range control.SearchDirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
			continue // nothing of ours
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, entry := range entries {
			if !strings.HasSuffix(entry.Name(), socketSuffix) {
				continue
			}
			c, err := dialSocket(filepath.Join(dir, entry.Name()))
			if err == nil {
				clients = append(clients, c)
			} else if !errors.Is(err, control.ErrDeadServer) {
				failed = append(failed, err)
			}
		}
	}
	slices.SortFunc(clients, func(a, b *Client) int {
		return cmp.Or(strings.Compare(a.Info.Target, b.Info.Target), a.Info.Started.Compare(b.Info.Started))
	})
	return clients, errors.Join(failed...)
}

// Dial connects to the server of the union that is mounted on target. Where
// several lie on top of each other it is the topmost.
func Dial(target string) (*Client, error) {
	path, err := mountPath(target)
	if err != nil {
		return nil, err
	}
	live, failed := Live()
	mounts, err := mountsOn(path)
	if err != nil {
		return nil, err
	}
	found := pick(live, path, mounts)
	for _, c := range live {
		if c != found {
			c.Close()
		}
	}
	switch {
	case found != nil:
		return found, nil
	case failed != nil:
		return nil, fmt.Errorf("%s: no server found, and some did not answer: %w", target, failed)
	case len(mounts) == 0:
		return nil, fmt.Errorf("%s is not mounted; see what is with: lamina ps", target)
	case mounts[len(mounts)-1].FSType == "overlay":
		return nil, fmt.Errorf("%s is served by kernel overlayfs, which has no counters and cannot change its layers; mount with --engine fuse for those", target)
	default:
		return nil, fmt.Errorf("%s is mounted as %s, but no lamina server of yours serves it; see those with: lamina ps", target, mounts[len(mounts)-1].FSType)
	}
}
