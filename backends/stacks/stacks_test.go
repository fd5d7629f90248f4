package stacks

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer/tarlayer"
)

type entry struct{ name, content, link string }

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(e.content))
	}
	w.Close()
	return b.Bytes()
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// paths opens a stack and returns what users see, with the number of the layer.
func paths(t *testing.T, text string) (string, error) {
	t.Helper()
	s, err := Open(text, Options{})
	if err != nil {
		return "", err
	}
	defer s.Close()
	var out []string
	err = s.Walk(context.Background(), "", nil, func(e *inspect.Entry) error {
		if top := e.Top(); top != nil && !top.IsDir() {
			out = append(out, fmt.Sprintf("%s:%d", e.Path, s.Number(top.Layer)))
		}
		return nil
	})
	return strings.Join(out, " "), err
}

func blob(t testing.TB, dir string, data []byte) map[string]any {
	t.Helper()
	digest := fmt.Sprintf("%x", sha256.Sum256(data))
	write(t, dir+"/blobs/sha256/"+digest, data)
	return map[string]any{"digest": "sha256:" + digest, "size": len(data)}
}

func asJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// layout writes an OCI layout with an image of two layers, the upper one in
// zstd, behind an index that names another platform first.
func layout(t testing.TB, dir string) {
	t.Helper()
	z, _ := zstd.NewWriter(nil)
	low := blob(t, dir, tarOf(t, entry{name: "a", content: "1"}, entry{name: "b", content: "1"}))
	up := blob(t, dir, z.EncodeAll(tarOf(t, entry{name: "a", content: "2"}, entry{name: ".wh.b"}), nil))
	config := blob(t, dir, asJSON(map[string]any{"history": []map[string]any{{"created_by": "one"}, {"empty_layer": true}, {"created_by": "two"}}}))
	manifest := blob(t, dir, asJSON(map[string]any{"config": config, "layers": []any{low, up}}))
	other := blob(t, dir, asJSON(map[string]any{"config": config, "layers": []any{low}}))
	other["platform"] = map[string]string{"os": "unknown", "architecture": "unknown"}
	manifest["platform"] = map[string]string{"os": "linux", "architecture": "s390x"}
	index := blob(t, dir, asJSON(map[string]any{"manifests": []any{other, manifest}}))
	index["annotations"] = map[string]string{refName: "v1"}
	write(t, dir+"/index.json", asJSON(map[string]any{"manifests": []any{index}}))
	write(t, dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func TestEveryKindOfImageIsRead(t *testing.T) {
	dir := t.TempDir()
	layout(t, dir+"/oci")
	var all []entry
	filepath.Walk(dir+"/oci", func(p string, i os.FileInfo, err error) error {
		if err == nil && i.Mode().IsRegular() {
			data, _ := os.ReadFile(p)
			all = append(all, entry{name: strings.TrimPrefix(p, dir+"/oci/"), content: string(data)})
		}
		return nil
	})
	archive := tarOf(t, all...)
	write(t, dir+"/oci.tar", archive)
	z, _ := zstd.NewWriter(nil)
	write(t, dir+"/oci.tar.zst", z.EncodeAll(archive, nil))
	// Old docker-archives link layers that are the same.
	docker := tarOf(t, entry{name: "x/layer.tar", content: string(tarOf(t, entry{name: "a", content: "1"}))}, entry{name: "y/layer.tar", link: "../x/layer.tar"},
		entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["r/one:1"],"Layers":["x/layer.tar","y/layer.tar"]},{"Config":"c","RepoTags":["r/two:1"],"Layers":["x/layer.tar"]}]`})
	write(t, dir+"/docker.tar", docker)
	write(t, dir+"/plain.tar", tarOf(t, entry{name: "p", content: "1"}))
	for text, want := range map[string]string{
		"oci": "a:2", "oci:" + dir + "/oci:v1": "a:2", "oci.tar": "a:2", "oci.tar.zst": "a:2", "oci.tar:v1": "a:2", "oci.tar#1": "a:1 b:1", "oci.tar#2-2": "a:1",
		"docker.tar:r/one:1": "a:2", "docker.tar:two:1": "a:1", "plain.tar": "p:1", "tar:" + dir + "/plain.tar": "p:1", "dir:" + dir + "/oci/blobs/sha256/..": "*",
	} {
		if !strings.Contains(text, ":"+dir) {
			text = dir + "/" + text
		}
		got, err := paths(t, text)
		if err != nil || got != want && want != "*" {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	s, err := Open(dir+"/oci", Options{})
	if err != nil || s.Layers[0].Note != "two" || s.Layers[1].Note != "one" {
		t.Errorf("history: %+v, %v", s, err)
	}
	for text, want := range map[string]string{"docker.tar": "several", "docker.tar:none": "r/one:1", "oci:v2": "v1", "missing": "no such file", "oci.tar#3": "layers 1 to 2"} {
		if _, err := paths(t, dir+"/"+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

func TestAHostileImageIsRefused(t *testing.T) {
	dir := t.TempDir()
	secret := write(t, dir+"/secret", tarOf(t, entry{name: "stolen", content: "x"}))
	manifest := func(layers string) entry {
		return entry{name: "manifest.json", content: `[{"Config":"c","Layers":[` + layers + `]}]`}
	}
	for name, data := range map[string][]byte{
		"link out":     tarOf(t, entry{name: "l", link: secret}, manifest(`"l"`)),
		"path out":     tarOf(t, manifest(`"../secret"`)),
		"absolute":     tarOf(t, manifest(`"`+secret+`"`)),
		"loop":         tarOf(t, entry{name: "a", link: "b"}, entry{name: "b", link: "a"}, manifest(`"a"`)),
		"no json":      tarOf(t, entry{name: "manifest.json", content: "[{"}),
		"a directory":  tarOf(t, entry{name: "d/x", content: "1"}, manifest(`"d"`)),
		"no layers":    tarOf(t, manifest("")),
		"bad digest":   tarOf(t, entry{name: "index.json", content: `{"manifests":[{"digest":"sha256:../../secret"}]}`}),
		"index loop":   tarOf(t, entry{name: "index.json", content: `{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 64) + `"}]}`}, entry{name: "blobs/sha256/" + strings.Repeat("a", 64), content: `{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 64) + `"}]}`}),
		"layer of mud": tarOf(t, entry{name: "l", content: strings.Repeat("mud", 1000)}, manifest(`"l"`)),
	} {
		path := write(t, dir+"/image.tar", data)
		if got, err := paths(t, path); err == nil {
			t.Errorf("%s: shows %q", name, got)
		}
	}
	if _, err := paths(t, write(t, dir+"/mud", []byte(strings.Repeat("mud", 1000)))); !errors.Is(err, tarlayer.ErrCorrupt) {
		t.Errorf("no archive: %v", err)
	}
}

