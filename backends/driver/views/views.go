// Package views runs the userspace servers that show layers, each in a process
// of its own that outlives whoever asked for it.
//
// There is no server within the process that uses the view: the Go runtime polls
// every file that it opens, on a thread that it does not let go of meanwhile, so
// a process that opens files of its own server can come to wait for itself.
package views

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
	"github.com/laminafs/lamina/fs/mountopt"
)

// serverEnd is how long unmounting waits for a server to let go of the layers.
const serverEnd = 10 * time.Second

// Background serves each view from a process of its own: this program, started
// again with the arguments that argv returns, which must have it call
// [fusefs.Serve]. A nil argv is for who only unmounts.
func Background(argv func(o mountopt.Options, target string) []string) driver.Servers {
	return background{argv}
}

type background struct {
	argv func(o mountopt.Options, target string) []string
}

func (b background) Serve(o mountopt.Options, target string) error {
	if b.argv == nil {
		return fmt.Errorf("serving a view is %w: this program has no way to start servers", driver.ErrUnsupported)
	}
	callerDefaults(&o)
	var info fusefs.Info
	if err := daemon.Start(b.argv(o, target), &info); err != nil {
		return err
	}
	// The kernel takes the root of a new mount for root's until it has asked once,
	// and would refuse its owner a chmod that comes first.
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return fmt.Errorf("look at the new view on %s: %w", target, err)
	}
	return nil
}

// Unmount takes away what anybody has mounted, and waits for its server if that
// is one of lamina's and serves nobody else: a mount namespace that was made meanwhile
// can have a copy of the view, which then goes on, as one of the kernel's would.
func (background) Unmount(target string, lazy bool) error {
	server, err := fusefs.Dial(target)
	if err != nil { // the kernel's, or a server that died
		return fusefs.Unmount(target, lazy)
	}
	defer server.Close()
	if err := fusefs.Unmount(target, lazy); err != nil || lazy {
		return err
	}
	err = server.WaitEnd(serverEnd)
	if elsewhere := (*fusefs.ElsewhereError)(nil); errors.As(err, &elsewhere) {
		return nil // as with a mount of the kernel's; what was written is with the layers
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// callerDefaults are what containers need of a view.
func callerDefaults(o *mountopt.Options) {
	if o.Atime == mountopt.AtimeDefault {
		o.Atime = mountopt.AtimeNever
	}
	if os.Geteuid() == 0 && !o.AllowRoot {
		o.AllowOther = true
	}
}
