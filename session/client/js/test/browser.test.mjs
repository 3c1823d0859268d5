// The script in a real browser: Chromium, headless.
import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import { breakLinks, hasty } from './faults.mjs'
import { startGateway } from './gateway.mjs'
import { startProxy } from './proxy.mjs'

const file = (path) => fileURLToPath(new URL(path, import.meta.url))

let browser, gateway, proxy, site, page
const pages = {} // path -> HTML
let errors // of the page

before(async () => {
  gateway = await startGateway()
  proxy = await startProxy(gateway.port)
  site = createServer((req, res) => res.writeHead(200, { 'Content-Type': 'text/html' }).end(pages[req.url] ?? ''))
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  })
})
after(async () => {
  await browser?.close()
  site.close()
  await proxy.close()
  await gateway.stop()
})
beforeEach(async () => {
  await page?.context().close()
  page = await browser.newPage()
  errors = []
  page.on('pageerror', (err) => errors.push(err.message))
})

/** Shows html, of another origin than the gateway's, which is reached through the proxy. */
async function show(path, html) {
  pages[path] = html
  await page.goto(`http://127.0.0.1:${site.address().port}${path}`)
}

const script = () => `<script src="http://127.0.0.1:${proxy.port}/client.js"></script>`

/** Has the page connect and note what happens to the app match in the arrays texts and states. */
const listen = (options, url) => page.evaluate(([url, options]) => {
  const client = globalThis.client = new WSGateway.Client(url ?? undefined, options)
  const sub = globalThis.sub = client.subscribe('match')
  globalThis.texts = []
  globalThis.states = []
  globalThis.links = globalThis.ends = 0
  sub.on('message', (m) => texts.push(m.text))
  sub.on('missed', () => texts.push('missed'))
  client.on('state', (e) => states.push(e))
  client.on('state', (e) => {
    if (e.state === 'connected') links++
    if (e.state === 'disconnected') ends++
  })
  return new Promise((resolve) => sub.on('state', resolve))
}, [url, options])

/** Resolves when what, a function of the page, is true. */
async function eventually(what) {
  try {
    await page.waitForFunction(what, null, { polling: 20, timeout: 60_000 })
  } catch (err) {
    const seen = await page.evaluate(() => JSON.stringify({ texts: globalThis.texts, states: globalThis.states }))
    throw new Error(`not so: ${what}\n${seen}\n${errors}`, { cause: err })
  }
}

test('one script tag: connects, receives, is cut, goes on', async () => {
  await show('/', script())
  await listen({ memberId: 123456, token: '654321', minBackoff: 10 })
  assert.equal(await page.evaluate(() => client.url), proxy.url)
  await gateway.push('match', 'one')
  await eventually(() => texts.length === 1)
  await proxy.cut()
  await gateway.push('match', 'two')
  await gateway.push('match', 'three', 123456)
  await eventually(() => texts.length === 3)
  assert.deepEqual(await page.evaluate(() => texts), ['one', 'two', 'three'])
  assert.deepEqual(await page.evaluate(() => states.map((e) => e.state)), ['connecting', 'connected', 'disconnected', 'connecting', 'connected'])
  assert.deepEqual(errors, [])
})

test('200 faults of five networks: nothing lost, nothing twice', async () => {
  await show('/', script())
  await breakLinks(gateway, async (url) => {
    await listen(hasty, url)
    return {
      look: () => page.evaluate(() => ({ connected: client.state === 'connected', ends })),
      texts: () => page.evaluate(() => texts),
      ping: () => page.evaluate(() => { client.ping().catch(() => {}) }),
      close: () => page.evaluate(() => client.close()),
    }
  }, 200)
  assert.deepEqual(errors, [])
})

test('a page that is offline waits, and comes back as soon as it is online', async () => {
  await show('/', script())
  await listen({ minBackoff: 30_000, maxBackoff: 60_000 })
  await page.context().setOffline(true)
  await proxy.cut() // which it need not notice: loopback is still there
  await eventually(() => states.at(-1).state === 'disconnected')
  assert.equal(await page.evaluate(() => states.at(-1).delay), 60_000)
  await page.context().setOffline(false)
  await eventually(() => links === 2)
})

test('a network that changed is found out about at once', async () => {
  await show('/', script())
  await listen({ minBackoff: 10, timeout: 500 })
  await proxy.stall('upstream', 'downstream')
  await page.evaluate(() => dispatchEvent(new Event('online')))
  await eventually(() => states[2]?.code === 4012) // silence would take 25 s
  await proxy.heal()
  await eventually(() => links > 1)
})

test('the example of a page', async () => {
  const html = await readFile(file('../examples/page.html'), 'utf8')
  const with_ = html.replaceAll('127.0.0.1:5000', `127.0.0.1:${proxy.port}`)
  assert.notEqual(with_, html)
  await show('/page', with_)
  await page.getByText('connected', { exact: true }).waitFor()
  await gateway.push('match', 'from a backend')
  await page.getByRole('listitem').getByText('from a backend').waitFor()
  await page.getByPlaceholder('say something').fill('from a page')
  await page.getByRole('button').click()
  await page.getByRole('listitem').getByText('push match forbidden').waitFor()
  assert.deepEqual(errors, [])
})

test('the example of a React hook', async () => {
  const { outputFiles: [bundle] } = await build({
    stdin: {
      contents: `
        import { StrictMode } from 'react'
        import { createRoot } from 'react-dom/client'
        import { Client } from 'ws-gateway-client'
        import { Gateway, Messages } from './react.tsx'
        const client = globalThis.client = new Client('${proxy.url}', { minBackoff: 10 })
        createRoot(document.getElementById('root')).render(
          <StrictMode><Gateway value={client}><Messages app="match" /><Messages app="match" /></Gateway></StrictMode>,
        )`,
      loader: 'jsx',
      resolveDir: file('../examples'),
    },
    bundle: true, write: false, format: 'esm', jsx: 'automatic', define: { 'process.env.NODE_ENV': '"development"' },
  })
  await show('/react', `<div id="root"></div><script type="module">${bundle.text.replaceAll('</script', '<\\/script')}</script>`)
  await eventually(() => document.body.innerText.match(/connected/g)?.length === 2)
  await page.evaluate(() => client.ping()) // answered after the subscribe
  await gateway.push('match', 'hello, React')
  await eventually(() => document.body.innerText.match(/hello, React/g)?.length === 2)
  await proxy.cut()
  await gateway.push('match', 'after the cut')
  await eventually(() => document.body.innerText.match(/after the cut/g)?.length === 2)
  assert.deepEqual(errors, [])
})
