# make help lists the targets.
GO ?= go
BIN ?= bin

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

build: ## build bin/lamina and the names that other programs call it by
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $(BIN)/lamina ./cmd/lamina
	ln -sf lamina $(BIN)/fuse-overlayfs
	ln -sf lamina $(BIN)/mount.fuse.lamina
	ln -sf lamina $(BIN)/umount.fuse.lamina

install: build ## copy it to PREFIX (/usr/local) with its manual pages, and let mount(8) and umount(8) find it
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)/sbin
	install -m 755 $(BIN)/lamina $(DESTDIR)$(PREFIX)/bin/lamina
	ln -sf $(PREFIX)/bin/lamina $(DESTDIR)/sbin/mount.fuse.lamina
	ln -sf $(PREFIX)/bin/lamina $(DESTDIR)/sbin/umount.fuse.lamina
	$(BIN)/lamina man $(DESTDIR)$(PREFIX)/share/man/man1
PREFIX ?= /usr/local

demo: build ## mount a real stack as this user, change it, show where the changes went, unmount
	sh integration/demo.sh $(BIN)/lamina

test: ## unit tests; needs neither root nor /dev/fuse, and skips with a reason what does
	$(GO) vet ./...
	$(GO) test -timeout 30m ./...

race: ## the same under the race detector, without the drivers' conformance, which waits for mounts and disks
	CGO_ENABLED=1 $(GO) test -race -skip '^Test(Conformance|NativeWithADoubleOfZFS)' ./backends/... ./fs/... ./whiteout/...
	CGO_ENABLED=1 $(GO) test -race -run '^TestRace' ./blockpool/dataset
	CGO_ENABLED=1 $(GO) test -race -short ./blockpool/internal/... ./blockpool/vdev/...
	CGO_ENABLED=1 $(GO) test -race -short -run '$(POOL_RACE)' ./blockpool

root-test: ## mounts unions and kernel overlays below a temporary directory, as root
	$(GO) test -count=1 -tags integration -timeout 20m ./integration/...

# What blockpool/ must stand: see "How it is tested" of each number's test.
POOL = $(GO) test -count=1 -timeout 24h -v
POOL_CI = LAMINA_CRASH_STATES=20000 LAMINA_RECOVERY_STATES=2000 LAMINA_MODEL_OPS=15000 LAMINA_MODEL_SEEDS=6 LAMINA_FAULT_STRIDE=4 LAMINA_ALLOC_FAULTS=150
POOL_LONG = LAMINA_CRASH_STATES=500000 LAMINA_RECOVERY_STATES=50000 LAMINA_MODEL_OPS=1000000 LAMINA_MODEL_SEEDS=200 LAMINA_FAULT_STRIDE=1 \
	LAMINA_ALLOC_FAULTS=2000 LAMINA_DAMAGES=10000 LAMINA_METADATA_DAMAGES=10000 LAMINA_MISDIRECTED=1000
POOL_RACE = ^Test(ManyAtOnce|VolumesOf|Snapshots|Limits|Destroying|Scrub|ADeviceThatIsPulled)
POOL_PROOFS = ^Test(AfterAnyCrash|ACrashDuring|Volumes|Each|ADevice|AMisdirected|Allocations|Damage|AReplica|WhatIsBeingRead)

pool-test: ## crash states, faults, damage, the model, and a dozen broken rules that the tests must notice (about 15 min)
	$(POOL_CI) LAMINA_MUTANTS=12 $(POOL) -run '$(POOL_PROOFS)' ./blockpool
	CGO_ENABLED=1 LAMINA_STRESS_SECONDS=10 $(POOL) -race -run '^Test(ManyAtOnce|VolumesAreWhatTheir|VolumesOf)' ./blockpool

pool-long: ## the same, with the numbers of a long run: days
	$(POOL_LONG) LAMINA_MUTANTS=100 $(POOL) -run '$(POOL_PROOFS)' ./blockpool
	CGO_ENABLED=1 LAMINA_STRESS_SECONDS=600 $(POOL) -race -run '^Test(ManyAtOnce|VolumesAreWhatTheir|VolumesOf)' ./blockpool

DRIVER_TESTS = ^Test(Conformance.*|NativeWithADoubleOfZFS|OtherUsers)$$
driver-test: ## the storage drivers with every engine: as root, as an ordinary user, as root of a user namespace (root; minutes)
	LAMINA_DRIVERTEST_OTHERS=1 $(GO) test -count=1 -timeout 30m -v -run '$(DRIVER_TESTS)' ./backends/overlay2 ./backends/overlay ./backends/aufs ./backends/devicemapper ./backends/btrfs ./backends/zfs ./backends/vfs

# In a module of its own, for what it depends on. -mod=mod brings its go.mod up to date
# when that of lamina has changed.
SUITES =
suites-test: ## the storage drivers in the suites by which podman, moby and containerd judge theirs (root; minutes; SUITES='-short -run /overlay2-' for a part)
	cd integration/suites && CGO_ENABLED=0 $(GO) vet -mod=mod ./... && CGO_ENABLED=0 $(GO) test -mod=mod -count=1 -timeout 30m -v $(SUITES) ./...

VM_TESTS ?= dm,zfs,nbd
vm-test: ## what needs a kernel with device-mapper, zfs or NBD, in one of Debian under qemu (up to half an hour; packages are kept in /var/tmp/lamina-vm; zfs is compiled once, a quarter of an hour; VM_TESTS=dm,nbd for some)
	$(GO) run ./integration/vm --tests $(VM_TESTS)

arrows: ## check that packages import only what the design allows
	$(GO) test -run TestArrows ./integration/arrows

bench: ## compare with kernel overlayfs and the other union filesystems (root; about 20 min, 5 GB in /var/tmp)
	$(GO) run ./integration/bench --text integration/bench/results/root.txt --json integration/bench/results/root.json --svg integration/bench/results/root.svg

bench-rootless: ## the same as an ordinary user (start as root to have cold caches too)
	$(GO) run ./integration/bench --rootless --text integration/bench/results/rootless.txt --json integration/bench/results/rootless.json --svg integration/bench/results/rootless.svg

bench-quick: ## a small run that shows that every subject and workload works
	$(GO) run ./integration/bench --quick

bench-pool: ## compare the block pool with a bare file, qcow2 and btrfs (root for btrfs; qemu-utils and qemu-system-common for qcow2)
	$(GO) run ./integration/poolbench --text integration/poolbench/results.txt --json integration/poolbench/results.json

bench-datasets: build ## compare datasets with btrfs and ext4 (root; about 20 min, 10 GB in /var/tmp)
	$(GO) run ./integration/setbench --lamina $(BIN)/lamina --text integration/setbench/results.txt --json integration/setbench/results.json

fuzz: ## each fuzz target for a little while
	@for p in $$($(GO) list ./...); do for t in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
		$(GO) test -run xxx -fuzz "^$$t$$" -fuzztime 10s $$p || exit 1; done; done

clean: ## remove what was built
	rm -rf $(BIN)

.PHONY: help build install demo test race driver-test suites-test vm-test pool-test pool-long root-test arrows bench bench-rootless bench-quick bench-pool bench-datasets fuzz clean
