//go:build integration

package clients

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"testing"
)

// debianPackage makes one version of a package whose files try what dpkg does
// to a filesystem: it unpacks beside, links the old file as a backup, renames.
func debianPackage(t testing.TB, version int) []byte {
	control, data := newTree(t), newTree(t)
	control.at = epoch.AddDate(version, 0, 0) // clients may look for changes by size and time
	data.at = control.at
	control.file("control", 0o644, fmt.Sprintf("Package: tiny\nVersion: %d\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a package\n", version))
	control.file("conffiles", 0o644, "/etc/tiny.conf\n")
	control.file("postinst", 0o755, fmt.Sprintf("#!/bin/sh\necho configured %d >> /var/log-of-tiny\n", version))
	data.file("etc/tiny.conf", 0o600, "setting\n")
	for i := range 20 {
		data.file(fmt.Sprintf("usr/share/tiny/file-%d", i), 0o644, fmt.Sprintf("%d of version %d\n", i, version))
	}
	data.file(fmt.Sprintf("usr/share/tiny/only-%d", version), 0o644, "")
	data.file("usr/share/tiny/setuid", 0o4755, "#!/bin/sh\n")
	data.link("usr/share/tiny/linked", "usr/share/tiny/file-0")
	data.symlink("usr/share/tiny/symlink", fmt.Sprintf("only-%d", version))
	return arArchive([]arMember{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", gzipped(t, control.bytes())},
		{"data.tar.gz", gzipped(t, data.bytes())},
	})
}

type arMember struct {
	name string
	text []byte
}

// arArchive writes the format of ar(5).
func arArchive(members []arMember) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, epoch.Unix(), 0, 0, 0o100644, len(m.text))
		b.Write(m.text)
		if len(m.text)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func gzipped(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
