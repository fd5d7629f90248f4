package inspect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/layer/tarlayer"
)

// What users would lose: a layer that was written by diff --tar and does not
// make of A what B is.
func TestALayerFromADiffMakesBOfA(t *testing.T) {
	done := 0
	for seed := range seeds(1500) {
		a, b := randomStack(2*seed), randomStack(2*seed+1)
		a.Name, b.Name = "a", "b"
		var out bytes.Buffer
		w := inspect.NewTarWriter(&out)
		failed := false
		err := inspect.Diff(context.Background(), a, b, inspect.DiffOptions{Times: true}, func(error) { failed = true }, w.Write)
		if failed || errors.Is(err, io.ErrUnexpectedEOF) {
			continue // one of the two cannot be read, or a metacopy file has less data than its size
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		w.Close()
		archive, err := tarlayer.Open("diff", bytes.NewReader(out.Bytes()), int64(out.Len()), tarlayer.Options{Image: true})
		if err != nil {
			t.Fatal(err)
		}
		if p := archive.Problems(); len(p) > 0 {
			t.Fatalf("seed %d: %q", seed, p)
		}
		c := &inspect.Stack{Name: "c", NoFollow: a.NoFollow, DataOnly: a.DataOnly}
		c.Layers = append([]inspect.Layer{{Name: "diff", Open: func() (layer.Dir, error) { return archive.Root(), nil }}}, a.Layers...)
		if want, got := fromInspect(t, b), fromInspect(t, c); !slices.Equal(sizeless(want), sizeless(got)) {
			t.Fatalf("seed %d\nwant %s\ngot  %s", seed, strings.Join(sizeless(want), "\n     "), strings.Join(sizeless(got), "\n     "))
		}
		done++
	}
	if done < 150 && !testing.Short() {
		t.Errorf("%d pairs only", done)
	}
}

// sizeless takes the sizes of directories off.
func sizeless(l shown) (out shown) {
	for _, line := range l {
		out = append(out, strings.ReplaceAll(line, " 40755 0 4096", " 40755 0 0"))
	}
	return out
}

func stackOf(t *testing.T, layers ...string) *inspect.Stack {
	t.Helper()
	s := &inspect.Stack{Name: "s"}
	for i, text := range layers {
		fs := memlayer.New(memlayer.Options{})
		fs.MustBuild(text)
		s.Layers = slices.Insert(s.Layers, 0, inspect.Layer{Name: fmt.Sprint(i + 1), Open: func() (layer.Dir, error) { return fs.Root(), nil }})
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func changes(t *testing.T, a, b *inspect.Stack, o inspect.DiffOptions) (out []string) {
	t.Helper()
	err := inspect.Diff(context.Background(), a, b, o, func(err error) { t.Error(err) }, func(c *inspect.Change) error {
		out = append(out, fmt.Sprint(c.Kind, " ", c.Path, " ", c.From, c.What.Names()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiffTellsWhatChanged(t *testing.T) {
	a := stackOf(t, `
		same f 0644 "x"
		text f 0644 "old"
		mode f 0644 "x"
		own  f 0644 "x"
		attr f 0644 "x"
		type f 0644 "x"
		link l "a"
		gone d
		gone/f f 0644 "x"`)
	b := stackOf(t, `
		same f 0644 "x"
		text f 0644 "new"
		mode f 0600 "x"
		own  f 0644 "x" uid=5
		attr f 0644 "x" user.a=b
		type d
		link l "b"
		come f 0644 "x"`)
	want := []string{"changed attr [xattr]", "added come []", "removed gone []", "removed gone/f []", "changed link [content]",
		"changed mode [mode]", "changed own [owner]", "changed text [content]", "changed type [type]"}
	var got []string
	for _, c := range changes(t, a, b, inspect.DiffOptions{}) {
		got = append(got, strings.Join(strings.Fields(strings.Replace(strings.ReplaceAll(c, " times]", "]"), "[times]", "[]", 1)), " "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestTextDiffIsAPatch(t *testing.T) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		t.Skip("patch is missing")
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		var a, b []string
		for range r.IntN(40) {
			line := fmt.Sprintln("line", r.IntN(8))
			if r.IntN(4) > 0 {
				a = append(a, line)
			}
			if r.IntN(4) > 0 {
				b = append(b, line)
			}
		}
		old, new := strings.Join(a, ""), strings.Join(b, "")
		if r.IntN(3) == 0 {
			new = strings.TrimSuffix(new, "\n")
		}
		if r.IntN(3) == 0 {
			old = strings.TrimSuffix(old, "\n")
		}
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "f"), []byte(old), 0o644)
		text := diffOf(t, old, new)
		if text == "" {
			if old != new {
				t.Fatalf("%q and %q do not differ", old, new)
			}
			continue
		}
		cmd := exec.Command(patch, "-p0", "-s", "--posix", "f")
		cmd.Dir = dir
		cmd.Stdin = strings.NewReader("--- f\n+++ f\n" + text)
		out, err := cmd.CombinedOutput()
		got, _ := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil || string(got) != new {
			t.Fatalf("%q -> %q\n%s\npatch: %s %v\n%q", old, new, text, out, err, got)
		}
	}
}

func diffOf(t *testing.T, old, new string) (text string) {
	t.Helper()
	entry := func(content string) *inspect.Entry {
		fs := memlayer.New(memlayer.Options{})
		f, err := fs.Root().OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte(content), 0)
		f.Close()
		s := &inspect.Stack{Name: "s", Layers: []inspect.Layer{{Name: "l", Open: func() (layer.Dir, error) { return fs.Root(), nil }}}}
		p, err := s.Lookup("f")
		if err != nil {
			t.Fatal(err)
		}
		return p.Entry
	}
	text, err := inspect.TextDiff(entry(old), entry(new))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The log compares only what each layer names; that must be all there is.
func TestLogIsTheDiffOfEachLayer(t *testing.T) {
	checked := 0
	for seed := range seeds(800) {
		s := randomStack(seed)
		if len(s.Layers) < 2 {
			continue
		}
		failed := false
		bad := func(error) { failed = true }
		got := map[int][]string{}
		err := s.Log(context.Background(), inspect.DiffOptions{}, bad, func(int) error { return nil }, func(i int, c *inspect.Change) error {
			got[i] = append(got[i], fmt.Sprint(c.Kind, c.Path, c.What))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(s.Layers) - 1 {
			with, _ := s.Part(1, s.Number(i))
			without, _ := s.Part(1, s.Number(i)-1)
			var want []string
			err := inspect.Diff(context.Background(), without, with, inspect.DiffOptions{}, bad, func(c *inspect.Change) error {
				want = append(want, fmt.Sprint(c.Kind, c.Path, c.What))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !failed && !slices.Equal(got[i], want) {
				t.Fatalf("seed %d, layer %d\nlog  %q\ndiff %q", seed, s.Number(i), got[i], want)
			}
			if !failed {
				checked += len(want)
			}
		}
	}
	if checked < 300 && !testing.Short() {
		t.Errorf("%d changes only", checked)
	}
}
