//go:build integration

package nbd

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/nbd"
)

// A served is a server in this process, and the socket that it listens on.
type served struct{ socket string }

// serve serves exports until the test ends, and fails the test if the server
// had anything to complain about.
func serve(t testing.TB, exports nbd.Exports) served {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		s := nbd.Server{Exports: exports, Log: log.New(&complaints, "", 0)}
		done <- s.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if complaints.Len() > 0 {
			t.Errorf("the server complained:\n%s", complaints.String())
		}
		os.RemoveAll(dir)
	})
	return served{socket}
}

// uri returns what clients call an export.
func (s served) uri(export string) string { return uri(s.socket, export) }

func uri(socket, export string) string {
	return "nbd+unix:///" + url.PathEscape(export) + "?socket=" + socket
}

// need skips the test if a program is not there.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v (Debian: qemu-utils, libnbd-bin)", err)
		}
	}
}

// try runs a program and returns what it printed, both streams together.
func try(stdin io.Reader, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ok runs a program that must succeed and returns what it printed.
func ok(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := try(nil, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}
