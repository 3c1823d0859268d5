// The client against a gateway that does what a real one rarely does.
import assert from 'node:assert/strict'
import net from 'node:net'
import { afterEach, test } from 'node:test'
import WebSocket, { WebSocketServer } from 'ws'
import { Client } from '../dist/client.mjs'
import { sleep, state, until } from './gateway.mjs'

const cleanup = []
afterEach(async () => { for (const f of cleanup.splice(0).reverse()) await f() })

const reply = (text) => JSON.stringify({ app: 'gateway', member_id: -1, text: JSON.stringify(text) })
const message = (offset, prev, member_id = -1) => JSON.stringify({ app: 'match', member_id, text: String(offset), offset, prev })

/** Starts a server that answers the nth command of the client, counted from 0 over all links, by script(link, command, n). */
async function connect(script, options) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await new Promise((resolve) => server.on('listening', resolve))
  let n = 0
  const commands = []
  server.on('connection', (link) => {
    link.on('message', (data) => {
      const command = JSON.parse(data)
      commands.push(command)
      script(link, command, n++)
    })
  })
  const { port } = server.address()
  const client = new Client(`ws://127.0.0.1:${port}/`, { WebSocket, minBackoff: 1, maxBackoff: 5, timeout: 5000, ...options })
  cleanup.push(() => {
    client.close()
    for (const link of server.clients) link.terminate()
    return new Promise((resolve) => server.close(resolve))
  })
  return { client, commands, server }
}

/** Greets, agrees to every subscribe with the position given, and says pong. */
function polite(link, { id, app, op, position }, at = { epoch: 'e', offset: 0 }) {
  if (op === 'ping') link.send(reply({ code: 200, message: 'pong', id }))
  else if (app) link.send(reply({ code: 200, message: `subscribe ${app} success`, id, position: at, ...(position && { recovered: true }) }))
  else link.send(reply({ code: 200, message: 'hello stranger', id }))
}

test('a message that is missing is sent again, and nothing twice', async () => {
  const { client, commands } = await connect((link, command, n) => {
    polite(link, command)
    if (n === 1) for (const m of [message(1, 0), message(2, 1), message(2, 1), message(3, 0, 42), message(5, 4), message(6, 5)]) link.send(m)
    if (n === 2) for (const m of [message(3, 0, 42), message(4, 2), message(5, 4), message(6, 5), message(7, 6)]) link.send(m)
  })
  const texts = []
  const sub = client.subscribe('match')
  sub.on('message', (m) => texts.push(m.text))
  sub.on('missed', () => texts.push('missed'))
  await until(sub, 'message', (m) => m.text === '7')
  assert.deepEqual(texts, ['1', '2', '3', '4', '5', '6', '7'])
  assert.deepEqual(commands[2].position, { epoch: 'e', offset: 2 })
  assert.deepEqual(sub.position, { epoch: 'e', offset: 7 })
})

test('what came behind a gap that cannot be filled is not lost too', async () => {
  const { client } = await connect((link, command, n) => {
    if (n === 2) {
      link.send(reply({ code: 200, message: 'subscribe match success', id: command.id, position: { epoch: 'f', offset: 6 }, recovered: false }))
      return link.send(message(7, 6))
    }
    polite(link, command)
    if (n === 1) for (const m of [message(1, 0), message(2, 0, 42), message(4, 3), message(2, 0, 42), message(4, 3), message(5, 2, 42), message(6, 4)]) link.send(m)
  })
  const events = []
  const sub = client.subscribe('match')
  sub.on('message', ({ text, position }) => events.push([text, position.epoch, position.offset]))
  sub.on('missed', ({ position }) => events.push(['missed', position.epoch, position.offset]))
  await until(sub, 'message', (m) => m.text === '7')
  assert.deepEqual(events, [['1', 'e', 1], ['2', 'e', 2], ['missed', 'f', 6], ['4', 'e', 4], ['5', 'e', 5], ['6', 'e', 6], ['7', 'f', 7]])
  assert.deepEqual(sub.position, { epoch: 'f', offset: 7 })
})

