package stacks

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/tarlayer"
)

// errNoImage tells that there is neither a manifest.json nor an index.json.
var errNoImage = errors.New("holds no image")

// layerRef is one layer of an image, as its manifest names it.
type layerRef struct {
	path  string // in the archive or layout
	name  string // for users
	media string
}

// A manifest of docker-archive (docker save), one for each image.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string // the bottom first
}

// A descriptor of the OCI image format (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

// imageConfig is what is read of an image's config: how each layer was made.
type imageConfig struct {
	History []struct {
		CreatedBy  string `json:"created_by"`
		Comment    string `json:"comment"`
		EmptyLayer bool   `json:"empty_layer"`
	} `json:"history"`
}

// openImage reads the image with the reference, or the only one, from the tree
// of an archive or a layout.
func openImage(text string, d layer.Dir, ref string, o *Options) (*inspect.Stack, error) {
	refs, config, err := dockerLayers(d, ref)
	if errors.Is(err, errNoImage) {
		refs, config, err = ociLayers(d, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("%s: the image has no layers", text)
	}
	if len(refs) > maxLayers {
		return nil, fmt.Errorf("%s: %d layers; at most %d are read", text, len(refs), maxLayers)
	}
	s := &inspect.Stack{Name: text}
	notes := config.notes()
	for i := len(refs) - 1; i >= 0; i-- {
		l, closer, err := imageLayer(d, refs[i], o)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("%s: layer %d: %w", text, i+1, err)
		}
		if i < len(notes) {
			l.Note = notes[i]
		}
		s.Layers = append(s.Layers, l)
		s.Closers = append(s.Closers, closer)
	}
	return s, nil
}

// maxLayers bounds what a manifest can make us open.
const maxLayers = 4096

// notes returns how the layers were made, the bottom first.
func (c *imageConfig) notes() (notes []string) {
	for _, h := range c.History {
		if !h.EmptyLayer {
			note := h.CreatedBy
			if note == "" {
				note = h.Comment
			}
			notes = append(notes, note)
		}
	}
	return notes
}

func imageLayer(d layer.Dir, r layerRef, o *Options) (inspect.Layer, func() error, error) {
	if strings.Contains(r.media, "encrypted") {
		return inspect.Layer{}, nil, fmt.Errorf("%s is encrypted", r.name)
	}
	f, st, err := openPath(d, r.path)
	if err != nil {
		return inspect.Layer{}, nil, err
	}
	fs, err := tarlayer.Open(r.name, readerAt{f}, st.Size, o.tar(r.name, true))
	if err != nil {
		f.Close()
		return inspect.Layer{}, nil, err
	}
	l := inspect.Layer{
		Name: r.name, Packed: st.Size, Problems: fs.Problems(),
		Open: func() (layer.Dir, error) { return fs.Root(), nil },
	}
	return l, func() error { return errors.Join(fs.Close(), f.Close()) }, nil
}

// maxJSON bounds manifests, indexes and configs, as registries do.
const maxJSON = 8 << 20

