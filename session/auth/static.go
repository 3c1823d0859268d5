package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"ws-gateway/session"
)

// StaticOptions are the settings of [Static].
type StaticOptions struct {
	File string // WSGW_MEMBERS_FILE: YAML, see AUTH.md

	// Withdrawn is told by Reload of every member whose live sessions may rest on what the
	// file no longer grants: the member or one of its tokens is gone, or its roles are
	// others. Nil: nobody is told.
	Withdrawn func(member int64)
}

// Static vouches for the members of a file that holds salted hashes of their tokens.
//
// A refusal takes the same time for an unknown member and for a known one with a wrong
// token, so that member ids cannot be found out by the clock.
type Static struct {
	opts   StaticOptions
	file   atomic.Pointer[membersFile]
	argon2 *semaphore.Weighted // KiB in use
}

var (
	_ session.Authenticator = (*Static)(nil)
	_ session.Quick         = (*Static)(nil)
)

// argon2Budget is how much memory argon2 may use at once, in KiB. Logins beyond it wait.
const argon2Budget = 2 * maxMemory

// NewStatic reads the members file. Its errors name the file, line and column.
func NewStatic(o StaticOptions) (*Static, error) {
	if o.File == "" {
		return nil, errors.New("WSGW_MEMBERS_FILE: WSGW_AUTH=static needs it")
	}
	s := &Static{opts: o, argon2: semaphore.NewWeighted(argon2Budget)}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the file again. On an error the members stay as they were.
func (s *Static) Reload() error {
	data, err := os.ReadFile(s.opts.File)
	if err != nil {
		return fmt.Errorf("WSGW_MEMBERS_FILE: %w", err)
	}
	file, err := parseMembers(s.opts.File, data)
	if err != nil {
		return fmt.Errorf("WSGW_MEMBERS_FILE: %w", err)
	}
	old := s.file.Swap(file)
	if old == nil || s.opts.Withdrawn == nil {
		return nil
	}
	for id, m := range old.members {
		if !file.members[id].grants(m) {
			s.opts.Withdrawn(id)
		}
	}
	return nil
}

// Quick implements [session.Quick]: argon2 is slow by design.
func (s *Static) Quick(session.Credentials) bool { return s.file.Load().stretches == 0 }

// Authenticate implements [session.Authenticator]. It waits for its turn when argon2 is
// busy, until ctx ends.
func (s *Static) Authenticate(ctx context.Context, c session.Credentials) (session.Identity, error) {
	if len(c.Token) > maxToken {
		return session.Identity{}, errTooLong
	}
	file := s.file.Load()
	m, known := file.members[c.Member]
	ok, err := s.proves(ctx, file, m, c.Token)
	switch {
	case err != nil:
		return session.Identity{}, err
	case !known:
		return session.Identity{}, errMember
	case !ok:
		return session.Identity{}, errToken
	case s.file.Load() != file: // reloaded meanwhile: what was proven may be withdrawn
		return s.Authenticate(ctx, c)
	}
	return session.Identity{Roles: m.roles}, nil
}

// proves checks t against m's proofs. Where m has fewer than the file's best-equipped
// member, decoys take the time that the missing ones would have.
func (s *Static) proves(ctx context.Context, file *membersFile, m member, t session.Token) (bool, error) {
	ok := false
	for i := range file.digests {
		if i < len(m.digests) {
			ok = m.digests[i].matches(t) || ok
		} else {
			decoyDigest.matches(t)
		}
	}
	for i := 0; i < file.stretches && !ok; i++ {
		p, own := file.decoy, i < len(m.stretched)
		if own {
			p = m.stretched[i]
		}
		// The weight bounds both memory and how many run at once: one per processor.
		weight := max(int64(p.memory), argon2Budget/int64(runtime.GOMAXPROCS(0)))
		if err := s.argon2.Acquire(ctx, weight); err != nil {
			return false, fmt.Errorf("wait for argon2: %w", err)
		}
		matches := p.matches(t)
		s.argon2.Release(weight)
		ok = own && matches
	}
	return ok, nil
}

var decoyDigest = newDigest("decoy", "")

// A member is what the file says of one.
type member struct {
	digests   []digest
	stretched []stretched
	roles     []string
}

// grants reports whether whatever old allowed, m still does.
func (m member) grants(old member) bool {
	for _, d := range old.digests {
		if !slices.Contains(m.digests, d) {
			return false
		}
	}
	for _, p := range old.stretched {
		if !slices.Contains(m.stretched, p) {
			return false
		}
	}
	return slices.Equal(m.roles, old.roles)
}
