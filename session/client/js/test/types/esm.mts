// What users of the ES module write, and what they must not.
import { Client, GatewayError, type Message, type Position } from 'ws-gateway-client'

const client = new Client('ws://127.0.0.1:5000/', { memberId: 42, token: async () => 'token', WebSocket })
new Client()
// @ts-expect-error: a token is text
new Client('ws://127.0.0.1:5000/', { memberId: 42, token: 654321 })

const off: () => void = client.on('state', (e) => {
  if (e.state === 'disconnected') console.log(e.code.toFixed(), e.reason.length, e.reconnect, e.delay ?? 0)
  // @ts-expect-error: only a disconnect has a reason
  if (e.state === 'connected') console.log(e.reason)
})
off()
// @ts-expect-error: no such event
client.on('message', () => {})

const subscription = client.subscribe('match', { last: 5, events: true })
subscription.on('message', (m) => m.text.length + m.memberId)
subscription.on('missed', (e) => e.position.offset)
subscription.on('join', ({ memberId }) => memberId.toFixed())
subscription.on('error', (err) => err.code)
const position: Position | null = subscription.position
client.subscribe('match', { position })
client.subscribe('match', { position: false })
// @ts-expect-error: made by a client only
new (subscription.constructor as typeof import('ws-gateway-client').Subscription)()

const texts = async () => {
  const seen: Message[] = []
  for await (const m of subscription) seen.push(m)
  return seen
}
const there: Promise<number> = client.presence('room:7').then((p) => p.members[0]!.memberId + p.anonymous)
client.push('room:7', 'hi').catch((err: unknown) => err instanceof GatewayError && err.code)
export { texts, there }
