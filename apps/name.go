package apps

import (
	"fmt"
	"strings"
)

const (
	maxName  = 128
	reserved = "gateway" // the app of the server's own replies
)

// ValidName reports whether name may be an app's: 1 to 128 bytes of ASCII letters, digits and
// _ . : @ / -, and not "gateway", in whose name the server sends its own replies.
func ValidName(name string) bool {
	if len(name) == 0 || len(name) > maxName || name == reserved {
		return false
	}
	for i := range len(name) {
		if !nameByte[name[i]] {
			return false
		}
	}
	return true
}

// nameByte says which bytes a name may have.
var nameByte = func() (set [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:@/-") {
		set[c] = true
	}
	return set
}()

// badName says what keeps name from being valid, for people who write the apps file.
func badName(name string) string {
	switch {
	case name == "":
		return "an app name cannot be empty"
	case len(name) > maxName:
		return fmt.Sprintf("longer than %d bytes", maxName)
	case name == reserved:
		return "reserved for the gateway's own replies"
	}
	for _, r := range name {
		if r >= 0x80 || !nameByte[r] {
			return fmt.Sprintf("%q cannot be in an app name, only letters, digits and _ . : @ / -", r)
		}
	}
	return ""
}

// ParseMember reads what stands for a member on a command line: an id, or -1, which is
// [Anonymous] where somebody asks and everybody where somebody is to receive.
func ParseMember(s string) (id int64, err error) {
	if s == "-1" {
		return Anonymous, nil
	}
	id, ok := parseMember(s)
	if !ok {
		return 0, fmt.Errorf("want a member's id, 1 to %d, or -1", MaxMember)
	}
	return id, nil
}

// parseMember reads a member id in its one canonical spelling: decimal, 1..MaxMember, no sign,
// no leading zero.
func parseMember(s string) (id int64, ok bool) {
	if len(s) == 0 || len(s) > len(maxMemberDigits) || s[0] == '0' {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		id = id*10 + int64(s[i]-'0')
	}
	return id, id <= MaxMember
}

const maxMemberDigits = "9007199254740991" // MaxMember

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isPattern reports whether an entry of the apps file stands for many names. Neither byte can
// be in a name, so a misspelt {member_id} is told apart from one too.
func isPattern(key string) bool { return strings.ContainsAny(key, "*{}") }
