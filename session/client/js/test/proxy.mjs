// Toxiproxy, which treats the links of the tests badly; TOXIPROXY is the URL of its HTTP API.
// https://github.com/Shopify/toxiproxy#toxics says what it can do.
import { randomUUID } from 'node:crypto'

async function call(method, path, body) {
  const api = process.env.TOXIPROXY
  if (!api) throw new Error('TOXIPROXY must be the URL of a toxiproxy')
  const r = await fetch(api + path, { method, body: body && JSON.stringify(body) })
  const text = await r.text()
  if (!r.ok) throw new Error(`toxiproxy: ${method} ${path}: ${r.status} ${text}`)
  return text && JSON.parse(text)
}

/** Makes a proxy in front of port, whose links have these toxics for as long as they live. */
export async function startProxy(port, toxics = []) {
  const name = randomUUID()
  const path = `/proxies/${name}`
  const { listen } = await call('POST', '/proxies', { name, listen: '127.0.0.1:0', upstream: `127.0.0.1:${port}`, enabled: true })
  let added = [] // names of toxics that heal takes away
  const proxy = {
    port: Number(listen.split(':')[1]),
    url: `ws://${listen}/`,
    /** Adds a toxic, { type, stream, attributes, toxicity }, to the links that there are and to new ones. */
    async add(toxic) {
      const { name } = await call('POST', `${path}/toxics`, { ...toxic, name: randomUUID() })
      added.push(name)
    },
    /** Takes away what was added. A link that a timeout has stalled ends. */
    async heal() {
      for (const toxic of added.splice(0)) await call('DELETE', `${path}/toxics/${toxic}`)
    },
    /** Lets nothing pass in these directions, and ends nothing. */
    async stall(...streams) {
      for (const stream of streams) await proxy.add({ type: 'timeout', stream, attributes: { timeout: 0 } })
    },
    /** Ends every link, and no link that comes instead. */
    async cut() {
      await proxy.stall('upstream')
      await proxy.heal()
    },
    close: () => call('DELETE', path),
  }
  for (const toxic of toxics) await proxy.add(toxic)
  added = []
  return proxy
}
