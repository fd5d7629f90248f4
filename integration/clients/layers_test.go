//go:build integration

package clients

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// listLayers describes what an image that podman saved as a docker-archive looks
// like after each of its layers, the base first.
//
// The layers themselves are not compared, because there is more than one right
// layer for a change. Over kernel overlayfs a client packs the upper as it is, with
// opaque directories and with files that were copied up in vain. With a
// mount_program it compares two mounts, and packs what differs.
func listLayers(t testing.TB, path string, began time.Time) [][]string {
	t.Helper()
	members, err := members(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(members["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("%s: manifest.json with %d images: %v", path, len(manifest), err)
	}
	tree := map[string]string{}
	var trees [][]string
	for _, name := range manifest[0].Layers {
		files, err := readTar(bytes.NewReader(members[name]))
		if err != nil {
			t.Fatalf("%s: layer %s: %v", path, name, err)
		}
		apply(tree, files, began)
		trees = append(trees, slices.Sorted(maps.Values(tree)))
	}
	return trees
}

// apply changes a tree of descriptions by a layer with OCI whiteouts.
func apply(tree map[string]string, layer map[string]*archived, began time.Time) {
	for name := range layer { // whiteouts are about the layers below only
		dir, base := path.Split(name)
		if base == ".wh..wh..opq" {
			removeBelow(tree, path.Clean(dir))
		} else if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			delete(tree, dir+hidden)
			removeBelow(tree, dir+hidden)
		}
	}
	for name, file := range layer {
		if strings.HasPrefix(path.Base(name), ".wh.") {
			continue
		}
		if file.Typeflag != tar.TypeDir {
			removeBelow(tree, name)
		}
	}
	for name, file := range layer {
		if !strings.HasPrefix(path.Base(name), ".wh.") {
			tree[name] = file.describe(began)
		}
	}
}

func removeBelow(tree map[string]string, dir string) {
	maps.DeleteFunc(tree, func(name, _ string) bool { return strings.HasPrefix(name, dir+"/") })
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
