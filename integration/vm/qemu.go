package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// A vm is one run of a machine.
type vm struct {
	tree           tree
	kernel, initrd string
	cpus, memory   int
	limit          time.Duration
	cache          *cache
}

// console is what the kernel prints to.
func (m *vm) console() string { return m.cache.path("console.log") }

// diskSize is that of the sparse disk that tests write to.
const diskSize = 24 << 30

// run boots the machine and hands its lines to the report.
func (m *vm) run(r *report) error {
	disk := m.cache.path("disk.img")
	if err := os.WriteFile(disk, nil, 0o644); err != nil {
		return err
	}
	defer os.Remove(disk)
	if err := os.Truncate(disk, diskSize); err != nil {
		return err
	}
	in := m.tree.inside
	cmd := m.tree.command("/usr/bin/qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "Nehalem", "-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-L", "/usr/share/seabios", "-L", "/usr/share/qemu",
		"-kernel", in(m.kernel), "-initrd", in(m.initrd), "-append", "console=ttyS0 loglevel=6 panic=-1 rdinit=/init mitigations=off",
		"-serial", "file:"+in(m.console()), "-serial", "stdio",
		"-drive", "file="+in(disk)+",if=virtio,format=raw,cache=unsafe,discard=unmap")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = m.cache.log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	timer := time.AfterFunc(m.limit, func() { _ = cmd.Process.Kill() }) // fails where it has ended meanwhile
	defer timer.Stop()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = cmd.Process.Kill()
			}
			break
		}
	}
	err = cmd.Wait()
	switch {
	case r.over:
		fmt.Printf("the machine ran for %v\n", time.Since(start).Round(time.Second))
		return nil
	case time.Since(start) >= m.limit:
		return fmt.Errorf("the machine was ended after %v, in %s", m.limit, r.where())
	case err != nil:
		return fmt.Errorf("qemu: %w; see %s", err, m.cache.log.Name())
	}
	return fmt.Errorf("the machine ended early, in %s", r.where())
}
