package script

import (
	"errors"
	"sync"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/stat"
)

var (
	errTopics    = errors.New("too many topics")
	errQueueFull = errors.New("queue is full")
)

// queues are the topics that scripts push to and backends pop from, in memory. An item goes
// to one consumer, in the order in which items were pushed.
type queues struct {
	maxTopics, maxItems, maxBytes int

	mu     sync.Mutex
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
	topic  string
	client int64
	data   []byte // JSON
}

// A consumer takes items. It is told of each with queues.mu held and must not wait; false
// means that it is gone, and the item stays.
type consumer struct {
	take func(item) bool
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
		return 0, errQueueFull
	}
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

// unpop ends c.
func (q *queues) unpop(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(c)
}

func (q *queues) remove(c *consumer) {
	for name, t := range q.topics {
		for i := 0; i < len(t.consumers); i++ {
			if t.consumers[i] == c {
				t.consumers = append(t.consumers[:i], t.consumers[i+1:]...)
				i--
			}
		}
		q.tidy(name, t)
	}
}

// deliver hands items to consumers in turn; q.mu is held.
func (q *queues) deliver(name string, t *topic) {
	for len(t.items) > 0 && len(t.consumers) > 0 {
		c := t.consumers[0]
		t.consumers = t.consumers[1:]
		if !c.take(t.items[0]) {
			continue // it is gone
		}
		t.consumers = append(t.consumers, c)
		q.bytes -= len(t.items[0].data)
		t.items[0] = item{}
		t.items = t.items[1:]
	}
	q.tidy(name, t)
}

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
