//go:build integration

package datasets

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// endless are programs that tell on their output how far they are, and go on until
// the server is gone.
var endless = map[string]func(dir string) error{
	"chmod":               changesMode, // it does end
	"make files":          makesFiles,
	"commit":              commits,
	"stress":              stress,
	"stress in processes": stresses,
}

// fileText is what file i of makesFiles has.
func fileText(i int) []byte { return bytes.Repeat([]byte(strconv.Itoa(i)+"\n"), 1+i%3000) }

// makesFiles makes one file after the other, each under another name first, and syncs
// nothing.
func makesFiles(dir string) error {
	for i := 0; ; i++ {
		tmp := filepath.Join(dir, "tmp")
		if err := os.WriteFile(tmp, fileText(i), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

// A record of the log that commits writes: number, length of the text, checksum, text.
func logRecord(i int) []byte {
	text := random(10+i*37%5000, uint64(i))
	b := binary.BigEndian.AppendUint32(nil, uint32(i))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(text))
	return append(b, text...)
}

// commits appends to a log and syncs it, as databases do. After a hundred records it
// begins a new log, which takes the place of the old one by a rename.
func commits(dir string) error {
	name := filepath.Join(dir, "log")
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	var f *os.File
	for i := 0; ; i++ {
		if i%100 == 0 {
			if f, err = os.Create(name + ".new"); err != nil {
				return err
			}
		}
		if _, err := f.Write(logRecord(i)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if i%100 == 0 {
			if err := os.Rename(name+".new", name); err != nil {
				return err
			}
			if err := d.Sync(); err != nil {
				return err
			}
		}
		fmt.Println(i)
	}
}

// killUnder runs an endless program in a mount and kills the server under it after a
// while. It returns the last number that the program has told, with the dataset
// checked, and mounted again in dir.
func (s *server) killUnder(program, dir string, after time.Duration) (last int) {
	s.t.Helper()
	cmd := s.command(s.uid, "/proc/self/exe")
	cmd.Env = append(cmd.Env, "LAMINA_TEST_CLIENT="+program, "LAMINA_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	last = -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if last < 0 { // it has begun
			time.AfterFunc(after, func() { s.cmd.Process.Kill() })
		}
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil || last < 0 {
		s.t.Fatalf("the program came to %d and ended with: %v", last, err)
	}
	s.kill(dir)
	s.start()
	s.ask("check")
	s.ask("mount", "set", dir, s.options)
	return last
}

// What was synced before the server was killed is there, and the log has no hole.
func TestCommitsSurviveTheServer(t *testing.T) {
	for _, options := range []string{"writeback=0", "writeback=1"} {
		t.Run(options, func(t *testing.T) {
			for round := range 4 {
				s, dir := mounted(t, 0, options)
				last := s.killUnder("commit", dir, time.Duration(100+130*round)*time.Millisecond)
				log := read(t, filepath.Join(dir, "log"))
				i := last / 100 * 100
				if first := binary.BigEndian.Uint32(append([]byte(log), 0, 0, 0, 0)); first > uint32(i) {
					i = int(first) // the rename had come to its end, and nobody was told
				}
				for ; len(log) >= 12; i++ {
					want := logRecord(i)
					if len(log) < len(want) || log[:len(want)] != string(want) {
						break // what was not synced
					}
					log = log[len(want):]
				}
				if i <= last {
					t.Errorf("round %d: record %d is not there, and %d was committed", round, i, last)
				}
			}
		})
	}
}

// Without write-back a killed server leaves what the programs had done, in their
// order: no file is there in part, and none is missing before the last one.
func TestAKilledServerLosesNothingThatWasDone(t *testing.T) {
	for round := range 4 {
		s, dir := mounted(t, 0, "writeback=0")
		last := s.killUnder("make files", dir, time.Duration(100+130*round)*time.Millisecond)
		for i := 0; ; i++ {
			got, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
			if os.IsNotExist(err) {
				if i <= last {
					t.Errorf("file %d is not there, and %d was made", i, last)
				}
				break
			}
			if err != nil || !bytes.Equal(got, fileText(i)) {
				t.Fatalf("file %d has %d bytes, or others (%v)", i, len(got), err)
			}
		}
	}
}

// A file that was removed while it was open goes with a killed server, and its space
// comes back.
func TestRemovedFilesOfAKilledServerGo(t *testing.T) {
	s, dir := mounted(t, 0, "")
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write(random(20<<20, 1))
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	used := func() uint64 { return (blocks(t, dir).Blocks - blocks(t, dir).Bfree) * 4096 }
	before := used()
	s.kill(dir)
	s.start()
	s.ask("mount", "set", dir, "")
	eventually(t, fmt.Sprintf("the space to come back, %d bytes", before), func() bool { return used() < before/2 })
	if list := names(t, dir); len(list) != 0 {
		t.Errorf("the dataset has %q", list)
	}
}
