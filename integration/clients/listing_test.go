//go:build integration

package clients

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// An archived file is what a tar says of it, and a hash of its content.
type archived struct {
	*tar.Header
	hash  string
	links []string // other names of the same file in this archive
}

// readTar returns the files of an archive by their absolute names. The names of
// one file are equal: which of them the archive has first does not matter.
func readTar(r io.Reader) (map[string]*archived, error) {
	entries := map[string]*archived{}
	links := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		h.Name = cleanName(h.Name)
		if h.Typeflag == tar.TypeLink {
			links[h.Name] = cleanName(h.Linkname)
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			return nil, err
		}
		entries[h.Name] = &archived{Header: h, hash: fmt.Sprintf("%.8x", sum.Sum(nil))}
	}
	return entries, addLinks(entries, links)
}

// addLinks gives each hard link the description of its file, and both the same
// list of names.
func addLinks(entries map[string]*archived, links map[string]string) error {
	groups := map[string][]string{}
	for name, target := range links {
		if entries[target] == nil {
			return fmt.Errorf("%s is a link to %s, which the archive does not have", name, target)
		}
		groups[target] = append(groups[target], name)
	}
	for first, names := range groups {
		names = append(names, first)
		slices.Sort(names)
		for _, name := range names {
			entries[name] = &archived{Header: entries[first].Header, hash: entries[first].hash, links: names}
			if name != first {
				h := *entries[first].Header
				h.Name = name
				entries[name].Header = &h
			}
		}
	}
	return nil
}

func cleanName(name string) string {
	return "/" + strings.Trim(strings.TrimPrefix(name, "./"), "/")
}

// describe puts all that a user could see of a file into one line, except the
// times of directories: clients that look for changes by comparing two mounts,
// as they do with a mount_program, keep the old time of a directory. Times since
// began are the flow's own and shown as now.
func (e *archived) describe(began time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %s %04o %d:%d", e.Name, typeNames[e.Typeflag], e.Mode&0o7777, e.Uid, e.Gid)
	switch e.Typeflag {
	case tar.TypeReg:
		fmt.Fprintf(&b, " %d bytes %s", e.Size, e.hash)
	case tar.TypeSymlink:
		fmt.Fprintf(&b, " -> %q", e.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d:%d", e.Devmajor, e.Devminor)
	}
	if e.Typeflag != tar.TypeDir {
		b.WriteString(" " + stamp(e.ModTime, began))
	}
	var attrs []string
	for key, value := range e.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if ok && !strings.HasPrefix(name, "user.overlay.") { // the kernel's own, which rootless clients pack too
			attrs = append(attrs, fmt.Sprintf(" %s=%q", name, value))
		}
	}
	slices.Sort(attrs)
	return b.String() + strings.Join(attrs, "")
}

var typeNames = map[byte]string{
	tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink",
	tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
}

func stamp(at, began time.Time) string {
	if at.Before(began.Truncate(time.Second)) {
		return at.UTC().Format("2006-01-02T15:04:05")
	}
	return "now"
}

// listTree describes the files of an archive, one per line, with their hard links.
func listTree(t testing.TB, path string, began time.Time) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := readTar(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var lines []string
	for _, e := range files {
		line := e.describe(began)
		if e.links != nil {
			line += fmt.Sprintf(" also %q", e.links)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}
