// Command guest is the first and only process of a machine of integration/vm: it
// makes the machine fit for tests, runs them as /job.json says, tells the host by
// the second serial port and switches the machine off.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/integration/vm/machine"
)

// port is the second serial port.
const port = "/dev/ttyS1"

// testTime is how long one test binary may run.
const testTime = "25m"

func main() {
	out, err := begin()
	if err == nil {
		err = work(out)
	}
	if out == nil { // the console is all there is
		fmt.Println(err)
	} else if err != nil {
		fmt.Fprintf(out, "%sfail %v\n", machine.Mark, err)
	}
	if out != nil {
		fmt.Fprintf(out, "%sover\n", machine.Mark)
		out.Close()
		time.Sleep(200 * time.Millisecond) // for the port to send it
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the end of this process would be a panic
}

// begin mounts what every system has and opens the port.
func begin() (*os.File, error) {
	for _, m := range []struct{ fstype, target, data string }{
		{"devtmpfs", "/dev", ""}, {"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/dev/shm", "mode=1777"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
}

// work does what the job says.
func work(out *os.File) error {
	if err := raw(out); err != nil {
		return err
	}
	text, err := os.ReadFile(machine.JobPath)
	if err != nil {
		return err
	}
	var job machine.Job
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	for k, v := range map[string]string{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TMPDIR": "/var/tmp", "LC_ALL": "C.UTF-8", "LAMINA_VM": "1", "DM_DISABLE_UDEV": "1"} {
		os.Setenv(k, v)
	}
	for name, text := range map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
		"/etc/ld.so.conf": "/usr/lib/x86_64-linux-gnu\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, module := range job.Modules {
		if err := do("modprobe", module); err != nil {
			return err
		}
	}
	if err := disk(); err != nil {
		return err
	}
	for i, t := range job.Tests {
		fmt.Fprintf(out, "%sstart %d\n", machine.Mark, i)
		fmt.Fprintf(out, "=== %s: %s\n", t.Suite, t.Package)
		cause := ""
		if err := test(out, t); err != nil {
			cause = " " + err.Error()
		}
		fmt.Fprintf(out, "\n%send %d%s\n", machine.Mark, i, cause)
	}
	return nil
}

// raw has the port send bytes as they are.
func raw(port *os.File) error {
	t, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return fmt.Errorf("serial port: %w", err)
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200
	return unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, t)
}

// disk makes the filesystem that tests write to.
func disk() error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/dev/vda"); err == nil {
			break
		} else if time.Now().After(end) {
			return err
		}
	}
	if err := do("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "/dev/vda"); err != nil {
		return err
	}
	if err := os.MkdirAll("/var/tmp", 0o777); err != nil {
		return err
	}
	if err := os.MkdirAll("/root", 0o700); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", "/var/tmp", "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	return os.Chmod("/var/tmp", 0o1777)
}

func do(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

// test runs one binary.
func test(out io.Writer, t machine.Test) error {
	for _, argv := range t.Before {
		if err := do(argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	limit, _ := time.ParseDuration(testTime)
	ctx, cancel := context.WithTimeout(context.Background(), limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Path, "-test.v", "-test.timeout="+testTime, "-test.run="+t.Run)
	cmd.Dir, cmd.Env = "/var/tmp", append(os.Environ(), t.Env...)
	// A pipe, not the port: what a test leaves running would keep that open.
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, read) // the port has no errors to tell to anybody
		close(done)
	}()
	err = cmd.Run()
	write.Close()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	read.Close()
	return err
}