func TestDirectoriesAreStacksAsForAMount(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/low:er/a", nil)
	write(t, dir+"/up/.wh.a", nil)
	write(t, dir+"/up/b", nil)
	for text, want := range map[string]string{
		dir + "/up": "b:1",
		`lowerdir=` + dir + `/low\:er,upperdir=` + dir + `/up`: "b:2",
		`lowerdir=` + dir + `/low\:er`:                         "a:1",
	} {
		if got, err := paths(t, text); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add([]byte(`[{"Config":"c","RepoTags":["x"],"Layers":["l"]}]`), []byte(`{"manifests":[]}`), tarOf(f, entry{name: "a"}))
	f.Add([]byte(""), []byte(`{"manifests":[{"digest":"sha256:`+strings.Repeat("a", 64)+`","platform":{"os":"linux"}}]}`), []byte("x"))
	f.Fuzz(func(t *testing.T, manifest, index, layer []byte) {
		all := []entry{{name: "l", content: string(layer)}, {name: "index.json", content: string(index)}, {name: "blobs/sha256/" + strings.Repeat("a", 64), content: string(index)}}
		if len(manifest) > 0 {
			all = append(all, entry{name: "manifest.json", content: string(manifest)})
		}
		data := tarOf(t, all...)
		a, err := tarlayer.Open("f", bytes.NewReader(data), int64(len(data)), tarlayer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := openImage("f", a.Root(), "", &Options{}); err == nil {
			s.Close()
		}
	})
}
