package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// zfsModules compiles zfs for a kernel, unless that was done, and returns the
// directory with its modules. It does what dkms does with zfs-dkms, whose scripts
// would want the kernel installed.
func (c *cache) zfsModules(kernel string) (string, error) {
	done := c.path("zfs-" + kernel)
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	if _, err := c.archive.unpack(c.path("compiler"), append(toolPackages[1:], zfsPackages...)); err != nil {
		return "", err
	}
	t := tree{c.path("compiler"), c.dir}
	sources, err := filepath.Glob(filepath.Join(t.dir, "usr/src/zfs-*"))
	if err != nil || len(sources) != 1 {
		return "", fmt.Errorf("sources of zfs in %s: %q, %w", t.dir, sources, err)
	}
	// What update-alternatives would have made.
	if err := os.Symlink("mawk", filepath.Join(t.dir, "usr/bin/awk")); err != nil && !os.IsExist(err) {
		return "", err
	}
	headers := "/usr/src/linux-headers-" + kernel
	if _, err := os.Stat(t.dir + headers); err != nil {
		return "", fmt.Errorf("headers of kernel %s: %w; run with --update to have both of one version", kernel, err)
	}
	common := strings.TrimSuffix(headers, "-amd64") + "-common"
	fmt.Printf("compiling zfs for %s: about a quarter of an hour, once\n", kernel)
	build := t.command("/bin/sh", "-ec", fmt.Sprintf(`
		rm -rf /tmp/zfs; cp -a %s /tmp/zfs; cd /tmp/zfs
		./configure --prefix=/usr --with-config=kernel --with-linux=%s --with-linux-obj=%s
		make -j%d
		find . -name '*.ko' -exec strip -g {} +`, strings.TrimPrefix(sources[0], t.dir), common, headers, c.cpus))
	build.Stdout, build.Stderr = c.log, c.log
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("compile zfs: %w; see %s", err, c.log.Name())
	}
	if err := os.RemoveAll(done + ".new"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(done+".new", 0o755); err != nil {
		return "", err
	}
	err = filepath.WalkDir(filepath.Join(t.dir, "tmp/zfs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".ko") {
			return err
		}
		return os.Rename(path, filepath.Join(done+".new", filepath.Base(path)))
	})
	if err != nil {
		return "", err
	}
	return done, os.Rename(done+".new", done)
}
