package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// passthrough is the option that chooses lamina's other profile.
const passthrough = "passthrough=on"

// findSubjects lists what can be compared here, the reference first. A subject
// that is not there is listed too, with the reason.
func findSubjects(c config) []*subject {
	list := []*subject{kernelOverlay(c.Rootless)}
	list = append(list, fuseOverlays(c.Peers)...)
	list = append(list, unionfsFuse(), lamina(c, "lamina", ""), lamina(c, "lamina-passthrough", passthrough))
	return list
}

// kernelOverlay is mounted by mount(8), as a user would, so that its time to
// mount has a program to start like all others. Layers are named relative to the
// scratch directory: mount(8) hands each option to fsconfig(2), which takes no
// more than 255 bytes.
func kernelOverlay(rootless bool) *subject {
	return &subject{
		name:    reference,
		version: "overlayfs, Linux " + kernelRelease(),
		command: func(s stack) []string {
			short := func(p string) string {
				return filepath.Join(filepath.Base(filepath.Dir(p)), filepath.Base(p))
			}
			var lowers []string
			for _, l := range s.lowers {
				lowers = append(lowers, short(l))
			}
			o := overlayOptions(lowers, short(s.upper), short(s.work), s.volatile)
			if rootless {
				o += ",userxattr"
			}
			return []string{"mount", "-t", "overlay", "-o", o, "overlay", s.target}
		},
	}
}

// overlayOptions are the mount options that all but unionfs-fuse share.
func overlayOptions(lowers []string, upper, work string, volatile bool) string {
	o := "lowerdir=" + strings.Join(lowers, ":") + ",upperdir=" + upper + ",workdir=" + work
	if volatile {
		o += ",volatile"
	}
	return o
}

// fuseOverlays are all different fuse-overlayfs of PATH and those in peers.
func fuseOverlays(peers []peer) []*subject {
	var list []*subject
	for _, p := range peers {
		list = append(list, fuseOverlay(p.Name, p.Path, p.Options))
	}
	var seen []os.FileInfo
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "fuse-overlayfs")
		info, err := os.Stat(path)
		if err != nil || info.IsDir() || sameAsAny(info, seen) {
			continue
		}
		seen = append(seen, info)
		list = append(list, fuseOverlay("", path, ""))
	}
	if len(list) == 0 {
		list = append(list, &subject{name: "fuse-overlayfs", problem: "not in PATH; install the package fuse-overlayfs or give --peer name=path"})
	}
	return list
}

// sameAsAny finds the second name of one program, as /bin and /usr/bin often are.
func sameAsAny(info os.FileInfo, seen []os.FileInfo) bool {
	for _, s := range seen {
		if os.SameFile(s, info) {
			return true
		}
	}
	return false
}

func fuseOverlay(name, path, options string) *subject {
	s := &subject{name: "fuse-overlayfs"}
	s.version, s.problem = versionOf(path, `fuse-overlayfs: version (\S+)`)
	if s.version != "" {
		s.name += "-" + s.version
	}
	if name != "" {
		s.name = name
	}
	s.command = func(st stack) []string {
		o := overlayOptions(st.lowers, st.upper, st.work, st.volatile)
		if options != "" {
			o += "," + options
		}
		return []string{path, "-o", o, st.target}
	}
	return s
}

// unionfsFuse copies on write into the upper. It has no work directory, never
// syncs what it copies, and so has no volatile mode either.
func unionfsFuse() *subject {
	s := &subject{name: "unionfs-fuse"}
	path, err := exec.LookPath("unionfs")
	if err != nil {
		s.problem = "unionfs is not in PATH; install the package unionfs-fuse"
		return s
	}
	s.version, s.problem = versionOf(path, `unionfs-fuse version: (\S+)`)
	s.command = func(st stack) []string {
		branches := st.upper + "=RW"
		for _, l := range st.lowers {
			branches += ":" + l + "=RO"
		}
		return []string{path, "-o", "cow", branches, st.target}
	}
	return s
}

// lamina is one profile. Passthrough is not tried in a user namespace: there it
// cannot happen, and numbers under its name would be those of the other profile.
func lamina(c config, name, option string) *subject {
	s := &subject{name: name, problem: c.LaminaProblem}
	if s.problem == "" {
		s.version, s.problem = laminaVersion(c.Lamina)
	}
	if c.Rootless && option == passthrough {
		s.problem = "FUSE passthrough needs CAP_SYS_ADMIN in the initial user namespace"
	}
	s.command = func(st stack) []string {
		o := overlayOptions(st.lowers, st.upper, st.work, st.volatile)
		if option != "" {
			o += "," + option
		}
		return []string{c.Lamina, "-o", o, st.target}
	}
	return s
}

func laminaVersion(path string) (version, problem string) {
	out, problem := outputOf(path, "version")
	if problem != "" {
		return "", problem
	}
	return strings.TrimPrefix(strings.TrimPrefix(firstLine(out), "lamina "), "version "), ""
}

// versionOf runs path --version and returns the group of pattern.
func versionOf(path, pattern string) (version, problem string) {
	out, problem := outputOf(path, "--version")
	if problem != "" {
		return "", problem
	}
	if m := regexp.MustCompile(pattern).FindStringSubmatch(out); m != nil {
		return m[1], ""
	}
	return "", fmt.Sprintf("%s --version says %q, which is not what this program says", path, firstLine(out))
}

func outputOf(path, arg string) (out, problem string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arg)
	cmd.WaitDelay = time.Second
	data, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Sprintf("%s %s: %v", path, arg, err)
	}
	return string(data), ""
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
