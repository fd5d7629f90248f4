// Package nbd tests backends/nbd through the programs that people use it with:
// qemu-img, qemu-io, nbdinfo and nbdcopy, over a Unix socket, with a device in
// memory and one that is a file.
//
//	qemu-io, nbdcopy, …  ──►  socket  ──►  backends/nbd  ──►  memblock, fileblock
//	                                                               │
//	         what the program says it read  ◄── equal? ──►  what is there
//
// A missing program (Debian: qemu-utils, libnbd-bin) is a skip with the reason.
//
//	go test -tags integration ./integration/nbd
//	go test -tags integration -run - -bench . -benchtime 5x ./integration/nbd
//
// The benchmark takes turns with qemu-nbd serving a raw file, and reports the
// ratio of the times.
package nbd