test('what came behind a gap survives the link', async () => {
  const { client, commands } = await connect((link, command, n) => {
    if (n === 2) return link.terminate() // instead of an answer to the resume
    if (n === 4) {
      link.send(reply({ code: 200, message: 'subscribe match success', id: command.id, position: { epoch: 'e', offset: 6 }, recovered: false }))
      return link.send(message(7, 6))
    }
    polite(link, command)
    if (n === 1) for (const m of [message(1, 0), message(5, 4), message(6, 5)]) link.send(m)
  })
  const texts = []
  const sub = client.subscribe('match')
  sub.on('message', (m) => texts.push(m.text))
  sub.on('missed', () => texts.push('missed'))
  await until(sub, 'message', (m) => m.text === '7')
  assert.deepEqual(texts, ['1', 'missed', '5', '6', '7'])
  assert.deepEqual(commands[4].position, { epoch: 'e', offset: 1 })
})

test('behind a gap at most 10 000 messages are kept', async () => {
  const { client } = await connect((link, command, n) => {
    if (n === 2) {
      link.send(reply({ code: 200, message: 'subscribe match success', id: command.id, position: { epoch: 'e', offset: 20_000 }, recovered: false }))
      return link.send(message(20_001, 20_000))
    }
    polite(link, command)
    if (n === 1) for (let i = 2; i <= 10_002; i++) link.send(message(i, i - 1))
  })
  const texts = []
  const sub = client.subscribe('match')
  sub.on('message', (m) => texts.push(m.text))
  await until(sub, 'message', (m) => m.text === '20001')
  assert.equal(texts.length, 10_001)
  assert.deepEqual(texts.slice(-2), ['10001', '20001'])
})

test('a gap that is being filled survives the link', async () => {
  const { client, commands } = await connect((link, command, n) => {
    if (n === 2) return link.terminate() // instead of an answer to the resume
    polite(link, command)
    if (n === 1) for (const m of [message(1, 0), message(3, 2)]) link.send(m)
    if (n === 4) for (const m of [message(2, 1), message(3, 2)]) link.send(m)
  })
  const texts = []
  const sub = client.subscribe('match')
  sub.on('message', (m) => texts.push(m.text))
  await until(sub, 'message', (m) => m.text === '3')
  assert.deepEqual(texts, ['1', '2', '3'])
  assert.deepEqual(commands[4].position, { epoch: 'e', offset: 1 })
})

test('an expiring token is renewed by its callback', async () => {
  let tokens = 0
  const { client, commands } = await connect((link, command, n) => {
    link.send(reply({ code: 200, message: 'hello 42', id: command.id }))
    if (n === 0) link.send(reply({ code: 401, message: 'token expiring' }))
  }, { memberId: 42, token: () => `token ${++tokens}` })
  await until(client, 'expiring')
  await until(client, 'frame', (f) => f.sent && f.data.includes('token 2'))
  await client.ping()
  assert.deepEqual(commands.slice(0, 2).map((c) => c.token), ['token 1', 'token 2'])
})

test('a callback that cannot renew is an error event, not an unhandled rejection', async () => {
  let tokens = 0
  const { client } = await connect((link, command) => {
    link.send(reply({ code: 200, message: 'hello 42', id: command.id }))
    if (command.token) link.send(reply({ code: 401, message: 'token expiring' }))
  }, { memberId: 42, token: () => { if (++tokens > 1) throw new Error('signed out'); return 'token' } })
  assert.equal((await until(client, 'error')).message, 'signed out')
  assert.equal(client.state, 'connected')
})

test('a token callback that hangs is given up, and asked again', async () => {
  let tokens = 0
  const { client } = await connect(polite, { memberId: 42, timeout: 2000, token: () => ++tokens === 1 ? new Promise(() => {}) : 'token' })
  client.on('error', () => {})
  await state(client, 'connected')
  assert.equal(tokens, 2)
})

test('each close code has its effect', async (t) => {
  t.mock.method(Math, 'random', () => 1)
  for (const [code, delay] of [[1011, 16], [4008, 16], [1013, 72], [4013, 72], [4500], [1009]]) {
    const { client } = await connect((link, command, n) => {
      if (n === 0) return link.close(code, 'because')
      polite(link, command)
    }, { minBackoff: 8, maxBackoff: 100 })
    const away = await state(client, 'disconnected')
    assert.deepEqual(away, { state: 'disconnected', code, reason: 'because', reconnect: !!delay, delay })
    if (delay) await state(client, 'connected')
    client.close()
  }
})

