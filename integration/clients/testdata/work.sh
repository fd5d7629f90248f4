# Enough work that five containers meet: many files made, changed and removed.
set -e
cp -r /data /copy
rm -r /copy/links
for i in $(seq 60); do
	echo $i > /data/keep/$i
	mv /data/keep/$i /copy/keep/moved-$i
done
rm -r /data/keep
find /copy -type f | wc -l
chmod -R go-r /data/owned /copy
tar -cf - /copy | tar -tf - | wc -l
rm -r /copy/owned
