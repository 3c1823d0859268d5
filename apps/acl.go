package apps

import (
	"fmt"
	"slices"
	"strings"
)

// An acl is the principals that a list in the apps file lets in. The zero acl lets nobody in.
// Both it and what it holds are immutable once parsed.
type acl struct {
	anyone  bool
	members bool
	owner   bool
	roles   []string           // sorted
	ids     map[int64]struct{} // many, where the file lists its customers
	text    string             // the list for people, bounded
}

// The lists of apps whose entry has none.
var (
	anyone  = newACL([]string{"anyone"})
	members = newACL([]string{"members"})
	nobody  = newACL(nil)
)

// principals returns the spellings of everybody in a, sorted as the file would read best.
func (a *acl) principals() []string {
	var list []string
	for _, p := range []struct {
		name string
		in   bool
	}{{"anyone", a.anyone}, {"members", a.members}, {"owner", a.owner}} {
		if p.in {
			list = append(list, p.name)
		}
	}
	for _, role := range a.roles {
		list = append(list, rolePrefix+role)
	}
	ids := make([]int64, 0, len(a.ids))
	for id := range a.ids {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		list = append(list, fmt.Sprint(id))
	}
	return list
}

// empty reports whether a lets nobody in.
func (a *acl) empty() bool {
	return !a.anyone && !a.members && !a.owner && len(a.roles) == 0 && len(a.ids) == 0
}

const rolePrefix = "role:"

// newACL makes an acl of principals that parsePrincipal accepted.
func newACL(list []string) acl {
	var a acl
	for _, p := range list {
		switch p {
		case "anyone":
			a.anyone = true
		case "members":
			a.members = true
		case "owner":
			a.owner = true
		default:
			if role, ok := strings.CutPrefix(p, rolePrefix); ok {
				a.roles = append(a.roles, role)
				continue
			}
			if a.ids == nil {
				a.ids = make(map[int64]struct{})
			}
			id, _ := parseMember(p)
			a.ids[id] = struct{}{}
		}
	}
	slices.Sort(a.roles)
	a.text = bounded(a.principals(), "nobody")
	return a
}

// A grant is the principal that lets a member in.
type grant struct {
	principal string // anyone, members, owner, role: or member_id; "" when nobody does
	role      string
}

// match returns what lets m into an app of owner's. It does not allocate.
func (a *acl) match(m Member, owner int64) grant {
	if a.anyone {
		return grant{principal: "anyone"}
	}
	if !m.known() {
		return grant{}
	}
	if a.members {
		return grant{principal: "members"}
	}
	if a.owner && m.ID == owner {
		return grant{principal: "owner"}
	}
	if _, ok := a.ids[m.ID]; ok {
		return grant{principal: "member_id"}
	}
	for _, role := range m.Roles {
		if _, ok := slices.BinarySearch(a.roles, role); ok {
			return grant{rolePrefix, role}
		}
	}
	return grant{}
}

// maxListed bounds how many principals or patterns one line of text names.
const maxListed = 8

// bounded joins list for people, who are not shown thousands of members.
func bounded(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	if n := len(list) - maxListed; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxListed], ", "), n)
	}
	return strings.Join(list, ", ")
}
