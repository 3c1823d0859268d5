import { Cursor } from './cursor.js'
import { Emitter } from './emitter.js'
import { GatewayError } from './error.js'

const QUEUED = 10_000 // messages that wait for a slow iterator, or behind a gap

/** One app that a client listens to, over reconnects too. Made by Client.subscribe. */
export class Subscription extends Emitter {
  #client
  #options
  #cursor // null before the first position, or without positions
  #started = false // was subscribed once
  #broken // there is something before the next message that must not be missed
  #asking = false // a subscribe is not answered yet
  #held = new Map() // offset -> message behind a gap, until the gateway says whether it can fill it
  #iterators = new Set()

  constructor(client, app, options) {
    super()
    this.#client = client
    this.#options = options
    this.#cursor = options.position ? new Cursor(options.position) : null
    this.#broken = !!options.position
    this.app = app
    this.users = 1 // calls of subscribe without one of unsubscribe
    this.state = 'subscribing' // subscribed, unsubscribed
  }

  /** Where the last message was: an option of a later subscribe, to go on behind it. */
  get position() { return this.#cursor?.position ?? null }

  unsubscribe() { this.#client.unsubscribe(this) }

  /** Messages as they come. Ends with the subscription, and throws if that was refused. */
  [Symbol.asyncIterator]() {
    const queue = [] // what nobody waits for yet
    const waiting = [] // who waits for it
    const over = { value: undefined, done: true }
    let end = null
    const iterator = {
      message: (value) => {
        if (waiting.length) waiting.shift().resolve({ value, done: false })
        else if (queue.push(value) === QUEUED) iterator.end(new GatewayError(4008, 'slow iterator'))
      },
      end: (error) => {
        this.#iterators.delete(iterator)
        end = { error }
        for (const { resolve, reject } of waiting.splice(0)) error ? reject(error) : resolve(over)
      },
    }
    this.#iterators.add(iterator)
    if (this.state === 'unsubscribed') iterator.end()
    return {
      next: async () => {
        if (queue.length) return { value: queue.shift(), done: false }
        if (!end) return new Promise((resolve, reject) => waiting.push({ resolve, reject }))
        const { error } = end
        end = {} // throws once
        if (error) throw error
        return over
      },
      return: async () => {
        queue.length = 0
        iterator.end()
        return over
      },
      [Symbol.asyncIterator]() { return this },
    }
  }

  // What follows is for Client.

  /** The commands that subscribe, or go on from where this is. */
  commands() {
    const { position, last, events } = this.#options
    this.#asking = true
    const command = { app: this.app, ...(events && { events }) }
    const at = position === false ? command : { ...command, position: this.position }
    // The last messages come without positions, and the next command begins to have them.
    return last && !this.#started && !this.#cursor ? [{ ...command, last }, at] : [at]
  }

  /** Notes that the gateway has agreed. */
  accepted({ position, recovered }) {
    const missed = this.#broken && position && !recovered
    const held = [...this.#held.values()]
    this.#held.clear()
    this.#asking = false
    this.#started = true
    if (position && !recovered) this.#cursor = new Cursor(position)
    if (position) this.#broken = false
    this.#change('subscribed', { recovered })
    if (!missed) return // what was held comes again
    this.emit('missed', { position })
    held.forEach((m) => this.#deliver(m))
  }

  receive(message) {
    if (this.#asking) {
      if (this.#held.size) this.#hold(message)
      return // else it is left from an earlier subscription
    }
    const what = message.offset > 0 && this.#cursor ? this.#cursor.take(message) : 'new'
    if (what === 'new') this.#deliver(this.#read(message))
    if (what === 'gap') {
      this.#broken = true
      this.#hold(message)
      this.#client.resume(this)
    }
  }

  /** Notes that the link is gone. */
  interrupted() {
    this.#asking = false
    if (this.#started) this.#broken = true
    this.#change('subscribing')
  }

  /** Ends the iterators: nothing more comes. */
  stopped(error) {
    for (const iterator of [...this.#iterators]) iterator.end(error)
  }

  /** Ends this; error says why, if it was refused. */
  ended(code, reason, error) {
    this.#change('unsubscribed', { code, reason })
    this.stopped(error)
    if (error) this.emit('error', error)
  }

  #hold(message) {
    if (this.#held.size < QUEUED && !this.#cursor.has(message)) this.#held.set(message.offset, this.#read(message))
  }

  #read({ app, member_id: memberId, text, from, offset }) {
    return { app, memberId, text, from, position: offset && { epoch: this.position.epoch, offset } }
  }

  #deliver(message) {
    this.emit('message', message)
    for (const iterator of [...this.#iterators]) iterator.message(message)
  }

  #change(state, detail) {
    if (this.state === state) return
    this.state = state
    this.emit('state', { state, ...detail })
  }
}
