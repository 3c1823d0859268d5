package script

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"sync"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

var (
	errTopics    = errors.New("too many topics")
	errQueueFull = errors.New("queue is full")
)

// queues are the topics that scripts push to and backends pop from, in memory. An item goes
// to one consumer, in the order in which items were pushed. Each consumer is given items while
// its socket takes them. What is left of the one that it does not take waits for it alone; the
// others stay here, for whoever reads first.
type queues struct {
	maxTopics, maxItems, maxBytes int

	mu     sync.Mutex
	pushed uint64            // items so far; guarded by mu
	bytes  int               // of all items; guarded by mu
	topics map[string]*topic // guarded by mu
}

// A topic is one queue. It exists while it has items or consumers.
type topic struct {
	items     []item
	consumers []*consumer // the next one to be served first
}

// An item waits for a consumer.
type item struct {
	number uint64 // in the order of queues.push
	topic  string
	client int64
	data   []byte // JSON
}

// frame returns what a consumer is sent.
func (it item) frame() *push.Frame {
	out := append([]byte(nil), `{"e":"queue.pop","p":{"n":1,"c":"`...)
	out = strconv.AppendInt(out, it.client, 10)
	out = appendJSONString(append(out, `","t":`...), it.topic)
	out = append(append(out, `,"d":`...), it.data...)
	return push.NewFrame(push.OpText, append(out, `},"id":null}`...))
}

// A consumer takes items. Its fields are guarded by queues.mu.
type consumer struct {
	conn session.Conn
	// authorized reports whether it may still be given anything; if not, conn is closed.
	authorized func() bool
	full       bool        // conn has to write what waits in it before it is given more, or has ended
	last       item        // of frame
	sent       *push.Frame // the only item that may wait in conn; nil if none does
}

func newQueues(topics, items, bytes int) *queues {
	return &queues{maxTopics: topics, maxItems: items, maxBytes: bytes, topics: make(map[string]*topic)}
}

// push appends an item and returns how many wait in its topic.
func (q *queues) push(it item) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t, err := q.topic(it.topic)
	if err != nil {
		return 0, err
	}
	if len(t.items) >= q.maxItems || q.bytes+len(it.data) > q.maxBytes {
		q.tidy(it.topic, t)
		return 0, errQueueFull
	}
	q.pushed++
	it.number = q.pushed
	t.items = append(t.items, it)
	q.bytes += len(it.data)
	q.deliver(it.topic, t)
	return len(t.items), nil
}

// topic returns the topic of that name, new if need be; q.mu is held.
func (q *queues) topic(name string) (*topic, error) {
	t := q.topics[name]
	if t == nil {
		if len(q.topics) >= q.maxTopics {
			return nil, errTopics
		}
		t = new(topic)
		q.topics[name] = t
	}
	return t, nil
}

// pop makes c a consumer of more topics, all or none, and gives it what waits there once
// ready has returned.
func (q *queues) pop(c *consumer, names []string, ready func()) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	missing := 0
	for _, name := range names {
		if q.topics[name] == nil {
			missing++
		}
	}
	if len(q.topics)+missing > q.maxTopics {
		return errTopics
	}
	ready()
	for _, name := range names {
		t, _ := q.topic(name) // there is room, as was just checked
		t.consumers = append(t.consumers, c)
		q.deliver(name, t)
	}
	return nil
}

// unpop makes c a consumer of nothing.
func (q *queues) unpop(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(c)
}

func (q *queues) remove(c *consumer) {
	for name, t := range q.topics {
		t.consumers = slices.DeleteFunc(t.consumers, func(other *consumer) bool { return other == c })
		q.tidy(name, t)
	}
}

// closed ends c, whose connection has ended. An item that did not leave is put back to its place,
// even where the limits do not leave room for it.
func (q *queues) closed(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(c)
	if c.sent == nil || !c.conn.(session.Backlog).Unsent(c.sent) {
		return
	}
	t := q.topics[c.last.topic]
	if t == nil {
		t = new(topic)
		q.topics[c.last.topic] = t
	}
	i, _ := slices.BinarySearchFunc(t.items, c.last.number, func(it item, n uint64) int { return cmp.Compare(it.number, n) })
	t.items = slices.Insert(t.items, i, c.last)
	q.bytes += len(c.last.data)
	q.deliver(c.last.topic, t)
}

// drained gives c more: everything that waited in its connection has left.
func (q *queues) drained(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.full, c.last, c.sent = false, item{}, nil
	for name, t := range q.topics {
		if slices.Contains(t.consumers, c) {
			q.deliver(name, t)
		}
	}
}

// deliver hands items to consumers in turn; q.mu is held.
func (q *queues) deliver(name string, t *topic) {
	for len(t.items) > 0 {
		i := slices.IndexFunc(t.consumers, func(c *consumer) bool { return !c.full })
		if i < 0 {
			break
		}
		c := t.consumers[i]
		t.consumers = append(slices.Delete(t.consumers, i, i+1), c)
		if q.give(c, t.items[0]) {
			q.bytes -= len(t.items[0].data)
			t.items[0] = item{}
			t.items = t.items[1:]
		}
	}
	q.tidy(name, t)
}

// give sends an item to c and reports whether c has it; q.mu is held.
func (q *queues) give(c *consumer, it item) bool {
	if !c.authorized() {
		c.full = true
		return false
	}
	f := it.frame()
	err := c.conn.Send(f)
	b, ok := c.conn.(session.Backlog)
	switch {
	case ok && err == nil && b.Queued() > 0:
		c.full, c.last, c.sent = true, it, f
	case ok && err == session.ErrSlow:
		c.full = true
	case err != nil:
		c.full = true
		c.conn.Abort(session.CloseSlow) // has no effect if it has ended
		return false
	default:
		return true
	}
	b.Drained(func() { q.drained(c) })
	return err == nil
}

// tidy drops a topic that is not needed; q.mu is held.
func (q *queues) tidy(name string, t *topic) {
	if len(t.items) == 0 && len(t.consumers) == 0 {
		delete(q.topics, name)
	}
}

// queuePush appends any value that has a JSON form to a queue.
func (s *state) queuePush(L *lua.LState) int {
	name := L.CheckString(1)
	data, err := appendJSON(nil, L.CheckAny(2), 0, s.step)
	if err != nil {
		return pushError(L, err)
	}
	s.b.charge(L, len(data))
	it := item{topic: name, data: data}
	if s.client != nil {
		it.client = s.client.id
	}
	n, err := s.door.host.queues.push(it)
	if err != nil {
		s.door.host.opts.Metrics.Refused(stat.ReasonScriptQueue)
		return pushError(L, err)
	}
	L.Push(lua.LNumber(n))
	return 1
}

// queueNew does nothing: queues are made when they are first used. Older scripts call it.
func (s *state) queueNew(L *lua.LState) int { return 0 }
