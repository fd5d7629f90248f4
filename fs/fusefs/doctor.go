package fusefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// The statuses of a [Finding].
const (
	StatusOK      = "ok"
	StatusNote    = "note"    // something that one can do without
	StatusMissing = "missing" // a way of mounting that is closed
)

// A Finding is one thing that was looked at.
type Finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // a command, for root where it begins with sudo
}

// A Report is what this machine and this user can do.
type Report struct {
	CanMount bool      `json:"can_mount"`
	Ways     []string  `json:"ways"` // of mounting, that were found to work
	Findings []Finding `json:"findings"`
}

// Examine looks at everything that mounting needs, and at the filesystem of
// dir, on which layers would lie. It leaves no trace: what it mounts, it mounts
// in a namespace of a child process. The child is this program with the
// arguments given, and prints [ProbeNamespace] as JSON.
func Examine(dir string, probeArgs ...string) Report {
	e := examination{dir: dir, probeArgs: probeArgs, root: os.Geteuid() == 0}
	e.report.Ways = []string{}
	for _, look := range []func(){
		e.kernel, e.device, e.helper, e.namespaces, e.subordinateIDs, e.overlay, e.passthrough, e.uring,
		e.layers, e.limits, e.sockets, e.crashes,
	} {
		look()
	}
	e.report.CanMount = len(e.report.Ways) > 0
	return e.report
}

type examination struct {
	dir       string
	probeArgs []string
	root      bool
	probe     *Probe
	report    Report
}

func (e *examination) add(status, name, detail, fix string) {
	e.report.Findings = append(e.report.Findings, Finding{name, status, detail, fix})
}

// way records a way of mounting that was tried out or has all it needs.
func (e *examination) way(how string) { e.report.Ways = append(e.report.Ways, how) }

func (e *examination) kernel() {
	major, minor := kernelVersion()
	release := fmt.Sprintf("Linux %d.%d", major, minor)
	switch {
	case !atLeast(4, 18):
		e.add(StatusMissing, "kernel", release+": FUSE in user namespaces came with 4.18", "sudo apt-get install --upgrade linux-image-generic")
	case !atLeast(5, 11):
		e.add(StatusNote, "kernel", release+": overlayfs in user namespaces came with 5.11", "")
	default:
		e.add(StatusOK, "kernel", release, "")
	}
}

func (e *examination) device() {
	fd, err := openFuse()
	if err == nil {
		unix.Close(fd)
		e.add(StatusOK, fuseDevice, "can be opened", "")
		return
	}
	fix := "sudo modprobe fuse"
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		fix = "sudo chmod 666 " + fuseDevice
	}
	cause := err
	for next := errors.Unwrap(cause); next != nil; next = errors.Unwrap(cause) {
		cause = next
	}
	e.add(StatusMissing, fuseDevice, cause.Error(), fix)
}

// helper looks at the setuid program that mounts for ordinary users.
func (e *examination) helper() {
	path, err := findHelper()
	if err != nil {
		e.add(e.unlessRoot(), "fusermount3", "not installed: ordinary users cannot mount outside of user namespaces", "sudo apt-get install fuse3")
		return
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		e.add(e.unlessRoot(), "fusermount3", err.Error(), "sudo apt-get install --reinstall fuse3")
		return
	case st.Mode()&os.ModeSetuid == 0:
		e.add(e.unlessRoot(), "fusermount3", path+" has no setuid bit", "sudo chmod u+s "+path)
		return
	case noNewPrivs():
		e.add(e.unlessRoot(), "fusermount3", "this process was started with no_new_privs, which takes its power away", "")
		return
	}
	e.add(StatusOK, "fusermount3", path, "")
	if !e.root && e.deviceExists() {
		e.way("through fusermount3")
	}
	conf, err := os.ReadFile("/etc/fuse.conf")
	allowed := err == nil && hasLine(string(conf), "user_allow_other")
	if !allowed {
		e.add(StatusNote, "user_allow_other", "ordinary users cannot use allow_other", "echo user_allow_other | sudo tee -a /etc/fuse.conf")
	} else {
		e.add(StatusOK, "user_allow_other", "ordinary users may use allow_other", "")
	}
}

// deviceExists reports whether the helper, which is root, can open the device.
func (e *examination) deviceExists() bool {
	_, err := os.Stat(fuseDevice)
	return err == nil
}

// unlessRoot is for what only ordinary users miss.
func (e *examination) unlessRoot() string {
	if e.root {
		return StatusNote
	}
	return StatusMissing
}

