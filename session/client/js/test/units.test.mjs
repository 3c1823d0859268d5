// The parts that need no gateway.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { advice, backoff } from '../src/backoff.js'
import { Cursor } from '../src/cursor.js'
import { Emitter } from '../src/emitter.js'
import { Client } from '../dist/client.mjs'

test('a close code says the same here and in the catalogue of the gateway', () => {
  const catalogue = JSON.parse(process.env.WSGW_CLOSE_CODES) // code -> whether to come back
  assert.ok(Object.keys(catalogue).length > 15)
  for (const [code, back] of Object.entries(catalogue)) {
    assert.equal(advice(Number(code)) !== 'stop', back, code)
  }
  for (const code of [1013, 4013]) assert.equal(advice(code), 'later')
  for (const code of [0, 1006, 1012, 1014, 3000, 4499]) assert.equal(advice(code), 'back', code)
  for (const code of [4500, 4999]) assert.equal(advice(code), 'stop', code)
})

test('waits grow from 500 ms to 20 s, with full jitter', (t) => {
  const random = t.mock.method(Math, 'random', () => 0)
  assert.deepEqual([0, 1, 50].map((n) => backoff(n, 500, 20_000)), [500, 500, 500])
  random.mock.mockImplementation(() => 1)
  assert.deepEqual([0, 1, 2, 5, 6, 5000].map((n) => backoff(n, 500, 20_000)), [1000, 1500, 2500, 16_500, 20_000, 20_000])
})

// Public messages are numbers, private ones negative numbers; prev is worked out.
function take(cursor, chain, offsets) {
  return offsets.map((n) => {
    const offset = Math.abs(n)
    const prev = Math.max(0, ...chain.filter((x) => x > 0 === n > 0).map(Math.abs).filter((x) => x < offset))
    return cursor.take({ offset, prev, member_id: n < 0 ? 42 : -1 })
  }).join(' ')
}

test('a cursor tells new, old, and what is behind a gap', () => {
  const chain = [1, -2, 3, -4, 5, 6, -7, 8]
  const epoch = 'e'
  const fresh = () => new Cursor({ epoch, offset: 2 })
  let c = fresh()
  assert.equal(take(c, chain, [3, -4, 5, 6, -7, 8]), 'new new new new new new')
  assert.deepEqual(c.position, { epoch, offset: 8 })

  c = fresh()
  assert.equal(take(c, chain, [3, 3, -4, 3, 5]), 'new old new old new')

  c = fresh() // 5 is lost; the private chain does not know
  assert.equal(take(c, chain, [3, -4, -7]), 'new new new')
  assert.equal(take(c, chain, [6]), 'gap')
  assert.deepEqual(c.position, { epoch, offset: 3 }, 'goes on where the gap begins, not at the last message')
  assert.equal(take(c, chain, [-4, 5, 6, -7, 8]), 'old new new old new')
  assert.deepEqual(c.position, { epoch, offset: 8 })

  c = fresh() // -4 is lost, and the link too: the gap shows after the resume
  assert.equal(take(c, chain, [3, 5]), 'new new')
  assert.equal(take(c, chain, [6, -7]), 'new gap')
  assert.deepEqual(c.position, { epoch, offset: 2 })
})

test('a handler that throws disturbs nobody, and is reported', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const e = new Emitter()
  const seen = []
  e.on('x', () => { throw new Error('mine') })
  const off = e.on('x', (n) => seen.push(n))
  e.emit('x', 1)
  assert.deepEqual(seen, [1])
  assert.throws(() => t.mock.timers.tick(1), { message: 'mine' }) // outside of whatever caused the event
  off()
  e.emit('x', 2)
  assert.deepEqual(seen, [1])
})

test('a handler that is added by a handler waits for the next event', () => {
  const e = new Emitter()
  let calls = 0
  const add = () => { if (++calls < 10) e.on('x', add) }
  e.on('x', add)
  e.emit('x')
  assert.equal(calls, 1)
})

test('what cannot work is said at once', () => {
  assert.throws(() => new Client(), { message: 'no URL of a gateway' })
  assert.throws(() => new Client('//', { WebSocket: class {} }), TypeError)
  if (!globalThis.WebSocket) assert.throws(() => new Client('ws://127.0.0.1/'), { message: /pass one in the options/ })
  assert.equal(new Client('https://example.com/x', { connect: false, WebSocket: class {} }).url, 'wss://example.com/x')
})
