package format

import "fmt"

// A Class says what a chunk is for.
type Class uint8

// The classes. Their numbers are on disk.
const (
	Data     Class = iota // records of volumes and files
	Metadata              // what a filesystem keeps beside its tree: large attributes and the like
	Log                   // the intent log
)

var classNames = [...]string{Data: "data", Metadata: "metadata", Log: "log"}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// A Profile says how a chunk lies on devices.
type Profile uint8

// The profiles. Their numbers are on disk.
const (
	Single Profile = iota // once, on one device
	Mirror                // whole, on each of two or more devices
	RaidZ1                // records over three or more devices, one may be missing
	RaidZ2                // records over four or more devices, two may be missing
)

var profileNames = [...]string{Single: "single", Mirror: "mirror", RaidZ1: "raidz1", RaidZ2: "raidz2"}

func (p Profile) String() string {
	if int(p) < len(profileNames) {
		return profileNames[p]
	}
	return fmt.Sprintf("profile(%d)", uint8(p))
}

// ParseProfile returns the profile called s.
func ParseProfile(s string) (Profile, error) {
	for p, name := range profileNames {
		if s == name {
			return Profile(p), nil
		}
	}
	return 0, fmt.Errorf("no profile is called %q: take single, mirror, raidz1 or raidz2", s)
}

// Parity returns how many devices of a chunk hold parity.
func (p Profile) Parity() int {
	switch p {
	case RaidZ1:
		return 1
	case RaidZ2:
		return 2
	default:
		return 0
	}
}

// MinDevices returns how many devices a chunk needs at least.
func (p Profile) MinDevices() int {
	switch p {
	case Mirror:
		return 2
	case RaidZ1:
		return 3
	case RaidZ2:
		return 4
	default:
		return 1
	}
}
