package inspect_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/laminafs/lamina/fs/inspect"
)

// hostilePage is the report of a stack whose names are made for browsers.
func hostilePage(t *testing.T) string {
	t.Helper()
	s := stackOf(t, `
		"<script>alert(1)<" f 0644 "12345"
		"\"><img src=x onerror=alert(1)>" d
		"\"><img src=x onerror=alert(1)>/\xff\x1b[2J" f 0644 "123456789"
		"</title></svg><script>" d
		"</title></svg><script>/f" f 0644 "0123456789012345678901234567890123456789"
		gone f 0644 "123"`, `
		gone c 0 0:0`)
	s.Name = "</title><script>alert(2)</script>"
	s.Layers[0].Note = "RUN <b onclick=x>"
	r := inspect.NewReport(s)
	w, err := s.Waste(context.Background(), inspect.WasteOptions{DuplicatesFrom: -1, Visit: r.Visit}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Write(&b, w, "1"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What users would lose: their browser, to an image whose file names are
// scripts.
func TestReportIsOnePageAndHarmless(t *testing.T) {
	page := hostilePage(t)
	for _, bad := range []string{"<script", "<img", "<b ", "http:", "https:", "url(", "\x1b", "ZgotmplZ"} {
		at := strings.Index(page, bad)
		if at >= 0 {
			t.Errorf("the page holds %q: …%q…", bad, page[max(0, at-60):min(len(page), at+60)])
		}
	}
	if !utf8.ValidString(page) {
		t.Error("no valid UTF-8")
	}
	for _, want := range []string{"54 B", "57 B", "3 B", "<svg", "&lt;script&gt;"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
	// Well-formed but for what HTML leaves open.
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
