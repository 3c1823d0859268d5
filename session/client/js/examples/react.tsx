import { createContext, useContext, useEffect, useRef, useState } from 'react'
import { Client, type ClientState, type Message } from 'ws-gateway-client'

/** The one client of a page. */
export const Gateway = createContext<Client | null>(null)

function useClient(): Client {
  const client = useContext(Gateway)
  if (!client) throw new Error('no <Gateway value={client}> around this')
  return client
}

/** Calls onMessage with every message of app while the component is there. Components may share an app. */
export function useApp(app: string, onMessage: (message: Message) => void, onMissed?: () => void) {
  const client = useClient()
  const latest = useRef({ onMessage, onMissed })
  useEffect(() => { latest.current = { onMessage, onMissed } })
  useEffect(() => {
    const subscription = client.subscribe(app)
    const off = [
      subscription.on('message', (message) => latest.current.onMessage(message)),
      subscription.on('missed', () => latest.current.onMissed?.()),
    ]
    return () => {
      off.forEach((f) => f())
      subscription.unsubscribe()
    }
  }, [client, app])
}

/** Whether the client is connected. */
export function useClientState(): ClientState['state'] {
  const client = useClient()
  const [state, setState] = useState(client.state)
  useEffect(() => {
    setState(client.state)
    return client.on('state', (e) => setState(e.state))
  }, [client])
  return state
}

export function Messages({ app }: { app: string }) {
  const [messages, setMessages] = useState<Message[]>([])
  const state = useClientState()
  useApp(app, (message) => setMessages((before) => [...before, message].slice(-100)), () => setMessages([]))
  return (
    <section>
      <p>{state}</p>
      <ul>{messages.map((m) => <li key={m.position?.offset}>{m.text}</li>)}</ul>
    </section>
  )
}
