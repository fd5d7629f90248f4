package fusefs

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// A Mounted is a mounted filesystem that is being served: a union, which is
// [Layered] too, or another one.
type Mounted interface {
	Controller
	// Info says what is mounted where.
	Info() Info
	// Wait returns when the filesystem was unmounted and all requests are
	// answered.
	Wait() error
}

// InBackground reports whether this process was started by [Background] and is
// to serve.
func InBackground() bool { return daemon.InBackground() }

// Background starts this very command line again as the server and returns when
// its mount is usable or could not be made, see package daemon. The server is to
// call [Serve].
//
// The arguments stay the same because callers find a server by what they
// mounted: they look for "upperdir=…" in /proc/PID/cmdline.
func Background() (Info, error) {
	var info Info
	return info, daemon.Start(os.Args, &info)
}

// ServeConfig says how [Serve] runs a mount.
type ServeConfig struct {
	Mount   func() (Mounted, error)
	Log     *log.Logger // writes to stderr until the server is in the background
	LogFile string      // where it writes then; empty: syslog, or a file beside the socket
	// AutoUnmount removes the mount when the server is killed or crashes.
	AutoUnmount bool
	Version     string     // of the program, for the control socket
	Ready       func(Info) // called when the mount is usable; may be nil
}

// Serve mounts a filesystem and serves it until it is unmounted, by SIGTERM,
// SIGINT or SIGHUP at the latest. SIGUSR1 logs the counters. In a process started by
// [Background] an error of mounting goes to the parent.
func Serve(cfg ServeConfig) error {
	parent := daemon.TakeParent()
	info, err := serve(cfg, parent)
	if err != nil && info == nil && parent != nil && parent.Fail(err) == nil {
		os.Exit(1)
	}
	return err
}

// serve returns the mount's Info once it was usable, and an error of mounting
// or of serving.
func serve(cfg ServeConfig, parent *daemon.Parent) (*Info, error) {
	daemon.Prepare()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	defer signal.Stop(signals)

	mount, err := cfg.Mount()
	if err != nil {
		return nil, err
	}
	info := mount.Info()
	info.Version = cfg.Version
	leave, err := cfg.settleIn(mount, info, parent)
	defer leave()
	if err != nil {
		return nil, errors.Join(err, mount.Unmount(true), mount.Wait())
	}
	if cfg.Ready != nil {
		cfg.Ready(info)
	}
	ended := make(chan struct{})
	defer close(ended)
	go handleSignals(signals, ended, mount, info, cfg.Log)
	if err := mount.Wait(); err != nil {
		cfg.Log.Printf("%s: %v", info.Target, err)
		return &info, err
	}
	return &info, nil
}

// settleIn sees to a fresh mount, moves the server to the background and tells
// the parent. leave undoes it, also when something failed on the way.
func (cfg *ServeConfig) settleIn(mount Mounted, info Info, parent *daemon.Parent) (leave func(), err error) {
	leave, err = Attend(mount, info, cfg.Log, cfg.AutoUnmount)
	if err != nil || parent == nil {
		return leave, err
	}
	noCrash, err := cfg.detach(info)
	if err != nil {
		return leave, err
	}
	unattend := leave
	leave = func() { noCrash(); unattend() }
	err = parent.Ready(&info)
	if err != nil { // interrupted: who asked for the mount takes it for failed
		cfg.Log.Printf("%s: unmounted again: the command that asked for it was killed", info.Target)
	}
	return leave, err
}

// Attend gives a mount of this process what it needs to be looked after: a
// control socket, and with autoUnmount a guard that removes the mount when this
// process is killed or crashes. leave undoes it, also after an error; it is for
// when the mount is gone. [Serve] does this for the one mount that it serves; it
// is for processes that serve several, or other things too.
func Attend(mount Mounted, info Info, logger *log.Logger, autoUnmount bool) (leave func(), err error) {
	leave = func() {}
	if socket, err := ListenControl(mount, info, logger); err != nil { // the mount is good without it
		logger.Printf("%s: lamina ps will not show this mount: %v", info.Target, err)
	} else {
		leave = socket.Close
	}
	if !autoUnmount {
		return leave, nil
	}
	g, err := startGuard(info)
	if err != nil {
		return leave, err
	}
	unlisten := leave
	return func() { g.release(); unlisten() }, nil
}

// detach moves the server to the background. What it makes there is named as
// its control socket is.
func (cfg *ServeConfig) detach(info Info) (leave func(), err error) {
	var to daemon.Place
	if cfg.LogFile != "" {
		if to.Log, err = daemon.OpenLog(cfg.LogFile); err != nil {
			return nil, fmt.Errorf("option logfile: %w", err)
		}
	} else if dir, err := control.RuntimeDir(); err == nil {
		to.Beside = filepath.Join(dir, info.Dev)
	}
	return daemon.Detach(cfg.Log, to)
}

// handleSignals ends the mount on SIGTERM, SIGINT and SIGHUP. A busy one goes out of
// sight, and the server ends with the last file that is closed; a second signal
// ends the server at once.
func handleSignals(signals <-chan os.Signal, ended <-chan struct{}, mount Mounted, info Info, logger *log.Logger) {
	for {
		var sig os.Signal
		select {
		case <-ended:
			return
		case sig = <-signals:
		}
		if sig == unix.SIGUSR1 {
			logger.Printf("counters of %s:\n%s", info.Target, mount.Counters())
			continue
		}
		signal.Reset(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		err := mount.Unmount(false)
		if errors.Is(err, unix.EBUSY) {
			logger.Printf("%s is in use; it is detached now and the server ends when the last file is closed", info.Target)
			err = mount.Unmount(true)
		}
		if err != nil {
			logger.Printf("%v: %v", sig, err)
		}
	}
}

// NewLogger returns a logger for servers: on stderr with the name of the
// program, as error messages of commands are.
func NewLogger(name string) *log.Logger { return log.New(os.Stderr, name+": ", log.Lmsgprefix) }
