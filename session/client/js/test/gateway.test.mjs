// The client against a real gateway, over every WebSocket that there is.
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'
import ws from 'ws'
import { Client, GatewayError } from '../dist/client.mjs'
import { startGateway, state, until } from './gateway.mjs'
import { startProxy } from './proxy.mjs'

const sockets = { 'the package ws': ws }
if (globalThis.WebSocket) sockets['the built-in WebSocket'] = globalThis.WebSocket

for (const [name, WebSocket] of Object.entries(sockets)) {
  describe(`over ${name}`, () => {
    const clients = []
    let gateway
    const stranger = (options) => {
      const c = new Client(gateway.url, { WebSocket, minBackoff: 5, maxBackoff: 50, ...options })
      clients.push(c)
      return c
    }
    const member = (options) => stranger({ memberId: 123456, token: '654321', ...options })
    const subscribed = async (c, app, options) => {
      const sub = c.subscribe(app, options)
      await state(sub, 'subscribed')
      return sub
    }

    before(async () => { gateway = await startGateway() })
    afterEach(() => clients.splice(0).forEach((c) => c.close()))
    after(() => gateway.stop())

    test('connects, subscribes, receives', async () => {
      const c = member()
      const states = []
      c.on('state', (e) => states.push(e.state))
      const sub = await subscribed(c, 'match')
      assert.equal(c.memberId, 123456)

      const first = until(sub, 'message')
      const receipt = await gateway.push('match', 'héllo "x"')
      const position = { epoch: receipt.epoch, offset: receipt.offset }
      assert.deepEqual(await first, { app: 'match', memberId: -1, text: 'héllo "x"', from: undefined, position })
      assert.deepEqual(sub.position, position)

      const mine = until(sub, 'message')
      await gateway.push('match', 'psst', 7)
      await gateway.push('match', 'psst', 123456)
      assert.equal((await mine).memberId, 123456)

      assert.equal((await c.ping()).message, 'pong')
      c.close()
      assert.deepEqual(states, ['connecting', 'connected', 'disconnected'])
      await assert.rejects(c.ping(), { code: 0, message: 'not connected' })
    })

    test('a command waits for the link', async () => {
      const c = stranger()
      assert.equal((await c.ping()).code, 200)
    })

    test('a refusal ends the subscription, and says why', async () => {
      const c = stranger()
      const sub = c.subscribe('im')
      const reading = assert.rejects(sub[Symbol.asyncIterator]().next(), { code: 403 })
      const ended = state(sub, 'unsubscribed')
      const err = await until(sub, 'error')
      assert.ok(err instanceof GatewayError)
      assert.deepEqual([err.code, err.message], [403, 'subscribe im forbidden'])
      assert.deepEqual(await ended, { state: 'unsubscribed', code: 403, reason: 'subscribe im forbidden' })
      await reading
      const bad = c.subscribe('no such name')
      assert.equal((await until(bad, 'error')).code, 400)
    })

    test('a refusal that the gateway says with 200', async () => {
      const old = await startGateway({ WSGW_FORBIDDEN_CODE: '200' })
      const c = new Client(old.url, { WebSocket })
      const sub = c.subscribe('im')
      assert.equal((await until(sub, 'error')).code, 403)
      c.close()
      await old.stop()
    })

    test('a refused token leaves an anonymous client, which can become a member', async () => {
      const c = member({ token: 'wrong' })
      assert.equal((await until(c, 'error')).code, 401)
      assert.equal(c.memberId, -1)
      const sub = await subscribed(c, 'match')
      await assert.rejects(c.authenticate(123456, 'also wrong'), { code: 401 })
      assert.equal(c.memberId, -1)
      await c.authenticate(123456, async () => '654321')
      assert.equal(c.memberId, 123456)
      const mine = until(sub, 'message')
      await gateway.push('match', 'psst', 123456)
      assert.equal((await mine).text, 'psst')

      const later = stranger({ connect: false })
      await later.authenticate(123456, '654321')
      later.connect()
      assert.equal((await state(later, 'connected')).memberId, 123456)
      await assert.rejects(later.authenticate(7, 'another'), { code: 400, message: 'already authenticated' })
    })

    test('a token callback that fails is asked again', async () => {
      let calls = 0
      const c = member({
        token: async () => {
          if (++calls === 1) throw new Error('no network')
          return '654321'
        },
      })
      const failed = until(c, 'error')
      const away = state(c, 'disconnected')
      await state(c, 'connected')
      assert.equal((await failed).message, 'no network')
      const { code, reason, reconnect, delay } = await away
      assert.deepEqual([code, reason, reconnect], [0, 'no token', true])
      assert.ok(delay >= 5 && delay <= 10)
      assert.equal(calls, 2)
    })

    test('iterates, any number of times, and ends with the subscription', async () => {
      const c = member()
      const sub = c.subscribe('match')
      const read = async (n) => {
        const texts = []
        for await (const m of sub) {
          texts.push(m.text)
          if (texts.length === n) break
        }
        return texts
      }
      const [three, two, all] = [read(3), read(2), read()]
      await state(sub, 'subscribed')
      for (const text of ['a', 'b', 'c']) await gateway.push('match', text)
      assert.deepEqual(await three, ['a', 'b', 'c'])
      assert.deepEqual(await two, ['a', 'b'])
      sub.unsubscribe()
      assert.deepEqual(await all, ['a', 'b', 'c'])
      assert.deepEqual(await sub[Symbol.asyncIterator]().next(), { value: undefined, done: true })
    })

    test('a subscription that is used twice ends when nobody needs it', async () => {
      const c = stranger()
      const sub = await subscribed(c, 'match')
      assert.equal(c.subscribe('match'), sub)
      sub.unsubscribe()
      assert.equal(sub.state, 'subscribed')
      sub.unsubscribe()
      assert.equal(sub.state, 'unsubscribed')
      // What is on its way from the old one does not reach a new one.
      const again = c.subscribe('match')
      assert.notEqual(again, sub)
      await state(again, 'subscribed')
    })

    test('pushes as a member', async () => {
      const c = member()
      const sub = await subscribed(c, 'room:7')
      const got = until(sub, 'message')
      await c.push('room:7', 'hi')
      assert.equal((await got).from, 123456)
      await assert.rejects(c.push('match', 'hi'), { code: 403, message: 'push match forbidden' })
    })

    test('presence: who is there, who comes and goes', async () => {
      const a = stranger()
      const sub = await subscribed(a, 'room:9', { events: true })
      const join = until(sub, 'join')
      const b = member()
      b.subscribe('room:9')
      assert.deepEqual(await join, { memberId: 123456 })
      assert.deepEqual(await a.presence('room:9'), { members: [{ memberId: 123456, connections: 1 }], anonymous: 1 })
      const leave = until(sub, 'leave')
      b.close()
      assert.deepEqual(await leave, { memberId: 123456 })
      await assert.rejects(a.presence('match'), GatewayError)
    })

    test('the last messages first, then live and resumed ones', async () => {
      const proxy = await startProxy(gateway.port)
      for (const text of ['1', '2', '3', '4']) await gateway.push('short', text)
      const c = new Client(proxy.url, { WebSocket, minBackoff: 5 })
      const sub = c.subscribe('short', { last: 2 })
      const texts = []
      sub.on('message', (m) => texts.push(m.text))
      sub.on('missed', () => texts.push('missed'))
      const more = (n) => until(sub, 'message', () => texts.length === n)
      await until({ on: (_, f) => sub.on('message', f) }, '', (m) => m.text === '4')
      await c.ping()
      let wait = more(3)
      await gateway.push('short', '5')
      await wait
      wait = more(5)
      await proxy.cut()
      for (const text of ['6', '7']) await gateway.push('short', text)
      await wait
      assert.deepEqual(texts, ['3', '4', '5', '6', '7'])
      c.close()
      await proxy.close()
    })

    test('goes on where an earlier page was, or is told that it cannot', async () => {
      const first = await subscribed(stranger(), 'short')
      const got = until(first, 'message')
      await gateway.push('short', 'a')
      await got
      const { position } = first
      await gateway.push('short', 'b')
      const recovered = stranger().subscribe('short', { position })
      assert.equal((await until(recovered, 'message')).text, 'b')

      for (const text of 'cdef') await gateway.push('short', text)
      const late = stranger().subscribe('short', { position })
      const subscribed_ = state(late, 'subscribed')
      const missed = await until(late, 'missed')
      assert.equal((await subscribed_).recovered, false)
      assert.equal(missed.position.offset, position.offset + 5)
      assert.deepEqual(late.position, missed.position)
    })

    test('without positions, nothing is sent later', async () => {
      const proxy = await startProxy(gateway.port)
      const c = new Client(proxy.url, { WebSocket, minBackoff: 5 })
      const sub = await subscribed(c, 'match', { position: false })
      const texts = []
      sub.on('message', (m) => texts.push(m.text, m.position))
      sub.on('missed', () => texts.push('missed'))
      await proxy.cut()
      await gateway.push('match', 'while it was away')
      await state(sub, 'subscribed')
      const got = until(sub, 'message')
      await gateway.push('match', 'now')
      await got
      assert.deepEqual(texts, ['now', undefined])
      assert.equal(sub.position, null)
      c.close()
      await proxy.close()
    })

    test('a backend or new rules take a subscription away', async () => {
      const c = member()
      const [match, room] = [await subscribed(c, 'match'), await subscribed(c, 'room:1')]
      const gone = state(match, 'unsubscribed')
      await gateway.call('/unsubscribe', { member_id: 123456, app: 'match' })
      assert.deepEqual(await gone, { state: 'unsubscribed', code: 200, reason: 'unsubscribe match success' })

      const refused = until(room, 'error')
      await gateway.rules('apps: {"room:*": {subscribe: ["role:gold"]}}')
      assert.deepEqual([(await refused).code, room.state], [403, 'unsubscribed'])
      await gateway.rules()
    })

    test('does not come back when told so, and does when asked to', async () => {
      const c = member()
      const sub = await subscribed(c, 'match')
      const reading = assert.rejects(sub[Symbol.asyncIterator]().next(), { code: 4503 })
      const away = state(c, 'disconnected')
      await gateway.call('/disconnect', { member_id: 123456 })
      assert.deepEqual(await away, { state: 'disconnected', code: 4503, reason: 'revoked', reconnect: false, delay: undefined })
      await reading
      await gateway.push('match', 'meanwhile')
      const resumed = until(sub, 'message')
      c.connect()
      assert.equal((await resumed).text, 'meanwhile')
    })

    test('comes back to a gateway that was restarted, and says what it missed', async () => {
      let first = await startGateway()
      const proxy = await startProxy(first.port)
      const c = new Client(proxy.url, { WebSocket, minBackoff: 5 })
      const sub = await subscribed(c, 'match')
      const away = state(c, 'disconnected')
      const missed = until(sub, 'missed')
      const port = first.port
      await first.stop()
      assert.deepEqual((({ code, reason }) => [code, reason])(await away), [1012, 'service restart'])
      first = await startGateway({ WSGW_ADDR: `127.0.0.1:${port}` })
      const { position } = await missed // of another epoch
      assert.equal(position.offset, 0)
      const got = until(sub, 'message')
      await first.push('match', 'hello again')
      assert.equal((await got).text, 'hello again')
      c.close()
      await proxy.close()
      await first.stop()
    })

    test('shows every frame', async () => {
      const c = member()
      const frames = []
      c.on('frame', ({ sent, data }) => frames.push(`${sent ? '>' : '<'} ${data}`))
      await c.ping()
      assert.deepEqual(frames, [
        '> {"member_id":123456,"token":"654321","id":1}',
        '< {"app":"gateway","member_id":-1,"text":"{\\"code\\":200,\\"message\\":\\"hello 123456\\",\\"id\\":1}"}',
        '> {"op":"ping","id":2}',
        '< {"app":"gateway","member_id":-1,"text":"{\\"code\\":200,\\"message\\":\\"pong\\",\\"id\\":2}"}',
      ])
    })
  })
}
