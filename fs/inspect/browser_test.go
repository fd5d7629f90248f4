package inspect_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A browser shows files without a network and without a person.
type browser struct{ program string }

func findBrowser(t *testing.T) browser {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return browser{path}
		}
	}
	t.Skip("no chromium is installed")
	return browser{}
}

// run starts it with a page, and returns what it printed and the lines of the page's
// console: errors of scripts, of styles, of what was refused or could not be loaded.
func (b browser) run(t *testing.T, page string, flags ...string) (stdout string, console []string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--user-data-dir=" + filepath.Join(dir, "profile"),
		"--proxy-server=127.0.0.1:1", "--enable-logging=stderr", "--window-size=1100,1600",
	}, flags...)
	cmd := exec.CommandContext(ctx, b.program, append(args, "file://"+file)...)
	cmd.WaitDelay = time.Second // its children may hold the pipes
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", b.program, err, log.String())
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, ":CONSOLE") {
			console = append(console, line)
		}
	}
	return out.String(), console
}

// hslColour is the colour that CSS writes as hsl(h s% l%).
func hslColour(h, s, l float64) color.RGBA {
	s, l = s/100, l/100
	f := func(n float64) uint8 {
		k := n + h/30
		for k >= 12 {
			k -= 12
		}
		v := l - s*min(l, 1-l)*max(-1, min(k-3, 9-k, 1))
		return uint8(v*255 + 0.5)
	}
	return color.RGBA{f(0), f(8), f(4), 255}
}

// area counts the pixels that have a colour, nearly.
func area(img image.Image, want color.RGBA) (n int) {
	near := func(a uint32, b uint8) bool { d := int(a>>8) - int(b); return d >= -2 && d <= 2 }
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			if r, g, b, _ := img.At(x, y).RGBA(); near(r, want.R) && near(g, want.G) && near(b, want.B) {
				n++
			}
		}
	}
	return n
}

// What users would lose: a page that is empty, or that complains, in the browser that
// it is made for.
func TestReportInABrowser(t *testing.T) {
	b := findBrowser(t)
	if _, console := b.run(t, `<!doctype html><script>console.error("seen")</script>`, "--dump-dom"); len(console) != 1 {
		t.Fatalf("the console of a page is not seen here: %q", console)
	}
	page := hostilePage(t)
	dom, console := b.run(t, page, "--dump-dom")
	if len(console) > 0 {
		t.Errorf("the page's console: %q", console)
	}
	if n := strings.Count(dom, "<rect "); n < 3 {
		t.Errorf("the map has %d areas", n)
	}
	for _, bad := range []string{"<script", "<img", "onclick=\""} {
		if strings.Contains(dom, bad) {
			t.Errorf("a name became %s", bad)
		}
	}
	for _, want := range []string{"&lt;script&gt;alert(1)&lt;", "&lt;img src=x onerror=alert(1)&gt;", "&lt;/svg&gt;&lt;script&gt;"} {
		if !strings.Contains(dom, want) {
			t.Errorf("no text says %s", want)
		}
	}
	shot := filepath.Join(t.TempDir(), "report.png")
	if dir := os.Getenv("LAMINA_SCREENSHOTS"); dir != "" {
		shot = filepath.Join(dir, "report.png")
	}
	if _, console = b.run(t, page, "--screenshot="+shot); len(console) > 0 {
		t.Errorf("the page's console: %q", console)
	}
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	// Layer 1 has all the bytes: its bar, 1028 wide and 42 high but for the hidden
	// twentieth, and the areas of the map.
	if n := area(img, hslColour(47, 55, 62)); n < 1028*42*9/10 {
		t.Errorf("the bar of layer 1 has %d pixels", n)
	}
	for depth, least := range map[float64]int{0: 1000, 1: 10000} {
		if n := area(img, hslColour(47, 50, 62+5*depth)); n < least {
			t.Errorf("the map has %d pixels at depth %v", n, depth)
		}
	}
}
