package fusefs

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// A guard is a process that outlives the server and removes its mount if the
// server is killed or crashes. fusermount3 has an option for that (auto_unmount),
// but as root it cannot look at a mount without allow_other and then does
// nothing.
type guard struct {
	cmd *exec.Cmd
	end *os.File // closes with the server
}

// guardScript waits for a line, which says that all is well, or for the end of
// its input without one.
const guardScript = `read -r line && exit; exec "$@"`

func startGuard(info Info) (*guard, error) {
	unmount := []string{"umount", "-l", info.Target}
	if info.Via == viaFusermount {
		helper, err := findHelper()
		if err != nil {
			return nil, fmt.Errorf("option auto_unmount: %w", err)
		}
		unmount = []string{helper, "-u", "-q", "-z", "--", info.Target}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("option auto_unmount: %w", err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "lamina-guard"}, unmount...)...)
	cmd.Stdin = r
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals of the terminal are for the server
	err = cmd.Start()
	r.Close()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("option auto_unmount: start its watcher: %w", err)
	}
	return &guard{cmd, w}, nil
}

// release ends the guard: the mount is gone.
func (g *guard) release() {
	fmt.Fprintln(g.end) // fails if the guard was killed, which is as good
	g.end.Close()
	g.cmd.Wait()
}
