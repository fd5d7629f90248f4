# Every mark that an upper can have above one layer.
set -e
mv /data/old /data/renamed
mv /data/moved/sub /data/renamed/sub
mv /data/renamed/f0 /data/renamed/sub/moved
rm -r /data/gone /data/wide /etc/motd
rm -r /data/again
mkdir /data/again
echo only > /data/again/only
rm -r /data/swapped
ln -s keep /data/swapped
echo more >> /data/keep/f0
chmod 4711 /data/tool
chown -h 5:6 /data/dangling /data/fifo
