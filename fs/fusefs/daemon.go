package fusefs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Union is a mounted filesystem that is being served.
type Union interface {
	Controller
	// Info says what is mounted where.
	Info() Info
	// Wait returns when the filesystem was unmounted and all requests are
	// answered.
	Wait() error
}

// readyEnv holds, in the server's process, the number of the descriptor on
// which its parent waits for the mount.
const readyEnv = "LAMINA_READY_FD"

// InBackground reports whether this process was started by [Background] and is
// to serve.
func InBackground() bool { return os.Getenv(readyEnv) != "" }

// started is what the server tells its parent, once.
type started struct {
	Info  *Info  `json:"info,omitempty"`
	Error string `json:"error,omitempty"`
}

// Background starts this very command line again as the server, in a session
// of its own, and returns when its mount is usable or could not be made.
//
//	parent                      server
//	Background ── same argv ──> Serve
//	    │                         mount
//	    │                         let go of stdin, stdout, stderr
//	    <──── Info or error ──────┘
//	exit                          serve until unmounted
//
// A fork would carry over one thread of a Go program only. The arguments stay
// the same because callers find a server by what they mounted: they look for
// "upperdir=…" in /proc/PID/cmdline.
func Background() (Info, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return Info{}, fmt.Errorf("start the server: %w", err)
	}
	defer r.Close()
	pid, err := startAgain(w)
	w.Close()
	if err != nil {
		return Info{}, fmt.Errorf("start the server: %w", err)
	}
	var reply started
	if err := json.NewDecoder(bufio.NewReader(r)).Decode(&reply); err != nil {
		return Info{}, fmt.Errorf("the server ended before its mount was usable: %s", howEnded(pid))
	}
	if reply.Info == nil {
		howEnded(pid) // with status 1, and the reason is in the reply
		return Info{}, errors.New(reply.Error)
	}
	return *reply.Info, nil
}

// startAgain starts this command line with one more descriptor. It does without
// os/exec, whose first use in a process tries out pidfds with a process of
// their own: a tenth of the time that mounting takes.
func startAgain(ready *os.File) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	const readyFD = 3
	return syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), readyEnv+"="+strconv.Itoa(readyFD)),
		// stdout and stderr are the caller's until the server is ready.
		Files: []uintptr{null.Fd(), 1, 2, readyFD: ready.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// howEnded waits for a server that failed.
func howEnded(pid int) string {
	var status unix.WaitStatus
	for {
		switch _, err := unix.Wait4(pid, &status, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("wait4", err).Error()
		case status.Signaled():
			return "signal: " + status.Signal().String()
		default:
			return fmt.Sprintf("exit status %d", status.ExitStatus())
		}
	}
}

// ServeConfig says how [Serve] runs a union.
type ServeConfig struct {
	Mount   func() (Union, error)
	Log     *log.Logger // writes to stderr until the server is in the background
	LogFile string      // where it writes then; empty: syslog, or a file beside the socket
	// AutoUnmount removes the mount when the server is killed or crashes.
	AutoUnmount bool
	Version     string     // of the program, for the control socket
	Ready       func(Info) // called when the mount is usable; may be nil
}

// Serve mounts a union and serves it until it is unmounted, by SIGTERM,
// SIGINT or SIGHUP at the latest. SIGUSR1 logs the counters. In a process started by
// [Background] an error of mounting goes to the parent.
func Serve(cfg ServeConfig) error {
	parent := takeParent()
	info, err := serve(cfg, parent)
	if err != nil && info == nil && parent != nil {
		// The parent prints it. If it died meanwhile, stderr is all that is left.
		if json.NewEncoder(parent).Encode(started{Error: err.Error()}) == nil {
			os.Exit(1)
		}
	}
	return err
}

// takeParent returns the pipe to the parent and hides it from children.
func takeParent() *os.File {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	os.Unsetenv(readyEnv)
	if err != nil {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "parent")
}

// serve returns the mount's Info once it was usable, and an error of mounting
// or of serving.
func serve(cfg ServeConfig, parent *os.File) (*Info, error) {
	prepareProcess()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	defer signal.Stop(signals)

	union, err := cfg.Mount()
	if err != nil {
		return nil, err
	}
	info := union.Info()
	info.Version = cfg.Version
	leave, err := cfg.settleIn(union, info, parent)
	defer leave()
	if err != nil {
		return nil, errors.Join(err, union.Unmount(true), union.Wait())
	}
	if cfg.Ready != nil {
		cfg.Ready(info)
	}
	ended := make(chan struct{})
	defer close(ended)
	go handleSignals(signals, ended, union, info, cfg.Log)
	if err := union.Wait(); err != nil {
		cfg.Log.Printf("%s: %v", info.Target, err)
		return &info, err
	}
	return &info, nil
}

// settleIn gives a fresh mount its control socket and its guard, moves the
// server to the background and tells the parent. leave undoes it, also when
// something failed on the way.
func (cfg *ServeConfig) settleIn(union Union, info Info, parent *os.File) (leave func(), err error) {
	var undo []func()
	leave = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	if control, err := ListenControl(union, info, cfg.Log); err != nil { // the mount is good without it
		cfg.Log.Printf("%s: lamina ps will not show this mount: %v", info.Target, err)
	} else {
		undo = append(undo, control.Close)
	}
	if cfg.AutoUnmount {
		g, err := startGuard(info)
		if err != nil {
			return leave, err
		}
		undo = append(undo, g.release)
	}
	if parent == nil {
		return leave, nil
	}
	crash, err := moveToBackground(cfg, info)
	if err != nil {
		return leave, err
	}
	undo = append(undo, crash.discard)
	err = json.NewEncoder(parent).Encode(started{Info: &info})
	parent.Close()
	if err != nil { // interrupted: who asked for the mount takes it for failed
		cfg.Log.Printf("%s: unmounted again: the command that asked for it was killed", info.Target)
	}
	return leave, err
}

// handleSignals ends the mount on SIGTERM, SIGINT and SIGHUP. A busy one goes out of
// sight, and the server ends with the last file that is closed; a second signal
// ends the server at once.
func handleSignals(signals <-chan os.Signal, ended <-chan struct{}, union Union, info Info, logger *log.Logger) {
	for {
		var sig os.Signal
		select {
		case <-ended:
			return
		case sig = <-signals:
		}
		if sig == unix.SIGUSR1 {
			logger.Printf("counters of %s:\n%s", info.Target, union.Counters())
			continue
		}
		signal.Reset(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		err := union.Unmount(false)
		if errors.Is(err, unix.EBUSY) {
			logger.Printf("%s is in use; it is detached now and the server ends when the last file is closed", info.Target)
			err = union.Unmount(true)
		}
		if err != nil {
			logger.Printf("%v: %v", sig, err)
		}
	}
}
