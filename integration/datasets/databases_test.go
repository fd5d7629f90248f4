//go:build integration

package datasets

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A database in a mount. What it has acknowledged must be there, whoever is killed.
type database interface {
	// begin starts it, after it or the server of the pool was killed.
	begin(t *testing.T)
	// client returns a program that does the statements of its input.
	client() *exec.Cmd
	// kill ends it as a loss of power would.
	kill()
	// verify looks at everything that it has.
	verify(t *testing.T)
}

// A transaction counts, and has a row for each number.
func transaction(i int) string {
	return fmt.Sprintf("BEGIN; INSERT INTO rows VALUES(%d, '%s'); UPDATE counter SET n = %d; COMMIT; SELECT n FROM counter;\n",
		i, strings.Repeat(strconv.Itoa(i), 50+i*7%200), i)
}

const schema = "CREATE TABLE rows(i INTEGER PRIMARY KEY, s TEXT); CREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0);"

// commitUntil has a client commit numbers from first on, and calls end a while after
// the first one.
// It returns the last number that was acknowledged before all was over.
func commitUntil(t *testing.T, db database, first int, after time.Duration, end func()) (last int) {
	t.Helper()
	cmd := db.client()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := first; ; i++ {
			if _, err := io.WriteString(in, transaction(i)); err != nil {
				return
			}
		}
	}()
	begun, over := make(chan struct{}), make(chan struct{})
	last = first - 1
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			// After a commit that fails the number is an earlier one, or none.
			if n, err := strconv.Atoi(strings.TrimSpace(lines.Text())); err == nil && n == last+1 {
				if last = n; n == first {
					close(begun)
				}
			}
		}
	}()
	select {
	case <-begun:
		time.Sleep(after)
	case <-time.After(time.Minute):
	}
	end()
	stuck := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	in.Close()
	<-over
	cmd.Wait()
	return last
}

