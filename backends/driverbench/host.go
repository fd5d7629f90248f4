package driverbench

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A space is what a filesystem has in use.
type space struct{ bytes, inodes int64 }

// space tells what is in use where the subject stores. All is written out before, as
// much is allocated only then.
func (s *subject) space() (space, error) {
	if err := syncfs(s.measure); err != nil {
		return space{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.measure, &st); err != nil {
		return space{}, fmt.Errorf("statfs %s: %w", s.measure, err)
	}
	return space{int64(st.Blocks-st.Bfree) * st.Bsize, int64(st.Files - st.Ffree)}, nil
}

// cacheGrowth returns by how much the page cache is larger after f than before: NaN
// where that cannot be told, as only root can empty it first, or it may not be.
func cacheGrowth(empty bool, f func() error) (float64, error) {
	if !empty || os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) != nil {
		return math.NaN(), f()
	}
	before, err := cached()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := cached()
	return max(0, after-before), err
}

// cached returns the size of the page cache in bytes (proc_meminfo(5)).
func cached() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if name == "Cached" || name == "Buffers" {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			sum += kb * 1024
		}
	}
	return sum, nil
}

// onBtrfs gives the native engine of btrfs the filesystem that it needs, in a file,
// unless the directory is on one.
func (s *subject) onBtrfs(b *bench) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.measure, &st); err != nil || st.Type == unix.BTRFS_SUPER_MAGIC {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s is not on btrfs; give --dir on one, or run as root, who can have one in a file", b.cfg.Dir)
	}
	image, at := filepath.Join(s.measure, "btrfs.img"), filepath.Join(s.measure, "mounted")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := f.Truncate(16 << 30); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(b.ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
		}
	}
	s.cleanup = append(s.cleanup, func() error {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			return fmt.Errorf("umount %s: %w: %s", at, err, strings.TrimSpace(string(out)))
		}
		return nil
	})
	s.measure = at
	return nil
}

// filesystemOf names the filesystem that a directory is on.
func filesystemOf(dir string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	var st unix.Stat_t
	if err != nil || unix.Stat(dir, &st) != nil {
		return "unknown"
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		i := strings.Index(line, " - ")
		if len(fields) > 2 && fields[2] == dev && i > 0 {
			return strings.Fields(line[i+3:])[0]
		}
	}
	return "unknown"
}
