package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/laminafs/lamina/backends/tree"
)

// A manifest is one image of an archive, whatever the format.
type manifest struct {
	names  []string
	config []byte
	image  v1.Image
	layers []blob // the bottom first
}

// A blob is a layer as the archive has it.
type blob struct {
	name   string        // in the source
	digest digest.Digest // of the blob as it is; "" where the format does not tell
	size   int64         // -1 where it does not tell
}

// manifests reads what images an archive holds.
func manifests(s source) ([]manifest, error) {
	text, err := small(s, "manifest.json")
	if err == nil {
		return dockerManifests(s, text)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	text, err = small(s, v1.ImageIndexFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoImages
	}
	if err != nil {
		return nil, err
	}
	return ociManifests(s, text, nil, 0)
}

var errNoImages = errors.New("neither manifest.json nor index.json: no archive of images")

func dockerManifests(s source, text []byte) (list []manifest, err error) {
	var entries []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	for _, e := range entries {
		m := manifest{names: e.RepoTags}
		if m.config, err = small(s, e.Config); err != nil {
			return nil, fmt.Errorf("image configuration: %w", err)
		}
		// Its name is its digest, and what is not one was never checked by anybody.
		base := strings.TrimSuffix(e.Config[strings.LastIndexByte(e.Config, '/')+1:], ".json")
		if want := digest.NewDigestFromEncoded(digest.SHA256, base); want.Validate() == nil && want != digest.FromBytes(m.config) {
			return nil, mismatch(e.Config, want, digest.FromBytes(m.config))
		}
		for _, name := range e.Layers {
			b := blob{name: name, size: -1}
			if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
				b.digest = digest.NewDigestFromEncoded(digest.SHA256, hex)
			}
			m.layers = append(m.layers, b)
		}
		if err := m.check(); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// depthMax is how many indexes may lie in each other.
const depthMax = 4

func ociManifests(s source, text []byte, names []string, depth int) (list []manifest, err error) {
	var index v1.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if depth > depthMax {
		return nil, fmt.Errorf("index: %w: indexes in indexes", tree.ErrRefused)
	}
	for _, d := range here(index.Manifests) {
		called := append(append([]string{}, names...), namesOf(d.Annotations)...)
		text, err := described(s, &d)
		if err != nil {
			return nil, err
		}
		var more []manifest
		switch d.MediaType {
		case v1.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
			more, err = ociManifests(s, text, called, depth+1)
		default:
			more, err = ociManifest(s, text, called)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// here picks what runs on this machine out of an index for several.
func here(all []v1.Descriptor) (fit []v1.Descriptor) {
	for _, d := range all {
		p := d.Platform
		if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			continue
		}
		if p == nil || p.OS == "linux" && p.Architecture == runtime.GOARCH || p.OS == "" {
			fit = append(fit, d)
		}
	}
	if len(fit) == 0 {
		return all // for another machine; its files can be looked at
	}
	return fit
}

func namesOf(annotations map[string]string) []string {
	for _, key := range []string{"io.containerd.image.name", v1.AnnotationRefName} {
		if name := annotations[key]; name != "" {
			return []string{name}
		}
	}
	return nil
}

func ociManifest(s source, text []byte, names []string) ([]manifest, error) {
	var in v1.Manifest
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m := manifest{names: names}
	var err error
	if m.config, err = described(s, &in.Config); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	for _, l := range in.Layers {
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("layer %q: %w", l.Digest, err)
		}
		m.layers = append(m.layers, blob{blobPath(l.Digest), l.Digest, l.Size})
	}
	return []manifest{m}, m.check()
}

func (m *manifest) check() error {
	if err := json.Unmarshal(m.config, &m.image); err != nil {
		return fmt.Errorf("image configuration: %w", err)
	}
	ids := m.image.RootFS.DiffIDs
	if len(ids) != len(m.layers) {
		return fmt.Errorf("image configuration: %w: %d diff ids for %d layers", tree.ErrRefused, len(ids), len(m.layers))
	}
	for _, id := range ids {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("image configuration: diff id %q: %w", id, err)
		}
	}
	return nil
}

func blobPath(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// described reads a blob that describes others and checks that it is the one
// that was meant.
func described(s source, d *v1.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	text, err := small(s, blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(text); got != d.Digest {
		return nil, mismatch(blobPath(d.Digest), d.Digest, got)
	}
	return text, nil
}

// ErrDigest says that something is not what its digest says.
var ErrDigest = errors.New("the digest does not fit")

func mismatch(what string, want, got digest.Digest) error {
	return fmt.Errorf("%s: %w: %s, it should be %s", what, ErrDigest, got, want)
}

// A hashed reader computes the digest and the length of what goes through.
type hashed struct {
	r io.Reader
	d digest.Digester
	n int64
}

func newHashed(r io.Reader, a digest.Algorithm) *hashed { return &hashed{r: r, d: a.Digester()} }

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.d.Hash().Write(p[:n])
	h.n += int64(n)
	return n, err
}