// committed returns what the database has counted, having compared it with its rows.
func committed(t *testing.T, db database) int {
	t.Helper()
	cmd := db.client()
	cmd.Stdin = strings.NewReader("SELECT n FROM counter; SELECT count(*) FROM rows; SELECT coalesce(max(i), 0) FROM rows;\n")
	out, err := cmd.CombinedOutput()
	f := strings.Fields(string(out))
	if err != nil || len(f) != 3 || f[0] != f[1] || f[0] != f[2] {
		t.Fatalf("counter, rows and the last of these: %q (%v)", out, err)
	}
	n, err := strconv.Atoi(f[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// killInTheMiddle kills the server of the pool, and then the database, in the middle of
// transactions, round after round. No transaction that was acknowledged is lost, and
// none is there in part.
func killInTheMiddle(t *testing.T, s *server, dir string, db database) {
	n := 0
	for round := range number("LAMINA_KILLS", 4) {
		db.begin(t)
		last := commitUntil(t, db, n+1, time.Duration(300+150*(round%5))*time.Millisecond, func() {
			if round%2 == 0 {
				s.cmd.Process.Kill()
			}
			db.kill()
		})
		if round%2 == 0 {
			s.kill(dir)
			s.start()
			s.ask("check")
			s.ask("mount", "set", dir, s.options)
		}
		db.begin(t)
		got := committed(t, db)
		db.verify(t)
		if got < last || last <= n {
			t.Fatalf("round %d: from %d on, %d was acknowledged and %d is there", round, n, last, got)
		}
		n = got
	}
	db.kill()
}

// sqlite is a database without a process of its own: its client is killed.
type sqlite struct {
	s       *server
	file    string
	running []*exec.Cmd
}

func (d *sqlite) begin(*testing.T) {}

func (d *sqlite) client() *exec.Cmd {
	cmd := d.s.command(d.s.uid, "sqlite3", "-batch", "-cmd", "PRAGMA synchronous=FULL", d.file)
	d.running = append(d.running, cmd)
	return cmd
}

func (d *sqlite) kill() {
	for _, cmd := range d.running {
		if cmd.Process != nil {
			cmd.Process.Kill()
		}
	}
	d.running = nil
}

func (d *sqlite) verify(t *testing.T) {
	if got := d.s.run("sqlite3", d.file, "PRAGMA integrity_check"); got != "ok" {
		t.Fatalf("the database says %q", got)
	}
}

func TestSQLiteKeepsWhatItHasCommitted(t *testing.T) {
	need(t, "sqlite3")
	modes(t, func(t *testing.T, s *server, dir string) {
		for _, journal := range []string{"wal", "delete"} {
			t.Run(journal, func(t *testing.T) {
				d := &sqlite{s: s, file: filepath.Join(dir, journal)}
				s.run("sqlite3", d.file, "PRAGMA journal_mode="+journal+"; "+schema)
				killInTheMiddle(t, s, dir, d)
			})
		}
	})
}

// postgres is a server with clients. Its programs lie where Debian has them, or in
// PATH.
type postgres struct {
	s    *server
	bin  func(program string) string // where it lies
	data string
	cmd  *exec.Cmd
	load *exec.Cmd
}

func postgresPrograms(t *testing.T) func(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if path, err := exec.LookPath("pgbench"); err == nil {
		found = append(found, path)
	}
	for _, path := range found {
		dir := filepath.Dir(path)
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return func(name string) string { return filepath.Join(dir, name) }
		}
	}
	t.Skip("PostgreSQL is not installed")
	return nil
}

// argv is the command line of a client, which finds the server.
func (d *postgres) argv(program string, args ...string) []string {
	return append([]string{program, "-h", d.s.base, "-U", "lamina"}, args...)
}

func (d *postgres) client() *exec.Cmd {
	return d.s.command(d.s.uid, d.argv(d.bin("psql"), "-qAtX", "postgres")...)
}

func (d *postgres) begin(t *testing.T) {
	if d.cmd != nil {
		return
	}
	d.cmd = d.s.command(d.s.uid, d.bin("postgres"), "-D", d.data, "-k", d.s.base, "-c", "listen_addresses=",
		"-c", "shared_buffers=16MB", "-c", "max_connections=10", "-c", "fsync=on", "-c", "checkpoint_timeout=30s")
	d.cmd.SysProcAttr.Setpgid = true
	log, err := os.OpenFile(filepath.Join(d.s.base, "postgres.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := func() bool {
		return d.s.command(d.s.uid, d.bin("pg_isready"), "-q", "-h", d.s.base).Run() == nil
	}
	for end := time.Now().Add(time.Minute); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.kill()
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("PostgreSQL does not start:\n%s", text)
		}
	}
	if _, err := os.Stat(filepath.Join(d.data, "begun")); err == nil {
		d.load = d.s.command(d.s.uid, d.argv(d.bin("pgbench"), "-n", "-c", "2", "-T", "60", "postgres")...)
		if err := d.load.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// kill kills all processes of the server, and the load on it.
func (d *postgres) kill() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGSTOP) // it makes no more of them
	workers := children(d.cmd.Process.Pid)
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	d.cmd.Process.Kill()
	d.cmd.Wait()
	// They have their memory until they have ended, and no other server starts.
	for _, pid := range workers {
		for ends := time.Now().Add(time.Minute); alive(pid) && time.Now().Before(ends); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if d.load != nil {
		d.load.Process.Kill()
		d.load.Wait()
	}
	d.cmd, d.load = nil, nil
}

// children returns the processes whose parent is pid: PostgreSQL's have sessions of
// their own.
func children(pid int) (list []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(f); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// alive reports whether a process has not ended, reaped or not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

// verify compares what pgbench has moved between accounts, tellers and branches, and has
// the tables and indexes looked at, and all pages.
func (d *postgres) verify(t *testing.T) {
	if d.load != nil {
		d.load.Process.Kill()
		d.load.Wait()
		d.load = nil
	}
	sums := d.s.run(d.argv(d.bin("psql"), "-qAtX", "-c",
		`SELECT count(DISTINCT x) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
		UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT coalesce(sum(delta), 0) FROM pgbench_history) s(x)`, "postgres")...)
	if sums != "1" {
		t.Errorf("money has come or gone: %s different sums", sums)
	}
	if _, err := os.Stat(d.bin("pg_amcheck")); err == nil {
		d.s.run(d.argv(d.bin("pg_amcheck"), "--install-missing", "--heapallindexed", "postgres")...)
	}
	d.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	d.cmd.Wait()
	d.cmd = nil
	d.s.run(d.bin("pg_checksums"), "--check", "-D", d.data)
}

func TestPostgreSQLKeepsWhatItHasCommitted(t *testing.T) {
	bin := postgresPrograms(t)
	for _, options := range []string{"writeback=0", "writeback=1"} {
		t.Run(options, func(t *testing.T) {
			s, dir := mounted(t, nobody, options) // PostgreSQL refuses to run as root
			d := &postgres{s: s, bin: bin, data: filepath.Join(dir, "pg")}
			t.Cleanup(d.kill)
			s.run(bin("initdb"), "-D", d.data, "-U", "lamina", "-A", "trust", "--data-checksums", "--locale=C", "-E", "UTF8")
			d.begin(t)
			s.run(d.argv(bin("pgbench"), "-iq", "-s", "1", "postgres")...)
			s.run(d.argv(d.bin("psql"), "-qX", "-c", schema, "postgres")...)
			s.run("touch", filepath.Join(d.data, "begun"))
			d.kill()
			killInTheMiddle(t, s, dir, d)
		})
	}
}