test('a gateway without an answer is left', async () => {
  for (const [mute, code] of [['{"member_id"', 1006], ['{"op":"ping"', 4012], ['{"app":"match"', 4012]]) {
    const { client } = await connect((link, command) => {
      if (!JSON.stringify(command).startsWith(mute)) polite(link, command)
    }, { timeout: 1000, silence: 300 })
    client.subscribe('match')
    assert.ok([code, 4012].includes((await state(client, 'disconnected')).code), mute)
    client.close()
  }
})

test('a command is told that its link is lost', async () => {
  const { client } = await connect((link, command) => {
    if (command.op === 'push') link.terminate()
    else polite(link, command)
  })
  await assert.rejects(client.push('match', 'x'), { code: 0, message: 'connection lost' })
  assert.equal((await client.ping()).code, 200)
})

test('what is no gateway is left, again and again, with growing waits', async () => {
  for (const garbage of ['garbage', 'null', '{"app":"gateway","text":"garbage"}', Buffer.from([1, 2, 3])]) {
    let links = 0
    const { client } = await connect((link) => {
      links++
      link.send(garbage)
      if (garbage === 'null') link.close(1011, 'not a gateway')
    })
    const away = []
    client.on('state', (e) => { if (e.state === 'disconnected') away.push(e.reason) })
    await until(client, 'state', () => away.length === 3)
    assert.deepEqual(away, ['not a gateway', 'not a gateway', 'not a gateway'])
    assert.equal(links, 3)
    client.close()
  }
})

test('replies of a later version change nothing', async () => {
  const { client } = await connect((link, command) => {
    for (const text of [{}, [], 1, { code: 200, message: 7, id: {} }, { code: 418, message: 'join nowhere 5' }, { code: 200, message: 'new thing', id: 'x' }]) link.send(reply(text))
    link.send('{"app":"elsewhere","member_id":-1,"text":"x"}')
    polite(link, command)
  })
  assert.equal((await client.ping()).message, 'pong')
})

test('a subscribe that the gateway cannot serve now is asked again', async () => {
  const { client } = await connect((link, command, n) => {
    if (n === 1) link.send(reply({ code: 503, message: 'log unavailable', id: command.id }))
    else polite(link, command)
  })
  const sub = client.subscribe('match')
  assert.equal((await state(client, 'disconnected')).code, 1013)
  await state(sub, 'subscribed')
})

test('an iterator that is 10 000 messages behind ends', async () => {
  const { client } = await connect((link, command, n) => {
    polite(link, command)
    if (n === 1) for (let i = 1; i <= 10_001; i++) link.send(message(i, i - 1))
  })
  const sub = client.subscribe('match')
  const slow = sub[Symbol.asyncIterator]()
  await until(sub, 'message', (m) => m.text === '10001')
  for (let i = 1; i <= 10_000; i++) assert.equal((await slow.next()).value.text, String(i))
  await assert.rejects(slow.next(), { code: 4008 })
  assert.deepEqual(await slow.next(), { value: undefined, done: true })
})

test('closing at any moment is final', async () => {
  for (const moment of ['at once', 'connecting', 'token', 'no token', 'connected', 'waiting']) {
    const { client, server } = await connect((link, command) => {
      if (moment === 'waiting') link.terminate()
      else polite(link, command)
    }, {
      memberId: 42,
      token: async () => {
        if (moment.endsWith('token')) client.close()
        if (moment === 'no token') throw new Error('too late')
        return 'x'
      },
    })
    client.on('error', () => assert.fail('an error after the end'))
    if (moment === 'connecting') await state(client, 'connecting')
    if (moment === 'connected') await state(client, 'connected')
    if (moment === 'waiting') await state(client, 'disconnected')
    const last = []
    client.on('state', (e) => last.push(e.state, e.code))
    if (moment.endsWith('token')) await state(client, 'disconnected') // the callback closes
    client.close()
    client.close()
    await sleep(30)
    assert.deepEqual(last.slice(-2), ['disconnected', 1000], moment)
    assert.equal(server.clients.size, 0, moment)
  }
})

