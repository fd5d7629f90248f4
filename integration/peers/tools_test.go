//go:build integration

package peers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tools are the names under which the test binary does what shells cannot.
var tools = map[string]func(args []string) error{
	"exchange":  exchange,
	"tmpfile":   tmpfile,
	"holes":     holes,
	"listwhile": listWhileChanging,
	"evict":     evict,
	"mksock":    mksock,
}

// exchange exchanges two names.
func exchange(args []string) error {
	return unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE)
}

// tmpfile makes a file without a name in a directory and then gives it one.
func tmpfile(args []string) error {
	fd, err := unix.Open(args[0], unix.O_TMPFILE|unix.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("late\n")); err != nil {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, filepath.Join(args[0], args[1]), unix.AT_SYMLINK_FOLLOW)
}

// holes prints where the data of a file begin, from an offset on.
func holes(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err != nil {
		return err
	}
	hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if err != nil {
		return err
	}
	fmt.Printf("data from %d, hole from %d\n", data, hole)
	return nil
}

// evict drops the cached pages of a file.
func evict(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func mksock(args []string) error { return unix.Mknod(args[0], unix.S_IFSOCK|0o600, 0) }

// listWhileChanging lists a directory in small steps, makes and removes names in
// between, and complains of a name that comes twice, and of one that was there
// all the time and does not come.
func listWhileChanging(args []string) error {
	dir := args[0]
	stay := map[string]bool{}
	before, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for i, e := range before {
		stay[e.Name()] = i%3 != 0
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	seen := map[string]int{}
	buf := make([]byte, 600)
	for step := 0; ; step++ {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			seen[name]++
		}
		if 3*step < len(before) && !stay[before[3*step].Name()] {
			if err := os.Remove(filepath.Join(dir, before[3*step].Name())); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("made", step)), nil, 0o600); err != nil {
			return err
		}
	}
	var wrong error
	for name, times := range seen {
		if times > 1 {
			wrong = errors.Join(wrong, fmt.Errorf("%s came %d times", name, times))
		}
	}
	for name, stays := range stay {
		if stays && seen[name] == 0 {
			wrong = errors.Join(wrong, fmt.Errorf("%s never came", name))
		}
	}
	return wrong
}
