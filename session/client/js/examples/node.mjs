// Prints an app's messages as they come, and goes on where it was when it is started again:
//
//   node examples/node.mjs ws://127.0.0.1:5000/ match position.json
import { readFile, writeFile } from 'node:fs/promises'
import { Client } from 'ws-gateway-client'
import WebSocket from 'ws' // Node 22 has one of its own

const [url, app, file] = process.argv.slice(2)
const position = await readFile(file, 'utf8').then(JSON.parse, () => null)

const client = new Client(url, { WebSocket, memberId: 123456, token: '654321' })
client.on('state', (e) => console.error(e.state, e.reason ?? ''))
client.on('error', (err) => console.error(err.message))
process.on('SIGTERM', () => client.close())

const subscription = client.subscribe(app, { position })
subscription.on('missed', () => console.error('some messages are missing'))
for await (const message of subscription) {
  console.log(message.text)
  await writeFile(file, JSON.stringify(message.position))
}
