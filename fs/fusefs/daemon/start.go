package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// readyEnv holds, in the server's process, the number of the descriptor on
// which its parent waits.
const readyEnv = "LAMINA_READY_FD"

// started is what the server tells its parent, once.
type started struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Start starts this very program again with the arguments argv, argv[0]
// included, as a server in a session of its own. It returns when the server is
// ready, with what that told in result, or could not start, with its words as
// the error.
func Start(argv []string, result any) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	defer r.Close()
	pid, err := startAgain(argv, w)
	w.Close()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	var told started
	if err := json.NewDecoder(bufio.NewReader(r)).Decode(&told); err != nil {
		return fmt.Errorf("the server ended before it was ready: %s", howEnded(pid))
	}
	if told.Result == nil {
		howEnded(pid) // with status 1, and the reason was told
		return errors.New(told.Error)
	}
	if err := json.Unmarshal(told.Result, result); err != nil {
		return fmt.Errorf("the server (pid %d) started, and tells what is not understood: %w", pid, err)
	}
	return nil
}

// startAgain starts this program with one more descriptor. It does without
// os/exec, whose first use in a process tries out pidfds with a process of
// their own: a tenth of the time that mounting takes.
func startAgain(argv []string, ready *os.File) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	const readyFD = 3
	return syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
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

// InBackground reports whether this process was started by [Start] and is to
// serve. It is true until [TakeParent].
func InBackground() bool { return os.Getenv(readyEnv) != "" }

// A Parent is the command that started this server and waits for it.
type Parent struct{ pipe *os.File }

// TakeParent returns who waits for this server, and hides it from children of
// the server; nil in a process that [Start] did not start. It is for the first
// lines of a server: until then whatever is started inherits the pipe.
func TakeParent() *Parent {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	os.Unsetenv(readyEnv)
	if err != nil {
		return nil
	}
	unix.CloseOnExec(fd)
	return &Parent{os.NewFile(uintptr(fd), "parent")}
}

// Ready tells the parent that the server is usable, and result with it. An
// error tells that the parent is gone: who asked for the server takes it for
// failed.
func (p *Parent) Ready(result any) error {
	raw, err := json.Marshal(result)
	if err == nil {
		err = json.NewEncoder(p.pipe).Encode(started{Result: raw})
	}
	p.pipe.Close()
	return err
}

// Fail tells the parent why the server could not start; the server should then
// end with status 1, and in silence, as the parent prints it. An error tells
// that the parent is gone, so that stderr is all that is left.
func (p *Parent) Fail(reason error) error {
	defer p.pipe.Close()
	return json.NewEncoder(p.pipe).Encode(started{Error: reason.Error()})
}
