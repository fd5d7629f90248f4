package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// qcow2Disk is a qcow2 image that qemu-storage-daemon exports as a file over
// FUSE, with the cache mode that waits for the disk at a flush and not before.
type qcow2Disk struct {
	*file
	daemon  *exec.Cmd
	monitor net.Conn
	replies *json.Decoder
	mu      sync.Mutex // one command of the monitor at a time
}

func qcow2(dir string, o options) (disk, error) {
	if _, err := exec.LookPath("qemu-storage-daemon"); err != nil {
		return nil, fmt.Errorf("qemu-storage-daemon (Debian: qemu-system-common): %w", err)
	}
	image, mount, socket := filepath.Join(dir, "image.qcow2"), filepath.Join(dir, "mnt"), filepath.Join(dir, "qmp")
	if err := command("qemu-img", "create", "-q", "-f", "qcow2", image, fmt.Sprint(max(o.size, 16<<20))); err != nil {
		return nil, err
	}
	if err := os.WriteFile(mount, nil, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=f,filename="+image,
		"--blockdev", "driver=qcow2,node-name=q,file=f,discard=unmap",
		"--chardev", "socket,id=m,path="+socket+",server=on,wait=off", "--monitor", "chardev=m",
		"--export", "type=fuse,id=e,node-name=q,mountpoint="+mount+",writable=on")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &qcow2Disk{daemon: cmd}
	if err := d.connect(mount, socket, o); err != nil {
		return nil, errors.Join(err, d.end())
	}
	return d, nil
}

func (d *qcow2Disk) connect(mount, socket string, o options) error {
	err := waitFor("qemu-storage-daemon", func() bool {
		st, err := os.Stat(mount)
		return err == nil && st.Size() > 0
	})
	if err != nil {
		return err
	}
	if d.monitor, err = net.Dial("unix", socket); err != nil {
		return err
	}
	d.replies = json.NewDecoder(bufio.NewReader(d.monitor))
	var greeting any
	if err := d.replies.Decode(&greeting); err != nil {
		return err
	}
	if err := d.execute("qmp_capabilities", nil); err != nil {
		return err
	}
	d.file, err = openFile(mount, 0)
	return err
}

// execute runs a command of the monitor.
func (d *qcow2Disk) execute(name string, args map[string]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	request := map[string]any{"execute": name}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(d.monitor).Encode(request); err != nil {
		return err
	}
	for {
		var reply struct {
			Return *json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := d.replies.Decode(&reply); err != nil {
			return err
		}
		switch {
		case reply.Error != nil:
			return fmt.Errorf("%s: %s", name, reply.Error.Desc)
		case reply.Return != nil:
			return nil
		}
	}
}

func (d *qcow2Disk) snapshot(name string) error {
	return d.execute("blockdev-snapshot-internal-sync", map[string]string{"device": "q", "name": name})
}

func (d *qcow2Disk) close() error { return errors.Join(d.file.close(), d.end()) }

// end ends the daemon, which takes its mount away.
func (d *qcow2Disk) end() error {
	if d.monitor != nil {
		d.monitor.Close()
	}
	err := d.daemon.Process.Signal(unix.SIGTERM)
	if werr := d.daemon.Wait(); err == nil {
		var status *exec.ExitError
		if !errors.As(werr, &status) {
			err = werr
		}
	}
	return err
}

// btrfsDisk is a file on btrfs on a loop file, whose snapshots are reflinks.
type btrfsDisk struct {
	*file
	dir string
}

func btrfs(dir string, o options) (disk, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting btrfs needs root")
	}
	image, mnt := filepath.Join(dir, "btrfs.img"), filepath.Join(dir, "mnt")
	f, err := openFile(image, 4*o.size+1<<30)
	if err != nil {
		return nil, err
	}
	if err := f.close(); err != nil {
		return nil, err
	}
	if err := command("mkfs.btrfs", "-q", image); err != nil {
		return nil, err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return nil, err
	}
	if err := command("mount", "-o", "loop,noatime", image, mnt); err != nil {
		return nil, err
	}
	umount := func() error { return command("umount", mnt) }
	if f, err = openFile(filepath.Join(mnt, "v"), o.size); err != nil {
		return nil, errors.Join(err, umount())
	}
	f.closers = []func() error{umount}
	return &btrfsDisk{f, mnt}, nil
}

// snapshot shares all of the file with a new one, and waits for the disk, as a
// snapshot of a pool does.
func (d *btrfsDisk) snapshot(name string) error {
	to, err := openFile(filepath.Join(d.dir, name), 0)
	if err != nil {
		return err
	}
	defer to.close()
	if err := unix.IoctlFileClone(int(to.Fd()), int(d.Fd())); err != nil {
		return err
	}
	return to.File.Sync()
}
