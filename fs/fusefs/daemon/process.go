package daemon

import (
	"fmt"
	"io"
	"log"
	"log/syslog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Prepare makes the process fit to serve others: as many descriptors as
// it may have, the modes that callers ask for, and the last to be killed when
// memory runs out, because all that runs on the mount would hang or die with
// it.
func Prepare() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // the soft limit serves as well, with more re-opening
	}
	signal.Ignore(unix.SIGPIPE) // a reader of stderr that goes away must not end the mount
	unix.Umask(0)
	protectFromOOM()
}

// oomScore is what long-running system services give themselves. It takes
// CAP_SYS_RESOURCE to go below 0.
const oomScore = -900

func protectFromOOM() {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprint(f, oomScore) // refused to ordinary users, who keep what they have
}

// A Place says where a server in the background writes what nobody reads from
// its stderr any more.
type Place struct {
	// Log receives the log and, should the server crash, what the runtime says.
	// nil: syslog, or a file beside the socket where there is none.
	Log *os.File
	// Beside is the path without its suffix of the files that the server makes
	// without Log: Beside+".log" only when there is something to write, and
	// Beside+".crash". Empty: there is no place for any.
	Beside string
}

// Detach lets go of what the process shares with its caller: the working
// directory, which would keep a filesystem busy, and stdin, stdout and stderr,
// at whose end callers wait. What logger is told goes on to where the place
// says. leave removes the file for a crash that did not happen; it is for the
// end of the server.
func Detach(logger *log.Logger, to Place) (leave func(), err error) {
	crash, err := openCrashFile(to)
	if err != nil {
		return nil, err
	}
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	for _, stdio := range []int{0, 1, 2} {
		if err := unix.Dup3(int(null.Fd()), stdio, 0); err != nil {
			return nil, os.NewSyscallError("dup3", err)
		}
	}
	if to.Log != nil {
		logger.SetOutput(to.Log)
	} else {
		log := &lateLog{name: filepath.Base(os.Args[0])}
		if to.Beside != "" {
			log.path = to.Beside + ".log"
		}
		logger.SetOutput(log)
	}
	return crash.discard, nil
}

// OpenLog opens a log for appending and makes it if need be, readable to all.
func OpenLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// A lateLog looks for a log when there is something to write: syslog, or a file
// where there is none, as in most containers. Few servers ever write, and whoever
// asked for the mount waits for what is done before.
type lateLog struct {
	name string // of the program
	path string // of the file, empty where there is no place for one
	out  io.Writer
}

func (l *lateLog) Write(p []byte) (int, error) {
	if l.out == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	return l.out.Write(p)
}

func (l *lateLog) open() error {
	if w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_WARNING, l.name); err == nil {
		l.out = w
		return nil
	}
	if l.path == "" {
		l.out = io.Discard
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	l.out = f
	return nil
}

// A crashFile receives what the Go runtime prints when the server dies of a
// bug: stderr is gone by then. The one beside the socket is named like it and
// removed when it stayed empty.
type crashFile struct{ path string }

// CrashSuffix ends the names of the files that tell why a server died.
const CrashSuffix = ".crash"

func openCrashFile(to Place) (*crashFile, error) {
	c := &crashFile{}
	f := to.Log
	if f == nil {
		if to.Beside == "" {
			return c, nil
		}
		c.path = to.Beside + CrashSuffix
		var err error
		if f, err = OpenLog(c.path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("write crashes to %s: %w", f.Name(), err)
	}
	return c, nil
}

// RemoveCrash removes the file that a server with that [Place.Beside] left for
// its crash, when it stayed empty: the server was killed.
func RemoveCrash(beside string) { removeEmpty(beside + CrashSuffix) }

// discard removes the file of a server that ended as it should.
func (c *crashFile) discard() {
	if c.path != "" {
		removeEmpty(c.path)
	}
}

// removeEmpty removes a file that nothing was written to.
func removeEmpty(path string) {
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		os.Remove(path)
	}
}
