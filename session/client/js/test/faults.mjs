// What a bad network does to a client, for Node and for a browser.
import assert from 'node:assert/strict'
import { sleep } from './gateway.mjs'
import { startProxy } from './proxy.mjs'

/** Options of a client whose links live a moment. */
export const hasty = { memberId: 123456, token: '654321', minBackoff: 1, maxBackoff: 20, timeout: 250, silence: 40 }

const both = (type, attributes, toxicity = 1) => ['upstream', 'downstream'].map((stream) => ({ type, stream, attributes, toxicity }))

// Networks, by what they do to every link as long as it lives.
const NETWORKS = {
  good: [],
  'one that sends small pieces': both('slicer', { average_size: 20, size_variation: 10, delay: 50 }),
  'one that is slow': both('latency', { latency: 3, jitter: 3 }),
  'one that resets what ends': both('reset_peer', {}, 0), // of no toxicity: it only has ends be resets
  'one that closes by halves': both('slow_close', { delay: 300 }), // one end is closed, the other lives on
}

// What happens to links, and to those that are tried until it is over; at(n) is random, below n.
const FAULTS = [
  (at) => [{ type: 'limit_data', stream: 'downstream', attributes: { bytes: at(600) } }], // cuts in the midst of a frame
  (at) => [{ type: 'limit_data', stream: 'downstream', attributes: { bytes: at(60) } }], // ... of a handshake
  (at) => [{ type: 'limit_data', stream: 'upstream', attributes: { bytes: at(25) } }], // ... of a ping
  () => [{ type: 'reset_peer', stream: 'upstream', attributes: { timeout: 0 } }],
  () => [{ type: 'reset_peer', stream: 'downstream', attributes: { timeout: 0 } }],
  (at) => both('timeout', { timeout: 1 + at(30) }), // a stall that ends
  () => both('timeout', { timeout: 0 }), // one that does not
  () => [{ type: 'timeout', stream: 'downstream', attributes: { timeout: 0 } }], // the gateway hears, and is not heard
]

/**
 * Breaks the links of clients, so many times in all, at random moments and in every way, while
 * messages are pushed to match, and proves that each client gets each once and in order.
 * listen(url) starts a client that subscribes to match, and resolves when it has, with
 * { look(): Promise of { connected, ends: how often it was not }, texts(): Promise of what it got, ping(), close() }.
 */
export async function breakLinks(gateway, listen, times) {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32))
  console.log(`SEED=${seed}`)
  const random = mulberry32(seed)
  const at = (n) => Math.floor(random() * n)
  for (const [name, toxics] of Object.entries(NETWORKS)) {
    const proxy = await startProxy(gateway.port, toxics)
    const client = await listen(proxy.url)
    try {
      await breakThem(gateway, proxy, client, times / Object.keys(NETWORKS).length, at)
    } catch (err) {
      throw new Error(`in a network, ${name}: ${err.message}`, { cause: err })
    } finally {
      await client.close()
      await proxy.close()
    }
  }
}

async function breakThem(gateway, proxy, client, times, at) {
  const sent = []
  let pushing = true
  const pusher = (async () => {
    for (let n = 0; pushing; n++) {
      await gateway.push('match', `${n}`, n % 5 === 0 ? 123456 : -1)
      sent.push(`${n}`)
      await sleep(1)
    }
  })()
  const until = async (what) => {
    for (const end = Date.now() + 60_000; !what(await client.look());) {
      if (Date.now() > end) throw new Error(`not so after a minute: ${what}`)
      await sleep(2)
    }
  }
  try {
    for (let n = 0; n < times; n++) {
      await sleep(at(30))
      const { ends } = await client.look()
      for (const toxic of FAULTS[at(FAULTS.length)](at)) await proxy.add(toxic)
      await client.ping() // some faults wait for something that passes
      await until((now) => now.ends > ends)
      await sleep(at(10))
      await proxy.heal()
      await until((now) => now.connected)
    }
  } finally {
    pushing = false
    await pusher
  }

  let got
  for (const end = Date.now() + 60_000; ; await sleep(20)) {
    got = await client.texts()
    if (got.at(-1) === sent.at(-1) || Date.now() > end) break
  }
  assert.deepEqual(got, sent)
}

/** A small random generator that a seed repeats. */
function mulberry32(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
