//go:build integration

package kernel

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dirVerbs read directories.
var dirVerbs = map[string]verb{
	"list": {weight: 3, choose: func(c *chooser) op { return op{A: c.dirOr(c.old)} }, do: func(s *side, o op) (string, error) {
		names, err := s.names(o.A)
		return fmt.Sprintf("%q", names), err
	}},
	"flist": onSlot(1, nil, func(f *openFile, o op) (string, error) {
		if _, err := unix.Seek(f.fd, 0, unix.SEEK_SET); err != nil {
			return "", err
		}
		list, err := readEntries(f.fd, 4096)
		return fmt.Sprint(len(list) > 0), err
	}),
	"list while changing": {weight: 3, choose: func(c *chooser) op {
		return op{A: c.dirOr(func() string { return "" }), B: pick(c.r, allNames...), Name: pick(c.r, allNames...), N: pick[int64](c.r, 600, 1000)}
	}, do: listWhileChanging},
}

// names returns what a directory lists, without whiteouts that the kernel lists
// but does not find.
func (s *side) names(dir string) ([]string, error) {
	fd, err := unix.Openat(s.fd, rel(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	list, err := readEntries(fd, 32<<10)
	var names []string
	for _, e := range list {
		var st unix.Stat_t
		if unix.Fstatat(s.fd, path.Join(dir, e.name), &st, unix.AT_SYMLINK_NOFOLLOW) != unix.ENOENT {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	return names, err
}

// listWhileChanging reads a directory in small pieces, removes and makes a name
// after the first one, and goes back to a place it noted. Names that were there
// all the time must appear once in each pass (readdir(3)); which ones do not is
// the result.
func listWhileChanging(s *side, o op) (string, error) {
	before, err := s.names(o.A)
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(s.fd, rel(o.A), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	first, err := readSome(fd, int(o.N))
	if err != nil {
		return "", err
	}
	noted, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil {
		return "", err
	}
	removed := unix.Unlinkat(s.fd, path.Join(o.A, o.B), 0)
	made := unix.Mkdirat(s.fd, path.Join(o.A, o.Name), 0o755)
	var passes [3][]dirEntry
	for i, from := range []int64{-1, noted, 0} {
		if from >= 0 {
			if _, err := unix.Seek(fd, from, unix.SEEK_SET); err != nil {
				return "", err
			}
		}
		if passes[i], err = readEntries(fd, int(o.N)); err != nil {
			return "", err
		}
		if from != 0 {
			passes[i] = append(slices.Clone(first), passes[i]...)
		}
	}
	after, err := s.names(o.A)
	var bad []string
	for i, pass := range passes {
		seen := map[string]int{}
		for _, e := range pass {
			seen[e.name]++
		}
		for _, name := range before {
			if slices.Contains(after, name) && seen[name] != 1 {
				bad = append(bad, fmt.Sprintf("pass %d: %q %d times", i, name, seen[name]))
			}
		}
	}
	return fmt.Sprint(removed, made, strings.Join(bad, ", ")), err
}
