package meta

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

func TestVerifyFindsDamageInAReplicaThatIsInUse(t *testing.T) {
	dir := t.TempDir()
	paths := []string{dir + "/a.db", dir + "/b.db"}
	s, err := Create(paths, GUID{1}, Options{MaxSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b Batch
	for i := range 500 {
		b.Put(Nodes, fmt.Appendf(nil, "key%04d", i), make([]byte, 900))
	}
	if err := s.Commit(1, &b); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(); err != nil || len(bad) != 0 {
		t.Fatalf("a sound store: %v, %v", bad, err)
	}
	b = Batch{}
	b.Delete(Nodes, []byte("key0007"))
	if err := s.Commit(2, &b); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(paths[1], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ { // wherever a page has the key, that in use among them
		i := bytes.Index(raw[at:], []byte("key0300"))
		if i < 0 {
			break
		}
		at += i
		if _, err := f.WriteAt([]byte{0x55}, int64(at+100)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	found, err := s.Verify()
	if err != nil {
		t.Fatal(err)
	}
	if found[paths[1]] == nil || found[paths[0]] != nil {
		t.Fatalf("found %v, want damage in %s", found, paths[1])
	}
	if err := s.Recopy(paths[1]); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(); err != nil || len(bad) != 0 {
		t.Fatalf("after the copy: %v, %v", bad, err)
	}
}
