package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// What is unpacked; apt adds what they depend on. Essential packages are not
// dependencies of anything, so those that are needed are named.
var (
	guestPackages = []string{
		"linux-image-amd64", "kmod", "busybox-static", "util-linux", "mount", "coreutils", "dash", "fuse3",
		"e2fsprogs", "fuse2fs", "xfsprogs", "dmsetup", "thin-provisioning-tools", "nbd-client", "zfsutils-linux",
	}
	toolPackages = []string{"qemu-system-x86", "kmod", "cpio"}
	// zfsPackages are those that compile its modules.
	zfsPackages = []string{
		"zfs-dkms", "linux-headers-amd64", "gcc", "make", "libc6-dev", "dash", "bash", "coreutils", "sed", "grep", "mawk",
		"findutils", "diffutils", "tar", "gzip", "xz-utils", "hostname", "libc-bin", "util-linux", "kmod",
	}
)

// An archive fetches packages of a release of Debian with apt, by a state of its
// own below dir.
type archive struct {
	dir, mirror, release string
	log                  *os.File
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func (a *archive) path(elem ...string) string {
	return filepath.Join(append([]string{a.dir}, elem...)...)
}

// prepare writes the configuration, and fetches the lists of packages unless that
// was done already.
func (a *archive) prepare(again bool) error {
	for _, program := range []string{"apt-get", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("packages of Debian are fetched by apt and unpacked by dpkg-deb: %w", err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("the keys of Debian's archive: %w; install debian-archive-keyring", err)
	}
	for _, dir := range []string{"lists/partial", "archives/partial", "none/partial"} {
		if err := os.MkdirAll(a.path(dir), 0o755); err != nil {
			return err
		}
	}
	security := strings.TrimSuffix(a.mirror, "/") + "-security"
	sources := fmt.Sprintf("deb [signed-by=%s] %s %s main contrib\ndeb [signed-by=%s] %s %s-security main contrib\n",
		keyring, a.mirror, a.release, keyring, security, a.release)
	config := fmt.Sprintf(`Dir::State %q;
Dir::State::status %q;
Dir::State::lists %q;
Dir::Cache %q;
Dir::Cache::archives %q;
Dir::Etc::sourcelist %q;
Dir::Etc::sourceparts "-";
Dir::Log %q;
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
`, a.dir, a.path("status"), a.path("lists"), a.dir, a.path("archives"), a.path("sources.list"), a.dir)
	for name, text := range map[string]string{"status": "", "sources.list": sources, "apt.conf": config} {
		if err := os.WriteFile(a.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if found, _ := filepath.Glob(a.path("lists", "*_Packages*")); len(found) > 0 && !again { // fails for a bad pattern only
		return nil
	}
	_, err := a.apt("update")
	return err
}

func (a *archive) apt(args ...string) (string, error) {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.path("apt.conf"), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, a.log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("apt-get %s: %w; see %s", args[0], err, a.log.Name())
	}
	return out.String(), nil
}

// fetch returns the files of packages and of all that they depend on.
func (a *archive) fetch(packages []string) ([]string, error) {
	// Printed are those that are still to be fetched: into an empty directory, all.
	out, err := a.apt(append([]string{"install", "-y", "--print-uris", "-o", "Dir::Cache::archives=" + a.path("none")}, packages...)...)
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[0], "'") {
			files = append(files, a.path("archives", f[1]))
		}
	}
	_, err = a.apt(append([]string{"install", "-y", "--download-only"}, packages...)...)
	return files, err
}

// unpack makes dir of packages, unless it is there, in the merged layout of
// Debian's current releases.
func (a *archive) unpack(dir string, packages []string) (made bool, err error) {
	if _, err := os.Stat(dir); err == nil {
		return false, nil
	}
	files, err := a.fetch(packages)
	if err != nil {
		return false, err
	}
	fmt.Printf("unpacking %d packages to %s\n", len(files), dir)
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return false, err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(tmp, "usr", d), 0o755); err != nil {
			return false, err
		}
		if err := os.Symlink("usr/"+d, filepath.Join(tmp, d)); err != nil {
			return false, err
		}
	}
	for _, f := range files {
		if err := unpackOne(f, tmp); err != nil {
			return false, fmt.Errorf("unpack %s: %w", filepath.Base(f), err)
		}
	}
	return true, os.Rename(tmp, dir)
}

// unpackOne has tar keep the links of the merged layout, which dpkg-deb -x does not.
func unpackOne(deb, dir string) error {
	from := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	to := exec.Command("tar", "-x", "-f", "-", "--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore", "-C", dir)
	pipe, err := from.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	to.Stdin, to.Stderr = pipe, &said
	if err := from.Start(); err != nil {
		return err
	}
	if err := to.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	return from.Wait()
}
