package apps_test

import (
	"fmt"
	"strings"
	"testing"

	"ws-gateway/apps"
)

// rulesFile has n names, n patterns with a prefix and n with a suffix of their own, and a few wide ones.
func rulesFile(n int) []byte {
	var b strings.Builder
	b.WriteString("apps:\n  '*': {}\n  '*:lobby': {}\n  'user:{member_id}': {visibility: private, subscribe: [owner]}\n")
	for i := range n {
		fmt.Fprintf(&b, "  name-%04d: {subscribe: [members, 'role:gold', 42]}\n  'room-%04d:*': {presence: true}\n  '*/%05d': {}\n", i, i, i)
	}
	return []byte(b.String())
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 3000} {
		r, err := apps.Parse("apps.yaml", rulesFile(n))
		if err != nil {
			b.Fatal(err)
		}
		fresh := make([]string, 1<<16) // more than are cached
		for i := range fresh {
			fresh[i] = fmt.Sprintf("room-%04d:%d", i%n, i)
		}
		for _, bb := range []struct {
			kind  string
			names []string
		}{
			{"name", []string{"name-0007"}}, {"pattern", []string{"room-0007:1"}}, {"default", []string{"other"}}, {"uncached", fresh},
		} {
			b.Run(fmt.Sprintf("rules=%d/by=%s", 3*n, bb.kind), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := r.Lookup(bb.names[i%len(bb.names)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkLookupParallel(b *testing.B) {
	r, err := apps.Parse("apps.yaml", rulesFile(100))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Lookup("room-0007:1"); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkAuthorize(b *testing.B) {
	r, err := apps.Parse("apps.yaml", rulesFile(100))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authorize(ann, apps.Subscribe, "user:42"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 3000} {
		data := rulesFile(n)
		b.Run(fmt.Sprintf("rules=%d", 3*n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := apps.Parse("apps.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
