// What a bad network does to a client, for Node and for a browser.
import assert from 'node:assert/strict'
import { sleep } from './gateway.mjs'

/** Options of a client whose links live a moment. */
export const hasty = { memberId: 123456, token: '654321', minBackoff: 1, maxBackoff: 20, timeout: 250, silence: 40 }

/**
 * Breaks the links of a client at random moments, so many times and in every way, while
 * messages are pushed to match, and proves that it gets each once and in order.
 * client: { links(): Promise of how often it was connected, texts(): Promise of what it got }.
 */
export async function breakLinks(gateway, proxy, client, times) {
  const seed = Math.floor(Math.random() * 2 ** 32)
  console.log(`seed ${seed}`)
  const random = mulberry32(seed)
  const ways = ['cut', 'cut', 'cut', 'reset', 'reset', 'halfClose', 'halfClose', 'stall'] // a stall takes longest to notice

  const sent = []
  let pushing = true
  const pusher = (async () => {
    for (let n = 0; pushing; n++) {
      await gateway.push('match', `${n}`, n % 5 === 0 ? 123456 : -1)
      sent.push(`${n}`)
      await sleep(1)
    }
  })()

  for (let n = 0; n < times; n++) {
    const before = await client.links()
    await sleep(random() * 30)
    proxy[ways[Math.floor(random() * ways.length)]]()
    while (await client.links() === before) await sleep(5) // it comes back, or the test's time is over
  }
  pushing = false
  await pusher

  let got
  for (const end = Date.now() + 20_000; ; await sleep(50)) {
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
