package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"ws-gateway/stat"
)

// A statServer is the URL of a gateway's stat server: what it says of itself.
type statServer string

func (s statServer) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(string(s), "/")+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	return resp, nil
}

// forceGC makes the gateway, which needs WSGW_PPROF=true, collect its garbage, twice so that
// what pools hold goes as well. It returns the bytes of the objects that are left.
func (s statServer) forceGC(ctx context.Context) (live int64, err error) {
	for range 2 {
		if live, err = s.collect(ctx); err != nil {
			return 0, fmt.Errorf("force a GC (WSGW_PPROF=true allows it): %w", err)
		}
	}
	return live, nil
}

func (s statServer) collect(ctx context.Context) (live int64, err error) {
	resp, err := s.get(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	err = errors.New("no HeapAlloc in its answer")
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() { // to the end, so that the connection is used again
		if n, ok := strings.CutPrefix(lines.Text(), "# HeapAlloc = "); ok {
			live, err = strconv.ParseInt(n, 10, 64)
		}
	}
	return live, errors.Join(err, lines.Err())
}

// queueTimes returns how long messages have waited in the gateway since it started.
func (s statServer) queueTimes(ctx context.Context) (stat.Times, error) {
	resp, err := s.get(ctx, "/stat")
	if err != nil {
		return stat.Times{}, err
	}
	defer resp.Body.Close()
	var snapshot stat.Snapshot
	err = json.NewDecoder(resp.Body).Decode(&snapshot)
	return snapshot.QueueTime, err
}

// quantile returns the q-quantile, in seconds, of what came to times since before,
// interpolated as Prometheus's histogram_quantile does: the last bound if it is beyond that.
func quantile(before, times stat.Times, q float64) float64 {
	count := func(i int) float64 {
		n := times.Buckets[i].Count
		if i < len(before.Buckets) {
			n -= before.Buckets[i].Count
		}
		return float64(n)
	}
	rank := q * float64(times.Count-before.Count)
	var below, bound float64
	for i, b := range times.Buckets {
		if n := count(i); n >= rank && n > below {
			return bound + (b.LE-bound)*(rank-below)/(n-below)
		} else {
			below, bound = n, b.LE
		}
	}
	return bound
}
