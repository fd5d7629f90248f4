//go:build integration

package peers

import (
	"fmt"
	"slices"
	"testing"
)

// A bug is what a peer gets wrong, and what a script that trips over it there
// prints here.
type bug struct {
	number int
	what   string
	root   bool // takes privileges over the machine
	script string
	want   string
}

func TestBugsOfPeers(t *testing.T) {
	accounts := accounts(t)
	for _, b := range bugs {
		t.Run(fmt.Sprintf("%d %s", b.number, b.what), func(t *testing.T) {
			ran := false
			for _, a := range accounts {
				if b.root && a.name != "root" {
					continue
				}
				ran = true
				t.Run(a.name, func(t *testing.T) {
					if got := a.run(t, b.script); got != b.want {
						t.Errorf("%s\nprinted:\n%s\nwant:\n%s", b.script, got, b.want)
					}
				})
			}
			if !ran {
				t.Skip("takes root")
			}
		})
	}
}

// Every number of the list has its test.
func TestEveryBugHasATest(t *testing.T) {
	for n := 1; n <= 19; n++ {
		if !slices.ContainsFunc(bugs, func(b bug) bool { return b.number == n }) {
			t.Errorf("no test for number %d", n)
		}
	}
}

var bugs = []bug{
	{1, "a descriptor from before copy-up brings old data back", false,
		`head -c 8192 /dev/zero | tr '\0' a >l/f; mnt
exec 3<m/f; head -c 10 <&3 >/dev/null
printf B | dd of=m/f bs=1 seek=4096 conv=notrunc,fsync 2>/dev/null
evict m/f; cat <&3 >/dev/null
printf C | dd of=m/f bs=1 seek=4097 conv=notrunc,fsync 2>/dev/null
exec 3<&-; remnt; dd if=m/f bs=1 skip=4094 count=6 2>/dev/null; echo; tr -d a <l/f | wc -c`,
		"aaBCaa\n0\n"},
	{2, "hard links of a lower file are damaged by an append through one", false,
		`seq 1000 >l/a; ln l/a l/b; mnt; echo more >>m/b; remnt; tail -n1 m/a; tail -n1 m/b; cmp m/a m/b && stat -c %h m/a`,
		"more\nmore\n2\n"},
	{3, "special files of a lower cannot be changed or removed", false,
		`mkfifo l/p; mksock l/s; mksock l/gone; mnt; chmod 600 m/p m/s; rm m/gone; stat -c '%F %a' m/p m/s; ls m; remnt; stat -c '%F %a' m/p`,
		"fifo 600\nsocket 600\np\ns\nfifo 600\n"},
	{3, "devices of a lower cannot be changed or removed", true,
		`mknod l/d c 241 7; mknod l/b b 241 8; mknod l/gone c 241 9; mnt; chmod 600 m/d m/b; rm m/gone; stat -c '%F %a %t:%T' m/d m/b u/d; ls m`,
		"character special file 600 f1:7\nblock special file 600 f1:8\ncharacter special file 600 f1:7\nb\nd\n"},
	{4, "removing a lower file copies it first", false,
		`truncate -s 200M l/big; echo x >l/small; mnt; rm m/big; rm m/small; ls m; request copy_ups; du -sk u | cut -f1 | grep -cE '^[0-9]{1,2}$'`,
		"0\n1\n"},
	{5, "copy-up loses holes, the times of links and the modes of directories", false,
		`truncate -s 50M l/sparse; echo end >>l/sparse; ln -s x l/link; touch -hd 2001-02-03 l/link; mkdir -m 711 l/d; echo x >l/d/f; touch -d 2002-03-04 l/d
mnt; echo more >>m/sparse; ln m/link m/link2; echo y >>m/d/f; mv m/link m/moved
[ $(stat -c %b u/sparse) -lt 100 ] && echo sparse; stat -c '%s' m/sparse; stat -c '%.10y' m/moved; stat -c '%a %.10y' m/d; stat -c %a u/d`,
		"sparse\n52428809\n2001-02-03\n711 2002-03-04\n711\n"},
	{6, "with passthrough, writes reach the lower", true,
		`echo lower >l/f; mnt -o passthrough=on; exec 3<m/f; cat <&3; echo more >>m/f; cat m/f; exec 3<&-; echo again >>m/f; cat l/f; unmnt; cat u/f; mnt`,
		"lower\nlower\nmore\nlower\nlower\nmore\nagain\n"},
	{7, "the umask of the caller does not count, an unlinked file has no attributes", false,
		`echo hello >l/f; mnt; umask 027; echo x >m/a; mkdir m/d; stat -c %a m/a m/d; exec 3<m/f; rm m/f; stat -L -c %s /proc/self/fd/3; cat <&3; exec 3<&-`,
		"640\n750\n6\nhello\n"},
	{8, "redirects and metacopy files of the kernel show empty", true,
		`mkdir -p l/dir/sub; echo data >l/dir/sub/f; echo big >l/meta
mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on,metacopy=on m && mv m/dir m/new && chmod 600 m/meta; umount m
mnt; cat m/new/sub/f m/meta; stat -c '%a %s' m/meta; ls m`,
		"data\nbig\n600 4\nmeta\nnew\n"},
	{9, "inode numbers change, and differ from those of listings", false,
		`mkdir l/d; echo x >l/f; echo y >l/d/g; mnt
ids() { stat -c '%i' m/f m/d m/d/g; }
ids >i1; echo more >>m/f; echo more >>m/d/g; ids >i2; remnt; ids >i3; mv m/f m/f2; mv m/f2 m/f; ids >i4; cmp i1 i2 && cmp i2 i3 && cmp i3 i4 && echo constant
ls -iU m/d | awk '{print $1}' >listed; stat -c %i m/d/g | cmp - listed && echo same`,
		"constant\nsame\n"},
	{10, "a look at one name is work for all names of its directory", false,
		`mkdir l/d; for i in $(seq 1000); do echo $i >l/d/f$i; done; mnt; cat m/d/f500; [ $(request LOOKUP) -le 2 ] && [ $(request READ) -eq 1 ] && echo few`,
		"500\nfew\n"},
	{10, "a server of one thread makes everybody wait for one", false,
		`mkdir l/d; for i in $(seq 50); do head -c 100000 /dev/zero >l/d/f$i; done; mnt
for n in 1 2 3 4; do cat m/d/* m/d/* | wc -c & done; wait`,
		"10000000\n10000000\n10000000\n10000000\n"},
	{11, "leftovers in the work directory stop the next mount", false,
		`echo x >l/f; mnt; unmnt; echo junk >'w/work/#1'; mkdir -p w/work/dir/sub; echo y >w/work/dir/sub/f; mnt; cat m/f; ls -A w/work`,
		"x\n"},
	{11, "a bad work directory is refused without a word", false,
		`mkdir l2; lamina -o lowerdir=l,upperdir=u,workdir=absent m >out 2>&1; echo $?; grep -c absent out; mnt`,
		"1\n1\n"},
	{12, "no files without a name, no holes", false,
		`truncate -s 1M l/sparse; echo x >>l/sparse; mnt; tmpfile m late; cat m/late; stat -c %h m/late; holes m/sparse; echo more >>m/sparse; holes m/sparse`,
		"late\n1\ndata from 1048576, hole from 0\ndata from 1048576, hole from 0\n"},
	{13, "exchanging a file and a lower directory empties the directory", false,
		`mkdir l/d; echo kept >l/d/f; echo file >m.txt; cp m.txt l/x; mnt; exchange m/x m/d >/dev/null 2>&1 || exchange m/d m/x >/dev/null 2>&1
remnt; cat m/x/f m/d/f 2>/dev/null; cat m/x m/d 2>/dev/null`,
		"kept\nfile\n"},
	{14, "names below an opaque lower directory are found", false,
		`mkdir -p l/d l2/d; echo old >l/d/old; echo new >l2/d/new; setfattr -n ${P}opaque -v y l2/d
export LOWERS="l --lower l2"; mnt; ls m/d; cat m/d/old 2>&1 | grep -o 'No such'; touch m/d/new; remnt; ls m/d; cat m/d/old 2>&1 | grep -o 'No such'`,
		"new\nNo such\nnew\nNo such\n"},
	{14, "names below an opaque directory of an aufs layer are found", false,
		`mkdir -p l/d l2/d; echo old >l/d/old; echo new >l2/d/new; touch l2/d/.wh..wh..opq
export LOWERS="l --lower l2"; mnt; ls -A m/d; cat m/d/old 2>&1 | grep -o 'No such'; touch m/d/new; remnt; ls -A m/d; cat m/d/old 2>&1 | grep -o 'No such'`,
		"new\nNo such\nnew\nNo such\n"},
	{15, "names come twice from a directory that changes", false,
		`mkdir l/d u/d; for i in $(seq 300); do echo >l/d/lower$i; echo >u/d/upper$i; done; mnt; listwhile m/d && echo once`,
		"once\n"},
	{15, "rm -r of a large directory fails", false,
		`mkdir l/d; (cd l/d && seq 3000 | xargs touch); mnt; (cd m/d && seq 3001 5000 | xargs touch); rm -r m/d && ls m; remnt; ls m`,
		""},
	{16, "copy-up of a directory loses setgid, and moves its parent's time", false,
		`mkdir -p l/p/d; chmod 2775 l/p/d; echo x >l/p/d/f; touch -d 2003-04-05 l/p/d l/p; mnt; echo y >>m/p/d/f; stat -c '%a %.10y' m/p/d m/p; mkdir m/p/d/sub; stat -c %a m/p/d/sub; remnt; stat -c %a m/p/d`,
		"2775 2003-04-05\n755 2003-04-05\n2755\n2775\n"},
	{16, "trusted attributes of symbolic links, and groups of new children, are lost", true,
		`ln -s x l/link; setfattr -h -n trusted.who -v me l/link; mkdir l/d; chgrp 1234 l/d; chmod 2755 l/d; mnt; chown -h 5 m/link; getfattr -h --only-values -n trusted.who m/link; echo; chmod 2775 m/d; touch m/d/new; stat -c %g m/d/new`,
		"me\n1234\n"},
	{17, "a rename drops setuid, a write keeps it, a missing attribute is forbidden", false,
		`echo x >l/s; chmod 4755 l/s; echo x >l/f; mnt; mv m/s m/s2; stat -c %a m/s2; setfattr -x security.none m/f 2>&1 | grep -o 'No such attribute'`,
		"4755\nNo such attribute\n"},
	{18, "a truncated lower file keeps its time, long names and paths give the wrong error", false,
		`echo data >l/f; touch -d 2004-05-06 l/f; n=$(printf %0255d 1); mnt; : >m/f; stat -c %.4y m/f | grep -c 2004
touch m/$n && ls m | grep -c $n; touch m/${n}0 2>&1 | grep -o 'File name too long'
d=$(printf %0249d 1); (cd m; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do mkdir $d && cd $d || break; done; echo deep >f; cat f)`,
		"0\n1\nFile name too long\ndeep\n"},
	{19, "setting an attribute of a symbolic link hangs the server", true,
		`ln -s f l/link; echo x >l/f; mnt; timeout 10 setfattr -h -n trusted.a -v b m/link; getfattr -h --only-values -n trusted.a m/link; echo; cat m/link`,
		"b\nx\n"},
	{19, "setting an attribute of a symbolic link hangs the server (as a user: refused)", false,
		`ln -s f l/link; echo x >l/f; mnt; timeout 10 setfattr -h -n user.a -v b m/link 2>&1 | grep -o 'not permitted'; cat m/link`,
		"not permitted\nx\n"},
}
