//go:build integration

package clients

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// An archived entry is what a tar says of a file, and a hash of its content.
type archived struct {
	*tar.Header
	hash  string
	links []string // other names of the same file in this archive
}

// listTar describes the entries of an archive, one per line, in the order of
// their names. Times since began are the flow's own and shown as now. The names of
// one file are equal: which of them the archive has first does not matter.
func listTar(r io.Reader, began time.Time) ([]string, error) {
	entries, err := readTar(r)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.describe(began))
	}
	slices.Sort(lines)
	return lines, nil
}

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

func (e *archived) describe(began time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %s %04o %d:%d %s", e.Name, typeNames[e.Typeflag], e.Mode&0o7777, e.Uid, e.Gid, stamp(e.ModTime, began))
	switch e.Typeflag {
	case tar.TypeReg:
		fmt.Fprintf(&b, " %d bytes %s", e.Size, e.hash)
	case tar.TypeSymlink:
		fmt.Fprintf(&b, " -> %q", e.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d:%d", e.Devmajor, e.Devminor)
	}
	var attrs []string
	for key, value := range e.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			attrs = append(attrs, fmt.Sprintf("%s=%q", name, value))
		}
	}
	slices.Sort(attrs)
	for _, a := range attrs {
		b.WriteString(" " + a)
	}
	if e.links != nil {
		fmt.Fprintf(&b, " also %q", e.links)
	}
	return b.String()
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

// listTarFile is listTar of a file.
func listTarFile(t testing.TB, path string, began time.Time) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := listTar(f, began)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return lines
}

// listImage describes the layers of an image that podman saved as a
// docker-archive, the base first.
func listImage(t testing.TB, path string, began time.Time) [][]string {
	t.Helper()
	members, err := members(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(members["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("%s: manifest.json with %d images: %v", path, len(manifest), err)
	}
	var layers [][]string
	for _, name := range manifest[0].Layers {
		lines, err := listTar(bytes.NewReader(members[name]), began)
		if err != nil {
			t.Fatalf("%s: layer %s: %v", path, name, err)
		}
		layers = append(layers, lines)
	}
	return layers
}

// members returns the files of an archive that is small enough for memory.
func members(path string) (map[string][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files := map[string][]byte{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}
