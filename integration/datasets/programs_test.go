//go:build integration

package datasets

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// What container builds and developers do all day: an archive of a tree with all kinds
// of files, unpacked and packed again, is the same.
func TestTarOfATreeComesBackIdentical(t *testing.T) {
	need(t, "tar")
	modes(t, func(t *testing.T, s *server, dir string) {
		src := filepath.Join(runtime.GOROOT(), "src/net")
		s.run("sh", "-ec", fmt.Sprintf(`
			cd %s; mkdir in
			cp -r %s in/net
			cd in; ln net/dial.go hard; ln -s net/dial.go soft; mkfifo fifo; truncate -s 3M sparse
			chmod 6711 hard; mkdir -m 1777 sticky; touch -d '2001-02-03 04:05:06.789' old
			setfattr -n user.comment -v kept old 2>/dev/null || true
		`, dir, src))
		pack := "tar --sort=name --numeric-owner --xattrs --acls --format=posix --pax-option=delete=atime,delete=ctime -C "
		s.run("sh", "-ec", fmt.Sprintf(`
			cd %s; %s in -cf ../a.tar .; mkdir out; tar --xattrs --acls -C out -xpf ../a.tar
			%s out -cf ../b.tar .; cmp ../a.tar ../b.tar; diff -r in/net out/net
		`, dir, pack, pack))
	})
}

func TestGitRepositoriesAreSound(t *testing.T) {
	need(t, "git")
	modes(t, func(t *testing.T, s *server, dir string) {
		s.run("sh", "-ec", fmt.Sprintf(`
			cd %s; git init -q repo; cd repo
			git config user.email a@b; git config user.name a
			cp -r %s .; git add .; git commit -qm one
			mv strings words; echo more >> words/doc; git add -A; git commit -qm two; git gc -q
			cd ..; git clone -q --no-hardlinks repo copy; git clone -q repo linked
			for d in repo copy linked; do git -C $d fsck --full --strict; test -z "$(git -C $d status --porcelain)"; done
		`, dir, filepath.Join(runtime.GOROOT(), "src/strings")))
	})
}

func TestACLsAreKeptAndInherited(t *testing.T) {
	need(t, "setfacl", "getfacl")
	modes(t, func(t *testing.T, s *server, dir string) {
		got := s.run("sh", "-ec", fmt.Sprintf(`
			cd %s; mkdir d; setfacl -m u:1234:rwx,d:u:1234:rw,d:g::r d
			touch d/f; mkdir d/sub; getfacl -cn d/f; getfacl -cn d/sub
		`, dir))
		for _, want := range []string{"user:1234:rw-", "mask::rw-", "default:user:1234:rw-"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in\n%s", want, got)
			}
		}
	})
}

// A database with a log beside it: what a reader sees is what was committed, and the
// file is whole.
func TestSQLiteWithAWriteAheadLog(t *testing.T) {
	need(t, "sqlite3")
	modes(t, func(t *testing.T, s *server, dir string) {
		db := filepath.Join(dir, "db")
		s.run("sqlite3", db, "PRAGMA journal_mode=WAL; CREATE TABLE t(i INTEGER PRIMARY KEY, b BLOB);")
		script := filepath.Join(s.base, "script.sql")
		var sql strings.Builder
		sql.WriteString("PRAGMA synchronous=FULL; PRAGMA mmap_size=10000000;\n")
		for i := range 300 {
			fmt.Fprintf(&sql, "BEGIN; INSERT INTO t(b) VALUES(randomblob(%d)); UPDATE t SET b=randomblob(900) WHERE i=%d; COMMIT;\n", 100+i*10, i/2)
		}
		if err := os.WriteFile(script, []byte(sql.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		s.run("sh", "-c", "sqlite3 "+db+" < "+script)
		if got := s.run("sqlite3", db, "PRAGMA integrity_check; SELECT count(*) FROM t; PRAGMA wal_checkpoint(TRUNCATE);"); !strings.HasPrefix(got, "ok\n300\n") {
			t.Errorf("the database says %q", got)
		}
	})
}
