// A client of the gateway, in a pane that shows each of its frames.
import { t, onLanguage, translate } from './words.js'
import { clock } from './format.js'

const KEPT = 300 // entries of a log

/** How a frame that was sent reads: as it is, without the token. */
const masked = (command, data) => (command.token ? JSON.stringify({ ...command, token: '••••••' }) : data)

/** The gateway's own reply in a frame, or null. */
function replyIn(data) {
  try {
    const { app, text } = JSON.parse(data)
    return app === 'gateway' ? JSON.parse(text) : null
  } catch { // it is not a gateway: the client says so
    return null
  }
}

/** A pane; member says whether its client logs in. */
export class Pane {
  #client = null
  #as = '' // what client was made for
  #sent = new Map() // commands that wait for their reply, by id
  #subscriptions = new Map() // by app

  constructor(member, settings, address) {
    this.member = member
    this.settings = settings
    this.address = address
    const root = document.querySelector('#pane').content.cloneNode(true).firstElementChild
    root.id = member ? 'member' : 'anonymous'
    this.root = root
    const find = (selector) => root.querySelector(selector)
    this.title = find('h3')
    this.title.id = root.id + '-title'
    root.setAttribute('aria-labelledby', this.title.id)
    this.state = find('.state')
    this.button = find('.link')
    this.login = find('.login')
    this.list = find('.subscriptions')
    this.log = find('.log')
    const forms = { subscribe: find('.subscribe'), say: find('.say') }
    this.login.hidden = forms.say.hidden = !member
    if (settings.member > 0) this.login.elements.member.value = settings.member
    this.login.elements.token.value = settings.token

    const app = () => forms.subscribe.elements.app.value.trim()
    const events = () => forms.subscribe.elements.events.checked
    const on = (form, f) => form.addEventListener('submit', (e) => { e.preventDefault(); f() })
    this.button.onclick = () => (this.#busy() ? this.#client.close() : this.connect())
    on(this.login, () => this.connect())
    on(forms.subscribe, () => this.subscribe(app(), events()))
    on(forms.say, () => this.#ask((c) => c.push(app(), forms.say.elements.text.value)))
    find('.presence').onclick = () => { if (forms.subscribe.reportValidity()) this.#ask((c) => c.presence(app())) }

    document.querySelector('#panes').append(root)
    onLanguage(() => {
      translate(root)
      this.#tell()
    })
  }

  /** Whether the client is, or tries to be, connected. */
  #busy() { return this.#client !== null && (this.#client.state !== 'disconnected' || this.returning) }

  #tell() {
    const state = this.#client?.state ?? 'disconnected'
    this.title.textContent = t(this.member ? 'memberPane' : 'anonymousPane')
    this.state.dataset.state = state
    this.state.textContent = t(state)
    this.button.textContent = t(this.#busy() ? 'disconnect' : 'connect')
    this.button.classList.toggle('main', !this.#busy())
    this.log.setAttribute('aria-label', t('log', this.title.textContent))
    for (const sub of this.#subscriptions.values()) this.#tellOf(sub)
  }

  /** Connects; the same client as before takes up its subscriptions where they were. */
  connect() {
    if (!this.address.reportValidity() || (this.member && !this.login.reportValidity())) return
    const { member, token } = this.login.elements
    const as = [this.address.value, member.value, token.value].join(' ')
    if (this.#client && as === this.#as) {
      this.#client.connect()
      return
    }
    this.#client?.close()
    for (const sub of this.#subscriptions.values()) this.#forget(sub)
    this.#sent.clear()
    this.#as = as
    const client = new WSGateway.Client(this.address.value, {
      connect: false,
      ...(this.member && { memberId: Number(member.value), token: token.value }),
    })
    this.#client = client
    client.on('frame', ({ sent, data }) => (sent ? this.#note(data) : this.#received(data)))
    client.on('error', () => {}) // its frame is shown
    client.on('state', (e) => {
      this.returning = e.state === 'disconnected' && e.reconnect
      if (e.state === 'disconnected') {
        this.#sent.clear()
        this.#write('note', t('closed', e))
      }
      this.#tell()
    })
    client.connect()
  }

  /** Subscribes to app, connecting first where that is needed; events is whether to be told who joins and leaves. */
  subscribe(app, events) {
    if (!this.#busy()) this.connect()
    if (!this.#client || this.#subscriptions.has(app)) return
    const sub = this.#client.subscribe(app, { events })
    const item = document.createElement('li')
    item.append(document.createElement('span'), document.createElement('button'))
    item.lastElementChild.type = 'button'
    item.lastElementChild.textContent = '×'
    item.lastElementChild.onclick = () => {
      sub.unsubscribe()
      this.log.focus() // the button is gone
    }
    this.list.append(item)
    const entry = { app, sub, item }
    this.#subscriptions.set(app, entry)
    sub.on('state', (e) => (e.state === 'unsubscribed' ? this.#forget(entry) : this.#tellOf(entry)))
    sub.on('message', () => this.#tellOf(entry))
    sub.on('error', () => {}) // its frame is shown
    sub.on('missed', () => this.#write('note', t('gap', app)))
    this.#tellOf(entry)
  }

  #tellOf({ app, sub, item }) {
    item.dataset.state = sub.state
    item.firstElementChild.textContent = sub.position ? `${app} · ${sub.position.offset}` : app
    item.lastElementChild.setAttribute('aria-label', t('unsubscribe', app))
  }

  #forget(entry) {
    entry.item.remove()
    if (this.#subscriptions.get(entry.app) === entry) this.#subscriptions.delete(entry.app)
  }

  /** Has the client ask for something; the answer is among its frames. */
  #ask(f) {
    if (this.#client?.state !== 'connected') {
      this.#write('note', t('disconnected'))
      return
    }
    f(this.#client).catch(() => {}) // the frame of the refusal is shown
  }

  /** Shows a frame that was sent, and waits for its reply. */
  #note(data) {
    const command = JSON.parse(data)
    this.#sent.set(command.id, command)
    this.#write('sent', masked(command, data))
  }

  /** Shows a frame that came. */
  #received(data) {
    const reply = replyIn(data)
    const refused = reply !== null && (reply.code >= 400 || / forbidden$/.test(reply.message))
    this.#write(refused ? 'received refused' : 'received', data)
    const command = this.#sent.get(reply?.id)
    this.#sent.delete(reply?.id)
    if (refused && command?.app) this.#explain(command)
  }

  /** Says which rule refused a command. */
  async #explain({ app, op = 'subscribe' }) {
    if (!this.settings.explain) return
    const member = this.#client.memberId > 0 ? this.#client.memberId : -1
    const response = await fetch('/dashboard/explain?' + new URLSearchParams({ member, app, action: op }))
    const e = await response.json()
    if (response.ok && !e.allowed) this.#write('rule', t('rule', e))
  }

  #write(kind, text) {
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8
    const line = document.createElement('p')
    line.className = kind
    const time = document.createElement('time')
    time.textContent = clock(new Date())
    const arrow = document.createElement('i')
    const way = kind.split(' ')[0]
    arrow.textContent = { sent: '→', received: '←', note: '·', rule: '⚑' }[way]
    if (way === 'sent' || way === 'received') {
      const word = document.createElement('span')
      word.className = 'unseen'
      word.textContent = t(way)
      arrow.append(word)
    }
    const code = document.createElement('code')
    code.textContent = text
    line.append(time, arrow, code)
    this.log.append(line)
    while (this.log.children.length > KEPT) this.log.firstElementChild.remove()
    if (atEnd) this.log.scrollTop = this.log.scrollHeight
  }
}
