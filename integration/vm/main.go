package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/integration/vm/machine"
)

// A cache is the directory that outlives runs.
type cache struct {
	dir     string
	archive *archive
	log     *os.File
	cpus    int
}

func (c *cache) path(name string) string { return filepath.Join(c.dir, name) }

func main() {
	if len(os.Args) > 4 && os.Args[1] == inTreeArg {
		fmt.Fprintln(os.Stderr, "vm:", enterTree(os.Args[2], os.Args[3], os.Args[4:]))
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run() error {
	names := flag.String("tests", suiteNames(), "run these `suites`, separated by commas")
	dir := flag.String("cache", defaultCache(), "keep packages and what is made of them in `DIR`")
	mirror := flag.String("mirror", "http://deb.debian.org/debian", "fetch packages from `URL`")
	release := flag.String("release", "bookworm", "of this `release` of Debian")
	update := flag.Bool("update", false, "look for newer packages, and make all anew")
	cpus := flag.Int("cpus", 2, "processors of the machine, and of what is compiled for it")
	memory := flag.Int("memory", 3072, "memory of the machine in MiB")
	limit := flag.Duration("timeout", time.Hour, "end the machine after this time")
	only := flag.String("run", "", "run these `tests` only, as go test -run")
	flag.Parse()
	list, err := chosen(*names)
	if err != nil {
		return err
	}
	c, err := openCache(*dir, *mirror, *release, *cpus, *update)
	if err != nil {
		return err
	}
	initrd, kernel, job, err := c.machine(list, *only)
	if err != nil {
		return err
	}
	defer os.Remove(initrd)
	m := vm{tree: tree{c.path("tools"), c.dir}, kernel: kernel, initrd: initrd, cpus: *cpus, memory: *memory, limit: *limit, cache: c}
	results := newReport(os.Stdout, *only == "")
	if err := m.run(results); err != nil {
		return fmt.Errorf("%w; what the kernel said is in %s", err, m.console())
	}
	return results.end(job)
}

func defaultCache() string {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lamina-vm")
	}
	return "/var/tmp/lamina-vm"
}

// openCache makes the cache, which one process uses at a time, and has the lists of
// packages in it.
func openCache(dir, mirror, release string, cpus int, update bool) (*cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644) // held until this process ends
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s is used by another run: %w", dir, err)
	}
	if update {
		made, err := filepath.Glob(filepath.Join(dir, "[bcgtz]*"))
		for _, path := range made {
			err = errors.Join(err, os.RemoveAll(path))
		}
		if err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	c := &cache{dir: dir, log: log, cpus: cpus, archive: &archive{dir: filepath.Join(dir, "apt"), mirror: mirror, release: release, log: log}}
	return c, c.archive.prepare(update)
}

// machine makes the initramfs of a run.
func (c *cache) machine(list []suite, only string) (initrd, kernel string, job machine.Job, err error) {
	if _, err := c.archive.unpack(c.path("tools"), toolPackages); err != nil {
		return "", "", job, err
	}
	if _, err := c.archive.unpack(c.path("guest"), guestPackages); err != nil {
		return "", "", job, err
	}
	version, err := kernelOf(c.path("guest"))
	if err != nil {
		return "", "", job, err
	}
	kernel = filepath.Join(c.path("guest"), "boot/vmlinuz-"+version)
	name, extra := "plain", ""
	job.Modules = []string{"virtio_pci", "virtio_blk", "ext4", "loop", "overlay", "fuse"}
	for _, s := range list {
		job.Modules = append(job.Modules, s.modules...)
		if s.zfs {
			name = "zfs"
			if extra, err = c.zfsModules(version); err != nil {
				return "", "", job, err
			}
		}
	}
	base, err := c.base(version, name, extra)
	if err != nil {
		return "", "", job, err
	}
	initrd = c.path("initrd")
	f, err := os.Create(initrd)
	if err != nil {
		return "", "", job, err
	}
	defer f.Close()
	if err := appendFile(f, base); err != nil {
		return "", "", job, err
	}
	w := newCpio(f)
	if err := c.addTests(w, list, only, &job); err != nil {
		return "", "", job, err
	}
	return initrd, kernel, job, w.close()
}

func appendFile(to io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

// addTests compiles what runs in the machine and adds it.
func (c *cache) addTests(w *cpio, list []suite, only string, job *machine.Job) error {
	tmp, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	init := filepath.Join(tmp, "init")
	if err := compile("build", "-o", init, "./integration/vm/guest"); err != nil {
		return err
	}
	if err := w.file("init", init, unix.S_IFREG|0o755); err != nil {
		return err
	}
	if err := w.add("tests", unix.S_IFDIR|0o755, 0, nil); err != nil {
		return err
	}
	for _, s := range list {
		for i, b := range s.tests {
			name := fmt.Sprintf("%s-%d.test", s.name, i)
			if err := compile("test", "-c", "-tags", "integration", "-o", filepath.Join(tmp, name), "./"+b.pkg); err != nil {
				return err
			}
			if err := w.file("tests/"+name, filepath.Join(tmp, name), unix.S_IFREG|0o755); err != nil {
				return err
			}
			pattern := b.run
			if only != "" {
				pattern = only
			}
			job.Tests = append(job.Tests, machine.Test{Suite: s.name, Package: b.pkg, Path: "/tests/" + name, Run: pattern, Must: b.must, Before: b.before, Env: b.env})
		}
	}
	if len(job.Tests) == 0 {
		return errors.New("there is nothing to run")
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return w.bytes("job.json", string(text))
}

// compile runs the go command without cgo, so that its result needs no library of
// this machine.
func compile(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}
