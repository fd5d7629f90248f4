//go:build integration

package clients

import (
	"syscall"
	"testing"
	"time"
)

// When the server of a running container is killed, podman gets rid of the
// container's mount, starts it again with what it had written, and removes it.
func TestContainerWhoseServerWasKilled(t *testing.T) {
	eachAccount(t, func(t *testing.T, a account) {
		need(t, "podman", "crun", "conmon", "busybox")
		c := newClient(t, a, laminaEngine())
		c.write(t, "base.tar", string(baseTree(t)))
		c.ok(t, "podman", "import", "--quiet", c.path("base.tar"), "base")
		c.ok(t, "podman", "run", "--detach", "--name=victim", "base", "sh", "-c", "[ -e /kept ] || { echo written > /kept; sync; }; while :; do sleep 0.1; done")
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if out, err := c.try("podman", "exec", "victim", "cat", "/kept"); err == nil && out == "written\n" {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		pids := c.servers()
		if len(pids) != 1 {
			t.Fatalf("%d servers for one container", len(pids))
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.ok(t, "podman", "stop", "--time=0", "victim")
		c.ok(t, "podman", "start", "victim")
		if got := c.ok(t, "podman", "exec", "victim", "cat", "/kept"); got != "written" {
			t.Errorf("after the start the file holds %q", got)
		}
		c.ok(t, "podman", "rm", "--force", "--time=0", "victim")
		c.checkIdle(t)
	})
}
