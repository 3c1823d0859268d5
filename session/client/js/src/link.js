import { GatewayError } from './error.js'

const lost = () => new GatewayError(0, 'connection lost')

const HURRY = 3000 // ms for a sign of life when the network has changed

/** One WebSocket, from its opening to its end. */
export class Link {
  #ws
  #on
  #timeout
  #calls = new Map() // id -> { answered, timer }
  #id = 0
  #heard // when the last frame came
  #patience // ends a link that is not ready in time
  #watch // asks a silent one for a sign of life

  /** on: { open(), frame(sent, data), message(m), reply(r), end(code, reason) }. */
  constructor(WebSocket, url, timeout, on) {
    const ws = this.#ws = new WebSocket(url)
    this.#on = on
    this.#timeout = timeout
    this.#patience = setTimeout(() => this.end(1006, 'no connection'), timeout)
    ws.onopen = () => on.open()
    ws.onmessage = ({ data }) => this.#receive(data)
    ws.onclose = ({ code, reason }) => this.end(code, reason)
    ws.onerror = () => setTimeout(() => this.end(1006, 'connection failed')) // a close should follow, but Node 20 has none
  }

  /** Notes that the gateway knows who this is; from now on silence is looked into. */
  ready(silence) {
    clearTimeout(this.#patience)
    this.#watch = setInterval(() => { if (Date.now() - this.#heard >= silence) this.probe() }, silence)
  }

  /** Asks for a sign of life; a link without one ends. */
  probe() { this.ask({ op: 'ping' }, () => {}, Math.min(HURRY, this.#timeout)) }

  /** Sends command. answered(error, reply) is called before anything that follows the reply is looked at. */
  ask(command, answered, timeout = this.#timeout) {
    if (!this.#on) return answered(lost())
    const id = ++this.#id
    const timer = setTimeout(() => this.end(4012, 'no answer'), timeout)
    this.#calls.set(id, { answered, timer })
    const data = JSON.stringify({ ...command, id })
    this.#ws.send(data)
    this.#on.frame(true, data)
  }

  /** Ends the link, once. */
  end(code, reason) {
    const on = this.#on
    if (!on) return
    this.#on = null
    clearTimeout(this.#patience)
    clearInterval(this.#watch)
    const ws = this.#ws
    ws.onopen = ws.onmessage = ws.onclose = null
    ws.close(1000)
    on.end(code, reason)
    for (const { answered, timer } of this.#calls.values()) {
      clearTimeout(timer)
      answered(lost())
    }
  }

  #receive(data) {
    this.#heard = Date.now()
    this.#on.frame(false, data)
    if (!this.#on) return // a handler has closed
    let message, reply // one of the gateway's own
    try {
      message = JSON.parse(data)
      if (message.app === 'gateway') reply = JSON.parse(message.text)
    } catch {
      return this.end(1006, 'not a gateway')
    }
    if (!reply) return this.#on.message(message)
    const call = this.#calls.get(reply.id)
    if (!call) return this.#on.reply(reply)
    this.#calls.delete(reply.id)
    clearTimeout(call.timer)
    const refused = reply.code >= 400 || / forbidden$/.test(reply.message) // which may be said with 200
    call.answered(refused && new GatewayError(reply.code < 400 ? 403 : reply.code, reply.message), reply)
  }
}