func readJSON(d layer.Dir, path string, v any) error {
	f, st, err := openPath(d, path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Size > maxJSON {
		return fmt.Errorf("%s: %d bytes, at most %d are read", path, st.Size, maxJSON)
	}
	data := make([]byte, st.Size)
	n, err := f.ReadAt(data, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := json.Unmarshal(data[:n], v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func dockerLayers(d layer.Dir, ref string) ([]layerRef, *imageConfig, error) {
	var images []dockerManifest
	if err := readJSON(d, "manifest.json", &images); errors.Is(err, unix.ENOENT) {
		return nil, nil, errNoImage
	} else if err != nil {
		return nil, nil, err
	}
	var names []string
	for _, m := range images {
		names = append(names, m.RepoTags...)
		if ref != "" && !anyTag(m.RepoTags, ref) || ref == "" && len(images) > 1 {
			continue
		}
		config := &imageConfig{}
		if err := readJSON(d, cleanInside("", m.Config), config); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, err
		}
		var refs []layerRef
		for _, path := range m.Layers {
			path = cleanInside("", path)
			refs = append(refs, layerRef{path: path, name: strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(path, "blobs/sha256/"), "/layer.tar"), ".tar")})
		}
		return refs, config, nil
	}
	return nil, nil, choose(ref, names)
}

// anyTag tells whether one of the tags is meant, whose registry and "latest" may
// be left out.
func anyTag(tags []string, ref string) bool {
	for _, t := range tags {
		if t == ref || t == ref+":latest" || strings.HasSuffix(t, "/"+ref) || strings.HasSuffix(t, "/"+ref+":latest") {
			return true
		}
	}
	return false
}

func choose(ref string, names []string) error {
	if ref == "" {
		return fmt.Errorf("holds several images; say which behind a colon: %q", names)
	}
	return fmt.Errorf("holds no image %q, but %q", ref, names)
}

func ociLayers(d layer.Dir, ref string) ([]layerRef, *imageConfig, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := readJSON(d, "index.json", &index); errors.Is(err, unix.ENOENT) {
		return nil, nil, errNoImage
	} else if err != nil {
		return nil, nil, err
	}
	found, err := pickDescriptor(index.Manifests, ref)
	if err != nil {
		return nil, nil, err
	}
	// An index may lead to one for each platform.
	for range 4 {
		path, err := blobPath(found.Digest)
		if err != nil {
			return nil, nil, err
		}
		var m struct {
			Manifests []descriptor `json:"manifests"`
			Config    descriptor   `json:"config"`
			Layers    []descriptor `json:"layers"`
		}
		if err := readJSON(d, path, &m); err != nil {
			return nil, nil, err
		}
		if len(m.Manifests) > 0 {
			found = pickPlatform(m.Manifests)
			continue
		}
		var refs []layerRef
		for _, l := range m.Layers {
			path, err := blobPath(l.Digest)
			if err != nil {
				return nil, nil, err
			}
			refs = append(refs, layerRef{path: path, name: l.Digest, media: l.MediaType})
		}
		config := &imageConfig{}
		if path, err := blobPath(m.Config.Digest); err == nil {
			// Without its history the image is shown all the same.
			_ = readJSON(d, path, config)
		}
		return refs, config, nil
	}
	return nil, nil, errors.New("an index leads to an index, more than 4 times")
}

const refName = "org.opencontainers.image.ref.name"

func pickDescriptor(all []descriptor, ref string) (descriptor, error) {
	var names []string
	var fit []descriptor
	for _, m := range all {
		name := m.Annotations[refName]
		full := m.Annotations["io.containerd.image.name"]
		names = append(names, name)
		if ref == "" || ref == name || ref == full || ref == m.Digest {
			fit = append(fit, m)
		}
	}
	switch {
	case len(fit) == 0:
		return descriptor{}, choose(ref, names)
	case len(fit) == 1 || ref != "":
		return pickPlatform(fit), nil
	}
	for _, m := range fit[1:] {
		if m.Annotations[refName] != fit[0].Annotations[refName] {
			return descriptor{}, choose("", names)
		}
	}
	return pickPlatform(fit), nil
}

// pickPlatform prefers this machine's, then any that is a system's.
func pickPlatform(all []descriptor) descriptor {
	best := all[0]
	for _, m := range all {
		if p := m.Platform; p != nil && p.OS == "linux" {
			if p.Architecture == runtime.GOARCH {
				return m
			}
			if best.Platform == nil || best.Platform.OS != "linux" {
				best = m
			}
		}
	}
	return best
}

var digestPattern = regexp.MustCompile(`^([a-z0-9]+):([a-f0-9]{32,128})$`)

func blobPath(digest string) (string, error) {
	m := digestPattern.FindStringSubmatch(digest)
	if m == nil {
		return "", fmt.Errorf("%.100q is no digest", digest)
	}
	return "blobs/" + m[1] + "/" + m[2], nil
}
