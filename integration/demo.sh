#!/bin/sh
# Mounts a stack of two layers below a temporary directory, changes it, shows
# where the changes went, and unmounts. It takes no privilege: an ordinary user
# needs /dev/fuse and fusermount3.
set -eu
lamina=$(realpath "${1:-bin/lamina}")
dir=$(mktemp -d)
cd "$dir"
trap '"$lamina" umount merged 2>/dev/null || true; cd /; rm -rf "$dir"' EXIT

mkdir base app changes work merged
# The base layer is a real tree: the time zones, licences or documents of this
# machine, whichever it has.
for src in /usr/share/zoneinfo/Europe /usr/share/common-licenses /usr/share/doc /etc; do
	[ -d "$src" ] || continue
	cp -r "$src" base/tree 2>/dev/null || true
	break
done
echo 'version 1' >base/config
mkdir app/bin && printf '#!/bin/sh\necho hello from the app layer\n' >app/bin/hello && chmod +x app/bin/hello

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; sh -c "$*"; }
step "$lamina mount --lower base --lower app --upper changes --work work merged"
step "ls merged; find merged/tree -type f | wc -l; merged/bin/hello"
step "echo 'version 2' > merged/config; mv merged/tree merged/renamed; rm merged/bin/hello"
step "cat merged/config; ls merged merged/renamed | head"
echo
echo 'The layers are as they were, and the changes lie in one directory:'
step "cat base/config; ls -l app/bin; find changes | head; "
step "$lamina umount merged"
