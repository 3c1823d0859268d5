import { test } from 'node:test'
import WebSocket from 'ws'
import { Client } from '../dist/client.mjs'
import { breakLinks, hasty } from './faults.mjs'
import { startGateway, startProxy, state } from './gateway.mjs'

test('200 cuts, resets, stalls and half closes: nothing lost, nothing twice', async () => {
  const gateway = await startGateway()
  const proxy = await startProxy(gateway.port)
  const client = new Client(proxy.url, { WebSocket, ...hasty })
  const sub = client.subscribe('match')
  const texts = []
  let links = 0
  sub.on('message', (m) => texts.push(m.text))
  sub.on('missed', () => texts.push('missed'))
  client.on('state', (e) => { if (e.state === 'connected') links++ })
  try {
    await state(sub, 'subscribed')
    await breakLinks(gateway, proxy, { texts: async () => texts, links: async () => links }, 200)
  } finally {
    client.close()
    await proxy.close()
    await gateway.stop()
  }
})
