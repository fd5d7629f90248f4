package blockpool

import (
	"bytes"
	"os"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// damageValues flips a bit in the first values of a bucket, behind the back of
// whoever has the replica open.
func damageValues(t testing.TB, path string, b meta.Bucket, most int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seal, hits := []byte{'L', 'm', 1, byte(b)}, 0
	for at := 0; hits < most; hits++ { // in pages that are free now, too
		i := bytes.Index(raw[at:], seal)
		if i < 0 {
			break
		}
		at += i + 20
		if _, err := f.WriteAt([]byte{raw[at] ^ 8}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if hits == 0 {
		t.Fatalf("no value of bucket %v in %s", b, path)
	}
}