// namespaces tries out what can be mounted inside of a new user namespace, and
// by root in a new mount namespace.
func (e *examination) namespaces() {
	probe, err := e.runProbe(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	if err != nil {
		fix := ""
		for _, knob := range []struct{ path, bad, fix string }{
			{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"},
			{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
			{"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"},
		} {
			if readLine(knob.path) == knob.bad {
				fix = knob.fix
				break
			}
		}
		e.add(e.unlessRoot(), "user namespaces", err.Error(), fix)
	} else {
		e.add(StatusOK, "user namespaces", "can be made", "")
		if probe.FUSE == "" {
			e.add(StatusOK, "FUSE in a user namespace", "works: unshare -Urm lamina mount …", "")
			e.way("inside of a user namespace (unshare -Urm)")
		} else {
			e.add(e.unlessRoot(), "FUSE in a user namespace", probe.FUSE, "")
		}
		e.add(okOrNote(probe.Overlay), "overlayfs in a user namespace", orElse(probe.Overlay, "works, with userxattr"), "")
	}
	if !e.root {
		return
	}
	if e.probe, err = e.runProbe(unix.CLONE_NEWNS); err != nil {
		e.add(StatusMissing, "mounting", err.Error(), "")
		return
	}
	if e.probe.FUSE == "" {
		e.add(StatusOK, "mounting", "works for FUSE", "")
		e.way("directly")
	} else {
		e.add(StatusMissing, "mounting", e.probe.FUSE, "")
	}
}

func okOrNote(trouble string) string {
	if trouble == "" {
		return StatusOK
	}
	return StatusNote
}

// runProbe starts this program in new namespaces and reads what it found.
func (e *examination) runProbe(namespaces uintptr) (*Probe, error) {
	cmd := exec.Command("/proc/self/exe", e.probeArgs...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if namespaces&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot be made: %w", err)
	}
	probe := &Probe{}
	if err := json.Unmarshal(out, probe); err != nil {
		return nil, fmt.Errorf("the probe said %q: %w", out, err)
	}
	return probe, nil
}

// subordinateIDs looks for what containers of ordinary users need.
func (e *examination) subordinateIDs() {
	u, err := user.Current()
	if err != nil {
		e.add(StatusNote, "subordinate ids", err.Error(), "")
		return
	}
	if e.root {
		return
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		name := "ids of " + filepath.Base(file)
		if n := subordinate(file, u); n > 0 {
			e.add(StatusOK, name, fmt.Sprintf("%d", n), "")
		} else {
			e.add(StatusNote, name, "none: containers of this user have one id only",
				"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "+shellQuote(u.Username))
		}
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			e.add(StatusNote, tool, "not installed: containers of this user have one id only", "sudo apt-get install uidmap")
		}
	}
}

// subordinate counts the ids that a file of subuid(5) gives to a user.
func subordinate(file string, u *user.User) int {
	text, _ := os.ReadFile(file) // a missing file gives nobody anything
	n := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == u.Username || f[0] == u.Uid) {
			count, _ := strconv.Atoi(f[2])
			n += count
		}
	}
	return n
}

func (e *examination) overlay() {
	switch {
	case e.root && e.probe != nil && e.probe.Overlay == "":
		e.add(StatusOK, "kernel overlayfs", "works: --engine auto takes it where it can", "")
	case e.root && e.probe != nil:
		e.add(StatusNote, "kernel overlayfs", e.probe.Overlay, "sudo modprobe overlay")
	}
}

func (e *examination) passthrough() {
	switch config, known := kernelConfig("CONFIG_FUSE_PASSTHROUGH"); {
	case !atLeast(6, 9):
		e.add(StatusNote, "passthrough", "came with Linux 6.9", "")
	case known && config != "y":
		e.add(StatusNote, "passthrough", "this kernel was built without it", "")
	case !e.root || control.InUserNamespace():
		e.add(StatusNote, "passthrough", "only root outside of user namespaces may use it; reading and writing goes through the server", "")
	default:
		e.add(StatusOK, "passthrough", "offered by the kernel to root", "")
	}
}

func (e *examination) uring() {
	switch {
	case !atLeast(6, 14):
		e.add(StatusNote, "FUSE over io_uring", "came with Linux 6.14; not needed", "")
	case readLine("/sys/module/fuse/parameters/enable_uring") != "Y":
		e.add(StatusNote, "FUSE over io_uring", "switched off; not needed", "")
	default:
		e.add(StatusOK, "FUSE over io_uring", "offered by the kernel; not used yet", "")
	}
}
