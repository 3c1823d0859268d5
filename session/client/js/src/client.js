// The ws-gateway client for browsers and Node: README.md beside this folder says how to use it.

import { advice, backoff, CONGESTED } from './backoff.js'
import { Emitter } from './emitter.js'
import { GatewayError } from './error.js'
import { Link } from './link.js'
import { Subscription } from './subscription.js'

export { GatewayError }

// A page that has this from a gateway, by a script tag, connects to that gateway.
const home = globalThis.document?.currentScript?.src

/** A link to a gateway that comes back by itself and goes on where it was. */
export class Client extends Emitter {
  #options
  #subs = new Map() // app -> Subscription
  #wanted = false // between connect and close
  #turn = 0 // number of the attempt; what belongs to an earlier one is void
  #attempt = 0 // since the last success
  #timer = null // of the next attempt
  #link = null

  constructor(url = home && new URL('.', home), {
    memberId = -1, token = '', connect = true, WebSocket = globalThis.WebSocket,
    minBackoff = 500, maxBackoff = 20_000, timeout = 10_000, silence = 25_000, // ms
  } = {}) {
    super()
    if (!url) throw new TypeError('no URL of a gateway')
    if (!WebSocket) throw new TypeError('no WebSocket here: pass one in the options')
    this.#options = { memberId, token, WebSocket, minBackoff, maxBackoff, timeout, silence }
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, 'ws')
    this.state = 'disconnected' // connecting, connected
    this.memberId = -1
    if (connect) this.connect()
  }

  connect() {
    if (this.#wanted) return
    this.#wanted = true
    this.#attempt = 0
    this.#listen('addEventListener')
    this.#wait(0) // the page can listen for what happens first
  }

  close() {
    if (!this.#wanted) return
    this.#wanted = false
    if (this.#link) this.#link.end(1000, 'closed by the client')
    else this.#ended(1000, 'closed by the client')
  }

  subscribe(app, options = {}) {
    let sub = this.#subs.get(app)
    if (sub) {
      sub.users++
      return sub
    }
    sub = new Subscription(this, app, options)
    this.#subs.set(app, sub)
    this.#subscribe(sub)
    return sub
  }

  push(app, text) { return this.request({ op: 'push', app, text }) }

  async presence(app) {
    const { members, anonymous } = await this.request({ op: 'presence', app })
    return { members: members.map((m) => ({ memberId: m.member_id, connections: m.connections })), anonymous }
  }

  ping() { return this.request({ op: 'ping' }) }

  /** Sends command when there is a link, and returns its reply. */
  async request(command) {
    const link = await this.#connected()
    return new Promise((resolve, reject) => link.ask(command, (err, reply) => err ? reject(err) : resolve(reply)))
  }

  async authenticate(memberId, token) {
    const before = this.#options
    this.#options = { ...before, memberId, token }
    if (this.state !== 'connected') return
    try {
      await this.#renew()
    } catch (err) {
      if (err.code) this.#options = before // refused
      throw err
    }
  }

  // What follows is for Subscription.

  unsubscribe(sub) {
    if (this.#subs.get(sub.app) !== sub || --sub.users > 0) return
    if (this.state === 'connected') this.#link.ask({ op: 'unsubscribe', app: sub.app }, () => {})
    this.#drop(sub, 1000, 'closed by the client')
  }

  /** Has what sub misses sent again. */
  resume(sub) { this.#subscribe(sub) }

  #change(state, detail) {
    this.state = state
    this.emit('state', { state, ...detail })
  }

  #listen(method) {
    for (const event of ['online', 'offline', 'visibilitychange']) globalThis[method]?.(event, this.#wake)
  }

  // The network changed, or somebody looks at the page again: timers may have slept.
  #wake = () => {
    if (this.state === 'connected') this.#link.probe()
    else if (this.#timer && globalThis.navigator?.onLine !== false) {
      this.#attempt = 0
      this.#wait(0)
    }
  }

  #wait(delay) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#open(), delay)
  }

  async #open() {
    const turn = ++this.#turn
    this.#timer = null
    this.#change('connecting', { attempt: this.#attempt })
    let auth
    try {
      auth = await this.#auth()
    } catch (err) {
      if (turn !== this.#turn) return
      this.#ended(0, 'no token')
      this.emit('error', err)
      return
    }
    if (turn !== this.#turn) return
    const { WebSocket, timeout } = this.#options
    try {
      const link = this.#link = new Link(WebSocket, this.url, timeout, {
        open: () => link.ask(auth, (err) => this.#welcome(link, auth, err)),
        frame: (sent, data) => this.emit('frame', { sent, data }),
        message: (message) => this.#subs.get(message.app)?.receive(message),
        reply: (reply) => this.#reply(reply),
        end: (code, reason) => this.#ended(code, reason),
      })
    } catch (err) { // this page may not open that URL
      this.#wanted = false
      this.#ended(0, String(err))
    }
  }

  /** Returns the auth message. */
  async #auth() {
    const { memberId, token, timeout } = this.#options
    if (!(memberId > 0)) return { member_id: -1, token: '' }
    if (typeof token !== 'function') return { member_id: memberId, token }
    let timer
    const late = new Promise((_, reject) => { timer = setTimeout(reject, timeout, new Error('the token callback does not answer')) })
    try {
      return { member_id: memberId, token: await Promise.race([token(), late]) }
    } finally {
      clearTimeout(timer)
    }
  }

  /** Handles the answer to the auth message. */
  #welcome(link, auth, err) {
    if (err && err.code !== 401) return // the gateway closes the link
    this.#attempt = 0
    link.ready(this.#options.silence)
    const before = [...this.#subs.values()] // those that a handler of the event makes are asked for at once
    this.#authenticated(err ? -1 : auth.member_id)
    for (const sub of before) if (this.#subs.get(sub.app) === sub) this.#subscribe(sub)
    if (err) this.emit('error', err) // refused: anonymous from now on
  }

  #authenticated(memberId) {
    this.memberId = memberId
    this.#change('connected', { memberId })
  }

  /** Proves again who this is, over the link that is there. */
  async #renew() {
    const auth = await this.#auth()
    await this.request(auth)
    if (this.memberId !== auth.member_id) this.#authenticated(auth.member_id)
  }

  #subscribe(sub) {
    const link = this.#link
    if (this.state !== 'connected') return // welcome does it
    for (const command of sub.commands()) {
      link.ask(command, (err, reply) => {
        if (this.#subs.get(sub.app) !== sub) return
        if (!err) sub.accepted(reply)
        else if (err.code >= 500 || err.code === 429) link.end(1013, err.message) // not for good
        else if (err.code) this.#drop(sub, err.code, err.message, err)
      })
    }
  }

  #drop(sub, code, reason, error) {
    this.#subs.delete(sub.app)
    sub.ended(code, reason, error)
  }

  /** Handles a reply that no command asked for. */
  #reply({ code, message }) {
    const [verb, app, rest] = String(message).split(' ')
    const sub = this.#subs.get(app)
    if (message === 'token expiring') {
      this.emit('expiring')
      if (typeof this.#options.token === 'function') this.#renew().catch((err) => this.emit('error', err))
    } else if (sub && (verb === 'join' || verb === 'leave')) {
      sub.emit(verb, { memberId: Number(rest) })
    } else if (sub && verb === 'unsubscribe') { // a backend took it away
      this.#drop(sub, code, message)
    } else if (sub && rest === 'forbidden') { // new rules did
      this.#drop(sub, 403, message, new GatewayError(403, message))
    }
  }

  /** The link, once there is one that is ready. */
  #connected() {
    if (this.state === 'connected') return this.#link
    return new Promise((resolve, reject) => {
      const off = this.on('state', ({ state, reconnect }) => {
        if (state === 'connected') done(resolve, this.#link)
        else if (reconnect === false) fail()
      })
      const done = (settle, value) => {
        off()
        clearTimeout(timer)
        settle(value)
      }
      const fail = () => done(reject, new GatewayError(0, 'not connected'))
      const timer = setTimeout(fail, this.#wanted ? this.#options.timeout : 0)
    })
  }

  /** Handles the end of a link, or of an attempt to have one. */
  #ended(code, reason) {
    const what = advice(code)
    const { minBackoff, maxBackoff } = this.#options
    let delay
    this.#turn++
    this.#link = null
    clearTimeout(this.#timer)
    this.#timer = null
    if (what === 'stop') this.#wanted = false
    if (what === 'later') this.#attempt = Math.max(this.#attempt, CONGESTED)
    const reconnect = this.#wanted
    if (reconnect) {
      const offline = globalThis.navigator?.onLine === false // the online event comes first
      this.#wait(delay = offline ? maxBackoff : backoff(this.#attempt++, minBackoff, maxBackoff))
    } else this.#listen('removeEventListener')
    this.#change('disconnected', { code, reason, reconnect, delay })
    for (const sub of [...this.#subs.values()]) {
      sub.interrupted()
      if (!reconnect) sub.stopped(code !== 1000 && new GatewayError(code, reason))
    }
  }
}
