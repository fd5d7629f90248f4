//go:build integration

package clients

import (
	"fmt"
	"strings"
	"testing"
)

// A container in a user namespace of its own sees its root's files as root's. With
// a mount_program, clients ask for that by uidmapping and gidmapping instead of
// copying the image for each container.
func TestUserNamespacesOfContainers(t *testing.T) {
	const script = "stat -c '%n %u:%g %a' / /bin/busybox /data/file; echo x > /made; chown 5:6 /made; chown 7 /data/keep/f0; stat -c '%n %u:%g' /made /data/keep/f0; rm -r /data/gone; cat /data/keep/f1"
	eachAccount(t, func(t *testing.T, a account) {
		need(t, "podman", "crun", "conmon", "busybox")
		if a.root() {
			// podman 4.3 as root hands over lowers that an idmapped mount has
			// mapped already, and the mapping too: nothing has an owner then,
			// whatever the mount_program.
			return
		}
		maps := [][]string{{"--userns=keep-id", "--user=0"}, {"--uidmap=0:1:1000", "--gidmap=0:1:1000"}}
		said := map[string][]string{}
		for _, e := range []engine{kernelEngine, laminaEngine()} {
			c := newClient(t, a, e)
			f := &flow{client: c, t: t, records: map[string][]record{}}
			f.importBase()
			for i, m := range maps {
				name := fmt.Sprintf("mapped-%d", i)
				argv := append(append([]string{"podman", "run", "--name=" + name}, m...), "base", "sh", "-c", script)
				out, err := c.try(argv...)
				if err != nil {
					t.Error(err)
					continue
				}
				said[e.name] = append(said[e.name], strings.Split(out, "\n")...)
				said[e.name] = append(said[e.name], f.export(name)...)
			}
			f.checkIdle(t)
		}
		sameLines(t, "what mapped containers say and leave", said[kernelEngine.name], said[laminaEngine().name])
	})
}

// identityForms are options about owners as real clients write them.
var identityForms = []form{
	{"podman: a mapping that begins with a colon, from stored to shown ids",
		`chmod 777 x/diff; $mount -o lowerdir=l/AAA,` + upper + `,uidmapping=:$(id -u):4321:1:100000:200000:1000,gidmapping=:$(id -g):4322:1:100000:200000:1000 x/merged; stat -c %u:%g x/merged/name; touch x/merged/new; [ $(stat -c %u x/diff/new) = $(id -u) ] && echo kept; $unmount x/merged`,
		"4321:4322\nkept\n"},
	{"podman: all files of one owner",
		`$mount -o lowerdir=l/AAA,squash_to_uid=12,squash_to_gid=34 x/merged; stat -c %u:%g x/merged/name; $unmount x/merged`,
		"12:34\n"},
	{"podman with force_mask: owner, mode and type in an xattr",
		`setfattr -n user.containers.override_stat -v 5:6:0640 0/diff/name; $mount -o lowerdir=l/AAA,` + upper + `,xattr_permissions=2 x/merged; stat -c '%u:%g %a' x/merged/name; touch x/merged/new; chmod 600 x/merged/new; stat -c %a x/merged/new; $unmount x/merged; getfattr --only-values -n user.containers.override_stat x/diff/new | grep -cE '^[0-9]+:[0-9]+:0?(100)?600(:file)?$'`,
		"5:6 640\n600\n1\n"},
}

// Owners are shown, and kept, as the client asks for.
func TestOwnersAsClientsAskForThem(t *testing.T) {
	for _, c := range callers {
		if c.prefix != nil {
			// Ids show only in a user namespace that has them.
			c.prefix = []string{"unshare", "--user", "--map-root-user", "--map-auto", "--mount"}
		}
		t.Run(c.name, func(t *testing.T) {
			for _, f := range identityForms {
				t.Run(f.name, func(t *testing.T) {
					s := newStore(t, c)
					if got := s.run(t, c, f.script); got != f.want {
						t.Errorf("%s\nprinted:\n%s\nwant:\n%s", f.script, got, f.want)
					}
					s.checkNoServers(t)
				})
			}
		})
	}
}
