package serve

import (
	"hash/fnv"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// validName reports whether a volume of that name can be shown as a file.
func validName(name string) bool {
	if strings.IndexByte(name, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > unix.NAME_MAX {
			return false
		}
	}
	return true
}

// A child is one name in a directory.
type child struct {
	name   string
	isDir  bool
	volume VolumeInfo // zero for a directory
}

// childrenOf returns what lies directly in a directory, sorted by name; dir is ""
// for the root. It is empty for a directory that does not exist.
func childrenOf(volumes []VolumeInfo, dir string) []child {
	prefix := dirPrefix(dir)
	byName := map[string]child{}
	for _, v := range volumes {
		rest, below := strings.CutPrefix(v.Name, prefix)
		if !below || !validName(v.Name) {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		if !deeper {
			byName[name] = child{name: name, volume: v} // hides what lies below it
		} else if _, taken := byName[name]; !taken {
			byName[name] = child{name: name, isDir: true}
		}
	}
	out := make([]child, 0, len(byName))
	for _, c := range byName {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b child) int { return strings.Compare(a.name, b.name) })
	return out
}

// isDir reports whether a name is a directory, because there are names below it.
func isDir(volumes []VolumeInfo, dir string) bool {
	prefix := dirPrefix(dir)
	return slices.ContainsFunc(volumes, func(v VolumeInfo) bool {
		return strings.HasPrefix(v.Name, prefix) && validName(v.Name)
	})
}

func dirPrefix(dir string) string {
	if dir == "" {
		return ""
	}
	return dir + "/"
}

func join(dir, name string) string { return path.Join(dir, name) }

// Inode numbers stay the same over remounts: even ones are volumes, odd ones
// directories.
const rootIno = 1

func volumeIno(id uint64) uint64 { return id*2 + 2 }

func dirIno(dir string) uint64 {
	if dir == "" {
		return rootIno
	}
	h := fnv.New64a()
	h.Write([]byte(dir))
	return h.Sum64() | 1
}
