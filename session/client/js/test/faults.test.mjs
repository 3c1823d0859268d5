import { test } from 'node:test'
import WebSocket from 'ws'
import { Client } from '../dist/client.mjs'
import { breakLinks, hasty } from './faults.mjs'
import { startGateway, state } from './gateway.mjs'

test('200 faults of five networks: nothing lost, nothing twice', async () => {
  const gateway = await startGateway()
  try {
    await breakLinks(gateway, async (url) => {
      const client = new Client(url, { WebSocket, ...hasty })
      const sub = client.subscribe('match')
      const texts = []
      let ends = 0
      sub.on('message', (m) => texts.push(m.text))
      sub.on('missed', () => texts.push('missed'))
      client.on('state', (e) => { if (e.state === 'disconnected') ends++ })
      await state(sub, 'subscribed')
      return {
        look: async () => ({ connected: client.state === 'connected', ends }),
        texts: async () => texts,
        ping: () => { client.ping().catch(() => {}) },
        close: () => client.close(),
      }
    }, 200)
  } finally {
    await gateway.stop()
  }
})
