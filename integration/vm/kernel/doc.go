// Package kernel has the tests of what lamina promises to kernels that have
// device-mapper and network block devices. They run as root in the machine that
// make vm-test starts, and are skipped where the kernel lacks what they need.
package kernel
