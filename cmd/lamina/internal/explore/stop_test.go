package explore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
)

// What users would lose: their terminal, until a layer of a million files is read that
// they chose by mistake.
func TestReadingALayerCanBeStopped(t *testing.T) {
	base, top := t.TempDir(), t.TempDir()
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(base, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &inspect.Stack{Name: "s"}
	for _, dir := range []string{top, base} {
		s.Layers = append(s.Layers, inspect.Layer{Name: dir, Open: func() (layer.Dir, error) { return layer.OpenHost(dir) }})
	}
	stop := true
	loading := func(int) bool { return stop }
	if _, err := New(t.Context(), s, loading); err != ErrStopped {
		t.Errorf("the first layer: %v", err)
	}
	stop = false
	m, err := New(t.Context(), s, loading)
	if err != nil {
		t.Fatal(err)
	}
	stop = true
	if quit, err := m.Press("["); quit || err != nil || m.layer != 0 || !strings.Contains(m.message, "layer 1 was stopped") || len(m.rows) != 5000 {
		t.Errorf("quit %v, %v, layer %d, %q, %d rows", quit, err, m.layer, m.message, len(m.rows))
	}
	stop = false
	if _, err := m.Press("["); err != nil || m.layer != 1 {
		t.Errorf("layer %d, %v", m.layer, err)
	}
}
