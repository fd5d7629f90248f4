// Package views runs the userspace servers that show layers: in this process, or
// each in one of its own that outlives it.
package views

import (
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
	"github.com/laminafs/lamina/fs/mountopt"
)

// serverEnd is how long unmounting waits for a server to let go of the layers.
const serverEnd = 10 * time.Second

// InProcess serves views from this process; they end with it.
func InProcess() driver.Servers { return &inProcess{served: map[string]*served{}} }

type inProcess struct {
	mu     sync.Mutex
	served map[string]*served // by target
}

type served struct {
	ended chan struct{}
	err   error // of the server, once it has ended
}

func (p *inProcess) Serve(o mountopt.Options, target string) error {
	callerDefaults(&o)
	s, err := fusefs.Mount(fusefs.Config{Options: o, Target: target, Log: log.New(io.Discard, "", 0)})
	if err != nil {
		return err
	}
	entry := &served{ended: make(chan struct{})}
	p.mu.Lock()
	p.served[target] = entry
	p.mu.Unlock()
	go func() {
		entry.err = s.Wait()
		close(entry.ended)
	}()
	return nil
}

func (p *inProcess) Unmount(target string, lazy bool) error {
	p.mu.Lock()
	entry := p.served[target]
	p.mu.Unlock()
	if entry == nil {
		return unmount(target, lazy)
	}
	if err := fusefs.Unmount(target, lazy); err != nil {
		return err
	}
	if lazy {
		return nil
	}
	<-entry.ended
	p.mu.Lock()
	delete(p.served, target)
	p.mu.Unlock()
	return entry.err
}

// Background serves each view from a process of its own: this program, started
// again with the arguments that argv returns, which must have it call
// fusefs.Serve.
func Background(argv func(o mountopt.Options, target string) []string) driver.Servers {
	return background{argv}
}

type background struct {
	argv func(o mountopt.Options, target string) []string
}

func (b background) Serve(o mountopt.Options, target string) error {
	callerDefaults(&o)
	var info fusefs.Info
	return daemon.Start(b.argv(o, target), &info)
}

func (background) Unmount(target string, lazy bool) error { return unmount(target, lazy) }

// unmount takes away what anybody has mounted, and waits for its server if that
// is one of lamina's.
func unmount(target string, lazy bool) error {
	server, err := fusefs.Dial(target)
	if err != nil { // the kernel's, or a server that died
		return fusefs.Unmount(target, lazy)
	}
	defer server.Close()
	if err := fusefs.Unmount(target, lazy); err != nil || lazy {
		return err
	}
	if err := server.WaitEnd(serverEnd); err != nil {
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