test('closing during the handshake is no error', async () => {
  const server = net.createServer() // which never answers
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = new Client(`ws://127.0.0.1:${server.address().port}/`, { WebSocket })
  await new Promise((resolve) => server.once('connection', (socket) => socket.resume().on('error', () => {}) && resolve()))
  client.close()
  assert.equal(client.state, 'disconnected')
  await new Promise((resolve) => server.close(resolve)) // when the socket is gone
})

test('who closes at the sight of a frame gets no more of it', async () => {
  const { client } = await connect(polite)
  const sub = client.subscribe('match')
  client.on('frame', ({ data }) => { if (data.includes('success')) client.close() })
  await state(client, 'disconnected')
  assert.equal(sub.state, 'subscribing')
  client.connect()
  await state(client, 'disconnected')
  assert.equal(sub.state, 'subscribing')
})

test('what a page listens to is given back', async () => {
  const there = []
  globalThis.addEventListener = (event, f) => there.push([event, f])
  globalThis.removeEventListener = (event, f) => there.splice(there.findIndex(([e, g]) => e === event && g === f), 1)
  try {
    const { client } = await connect(polite)
    assert.equal(there.length, 3)
    client.close()
    assert.equal(there.length, 0)
  } finally {
    delete globalThis.addEventListener
    delete globalThis.removeEventListener
  }
})

test('who was refused stays who it was, later too', async () => {
  const { client, commands, server } = await connect((link, command) => {
    if (command.member_id === 42) link.send(reply({ code: 401, message: 'unauthorized', id: command.id }))
    else polite(link, command)
  })
  await client.ping()
  await assert.rejects(client.authenticate(42, 'wrong'), { code: 401 })
  server.clients.forEach((link) => link.terminate())
  await state(client, 'connected')
  assert.equal(commands.at(-1).member_id, -1)
})

test('who subscribes at the sight of the connection is subscribed once', async () => {
  const { client, commands } = await connect(polite)
  const early = client.subscribe('early')
  client.on('state', ({ state }) => {
    if (state !== 'connected') return
    client.subscribe('late', { last: 2 })
    early.unsubscribe()
  })
  await client.ping()
  await client.ping() // is sent behind whatever the first one did not wait for
  assert.deepEqual(commands.filter((c) => c.app).map(({ op, app, last }) => [op, app, last]),
    [[undefined, 'late', 2], [undefined, 'late', undefined], ['unsubscribe', 'early', undefined]])
})

test('an answer that comes too late for a subscription changes nothing', async () => {
  const { client } = await connect(polite)
  await client.ping()
  const sub = client.subscribe('match')
  sub.unsubscribe()
  await client.ping()
  assert.equal(sub.state, 'unsubscribed')
})

test('an iterator that was left keeps nothing', async () => {
  const { client } = await connect((link, command, n) => {
    polite(link, command)
    if (n === 1) for (const m of [message(1, 0), message(2, 1)]) link.send(m)
  })
  const sub = client.subscribe('match')
  const left = sub[Symbol.asyncIterator]()
  await until(sub, 'message', (m) => m.text === '2')
  await left.return()
  assert.deepEqual(await left.next(), { value: undefined, done: true })
})

test('a handler may close and connect again', async () => {
  const { client, server } = await connect(polite)
  let times = 0
  client.on('state', ({ state, code }) => {
    if (state === 'connected' && ++times === 1) server.clients.forEach((link) => link.terminate())
    if (state === 'disconnected' && code === 1006) {
      client.close()
      client.connect()
    }
  })
  await until(client, 'state', () => times === 2)
  assert.equal((await client.ping()).code, 200)
  assert.equal(server.clients.size, 1)
})

test('the process can end when the client is closed', async () => {
  const { client } = await connect(polite)
  await client.ping()
  client.close()
  await sleep(50)
  const left = process.getActiveResourcesInfo().filter((what) => what === 'Timeout')
  assert.ok(left.length <= 1, `timers left: ${left.length}`) // the test runner's own
})
