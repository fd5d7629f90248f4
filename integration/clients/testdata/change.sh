# What people do in a container before they look at podman diff.
set -e
echo hi > /x
cat /x
echo more >> /data/keep/f3
rm /bin/touch
mv /data/renamed-again /data/home
rm -r /data/again
chmod 711 /data/owned
stat -c '%n %y' /data/owned # is no newer for a change of mode, or of what lies below
chown 9:9 /data/relative
ln /data/links/a /data/links/z
ln -sf /x /data/new
mkdir -p /deep/er/est
echo x > /deep/er/est/file
rm -r /data/sticky /data/group
dd if=/dev/zero of=/zeros bs=64k count=16 2>/dev/null
exec 3>>/data/big
rm /data/big
echo to the unlinked >&3
stat -Lc '%s %h' /proc/self/fd/3
