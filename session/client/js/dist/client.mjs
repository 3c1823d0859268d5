// src/backoff.js
function advice(code) {
  if (code >= 4500 || [1e3, 1002, 1003, 1007, 1009].includes(code)) return "stop";
  return code === 1013 || code === 4013 ? "later" : "back";
}
var CONGESTED = 3;
var backoff = (n, min, max) => Math.min(max, min + Math.random() * Math.min(max, min * 2 ** n));

// src/emitter.js
var Emitter = class {
  #handlers = /* @__PURE__ */ new Map();
  // name -> Set
  /** Calls handler on every event of that name, and returns what ends this. */
  on(name, handler) {
    const call = (event) => handler(event);
    const calls = this.#handlers.get(name) ?? /* @__PURE__ */ new Set();
    this.#handlers.set(name, calls.add(call));
    return () => calls.delete(call);
  }
  emit(name, event) {
    const calls = this.#handlers.get(name);
    if (name === "error" && !calls?.size) console.warn("ws-gateway:", event);
    for (const call of [...calls ?? []]) {
      try {
        call(event);
      } catch (err) {
        setTimeout(() => {
          throw err;
        });
      }
    }
  }
};

// src/error.js
var GatewayError = class extends Error {
  name = "GatewayError";
  constructor(code, message) {
    super(message);
    this.code = code;
  }
};

// src/link.js
var lost = () => new GatewayError(0, "connection lost");
var HURRY = 3e3;
var Link = class {
  #ws;
  #on;
  #timeout;
  #calls = /* @__PURE__ */ new Map();
  // id -> { answered, timer }
  #id = 0;
  #heard;
  // when the last frame came
  #patience;
  // ends a link that is not ready in time
  #watch;
  // asks a silent one for a sign of life
  /** on: { open(), frame(sent, data), message(m), reply(r), end(code, reason) }. */
  constructor(WebSocket, url, timeout, on) {
    const ws = this.#ws = new WebSocket(url);
    this.#on = on;
    this.#timeout = timeout;
    this.#patience = setTimeout(() => this.end(1006, "no connection"), timeout);
    ws.onopen = () => on.open();
    ws.onmessage = ({ data }) => this.#receive(data);
    ws.onclose = ({ code, reason }) => this.end(code, reason);
    ws.onerror = () => setTimeout(() => this.end(1006, "connection failed"));
  }
  /** Notes that the gateway knows who this is; from now on silence is looked into. */
  ready(silence) {
    clearTimeout(this.#patience);
    this.#watch = setInterval(() => {
      if (Date.now() - this.#heard >= silence) this.probe();
    }, silence);
  }
  /** Asks for a sign of life; a link without one ends. */
  probe() {
    this.ask({ op: "ping" }, () => {
    }, Math.min(HURRY, this.#timeout));
  }
  /** Sends command. answered(error, reply) is called before anything that follows the reply is looked at. */
  ask(command, answered, timeout = this.#timeout) {
    if (!this.#on) return answered(lost());
    const id = ++this.#id;
    const timer = setTimeout(() => this.end(4012, "no answer"), timeout);
    this.#calls.set(id, { answered, timer });
    const data = JSON.stringify({ ...command, id });
    this.#ws.send(data);
    this.#on.frame(true, data);
  }
  /** Ends the link, once. */
  end(code, reason) {
    const on = this.#on;
    if (!on) return;
    this.#on = null;
    clearTimeout(this.#patience);
    clearInterval(this.#watch);
    const ws = this.#ws;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.close(1e3);
    on.end(code, reason);
    for (const { answered, timer } of this.#calls.values()) {
      clearTimeout(timer);
      answered(lost());
    }
  }
  #receive(data) {
    this.#heard = Date.now();
    this.#on.frame(false, data);
    if (!this.#on) return;
    let message, reply;
    try {
      message = JSON.parse(data);
      if (message.app === "gateway") reply = JSON.parse(message.text);
    } catch {
      return this.end(1006, "not a gateway");
    }
    if (!reply) return this.#on.message(message);
    const call = this.#calls.get(reply.id);
    if (!call) return this.#on.reply(reply);
    this.#calls.delete(reply.id);
    clearTimeout(call.timer);
    const refused = reply.code >= 400 || / forbidden$/.test(reply.message);
    call.answered(refused && new GatewayError(reply.code < 400 ? 403 : reply.code, reply.message), reply);
  }
};

// src/cursor.js
var Cursor = class {
  #base;
  // offset where this began
  #seen;
  // offset of the last message of each chain since
  constructor({ epoch, offset }) {
    this.position = { epoch, offset };
    this.#base = offset;
    this.#seen = { public: 0, private: 0 };
  }
  /** Whether message is behind this place: it was taken, or is of before. */
  has(message) {
    return message.offset <= this.#last(message);
  }
  /** Moves behind message, and returns "new" or "old"; or moves back to where a gap begins and returns "gap". */
  take(message) {
    const last = this.#last(message);
    const isNew = message.offset > last;
    const gap = isNew && message.prev > last;
    this.position = { epoch: this.position.epoch, offset: gap ? last : message.offset };
    if (gap) return "gap";
    if (isNew) this.#seen[chain(message)] = message.offset;
    return isNew ? "new" : "old";
  }
  #last(message) {
    return Math.max(this.#base, this.#seen[chain(message)]);
  }
};
var chain = ({ member_id: memberId }) => memberId > 0 ? "private" : "public";

// src/subscription.js
var QUEUED = 1e4;
var Subscription = class extends Emitter {
  #client;
  #options;
  #cursor;
  // null before the first position, or without positions
  #started = false;
  // was subscribed once
  #broken;
  // there is something before the next message that must not be missed
  #asking = false;
  // a subscribe is not answered yet
  #held = /* @__PURE__ */ new Map();
  // offset -> message behind a gap, until the gateway says whether it can fill it
  #iterators = /* @__PURE__ */ new Set();
  constructor(client, app, options) {
    super();
    this.#client = client;
    this.#options = options;
    this.#cursor = options.position ? new Cursor(options.position) : null;
    this.#broken = !!options.position;
    this.app = app;
    this.users = 1;
    this.state = "subscribing";
  }
  /** Where the last message was: an option of a later subscribe, to go on behind it. */
  get position() {
    return this.#cursor?.position ?? null;
  }
  unsubscribe() {
    this.#client.unsubscribe(this);
  }
  /** Messages as they come. Ends with the subscription, and throws if that was refused. */
  [Symbol.asyncIterator]() {
    const queue = [];
    const waiting = [];
    const over = { value: void 0, done: true };
    let end = null;
    const iterator = {
      message: (value) => {
        if (waiting.length) waiting.shift().resolve({ value, done: false });
        else if (queue.push(value) === QUEUED) iterator.end(new GatewayError(4008, "slow iterator"));
      },
      end: (error) => {
        this.#iterators.delete(iterator);
        end = { error };
        for (const { resolve, reject } of waiting.splice(0)) error ? reject(error) : resolve(over);
      }
    };
    this.#iterators.add(iterator);
    if (this.state === "unsubscribed") iterator.end();
    return {
      next: async () => {
        if (queue.length) return { value: queue.shift(), done: false };
        if (!end) return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
        const { error } = end;
        end = {};
        if (error) throw error;
        return over;
      },
      return: async () => {
        queue.length = 0;
        iterator.end();
        return over;
      },
      [Symbol.asyncIterator]() {
        return this;
      }
    };
  }
  // What follows is for Client.
  /** The commands that subscribe, or go on from where this is. */
  commands() {
    const { position, last, events } = this.#options;
    this.#asking = true;
    const command = { app: this.app, ...events && { events } };
    const at = position === false ? command : { ...command, position: this.position };
    return last && !this.#started && !this.#cursor ? [{ ...command, last }, at] : [at];
  }
  /** Notes that the gateway has agreed. */
  accepted({ position, recovered }) {
    const missed = this.#broken && position && !recovered;
    const held = [...this.#held.values()];
    this.#held.clear();
    this.#asking = false;
    this.#started = true;
    if (position && !recovered) this.#cursor = new Cursor(position);
    if (position) this.#broken = false;
    this.#change("subscribed", { recovered });
    if (!missed) return;
    this.emit("missed", { position });
    held.forEach((m) => this.#deliver(m));
  }
  receive(message) {
    if (this.#asking) {
      if (this.#held.size) this.#hold(message);
      return;
    }
    const what = message.offset > 0 && this.#cursor ? this.#cursor.take(message) : "new";
    if (what === "new") this.#deliver(this.#read(message));
    if (what === "gap") {
      this.#broken = true;
      this.#hold(message);
      this.#client.resume(this);
    }
  }
  /** Notes that the link is gone. */
  interrupted() {
    this.#asking = false;
    if (this.#started) this.#broken = true;
    this.#change("subscribing");
  }
  /** Ends the iterators: nothing more comes. */
  stopped(error) {
    for (const iterator of [...this.#iterators]) iterator.end(error);
  }
  /** Ends this; error says why, if it was refused. */
  ended(code, reason, error) {
    this.#change("unsubscribed", { code, reason });
    this.stopped(error);
    if (error) this.emit("error", error);
  }
  #hold(message) {
    if (this.#held.size < QUEUED && !this.#cursor.has(message)) this.#held.set(message.offset, this.#read(message));
  }
  #read({ app, member_id: memberId, text, from, offset }) {
    return { app, memberId, text, from, position: offset && { epoch: this.position.epoch, offset } };
  }
  #deliver(message) {
    this.emit("message", message);
    for (const iterator of [...this.#iterators]) iterator.message(message);
  }
  #change(state, detail) {
    if (this.state === state) return;
    this.state = state;
    this.emit("state", { state, ...detail });
  }
};

// src/client.js
var home = globalThis.document?.currentScript?.src;
var Client = class extends Emitter {
  #options;
  #subs = /* @__PURE__ */ new Map();
  // app -> Subscription
  #wanted = false;
  // between connect and close
  #turn = 0;
  // number of the attempt; what belongs to an earlier one is void
  #attempt = 0;
  // since the last success
  #timer = null;
  // of the next attempt
  #link = null;
  constructor(url = home && new URL(".", home), {
    memberId = -1,
    token = "",
    connect = true,
    WebSocket = globalThis.WebSocket,
    minBackoff = 500,
    maxBackoff = 2e4,
    timeout = 1e4,
    silence = 25e3
    // ms
  } = {}) {
    super();
    if (!url) throw new TypeError("no URL of a gateway");
    if (!WebSocket) throw new TypeError("no WebSocket here: pass one in the options");
    this.#options = { memberId, token, WebSocket, minBackoff, maxBackoff, timeout, silence };
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.state = "disconnected";
    this.memberId = -1;
    if (connect) this.connect();
  }
  connect() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempt = 0;
    this.#listen("addEventListener");
    this.#wait(0);
  }
  close() {
    if (!this.#wanted) return;
    this.#wanted = false;
    if (this.#link) this.#link.end(1e3, "closed by the client");
    else this.#ended(1e3, "closed by the client");
  }
  subscribe(app, options = {}) {
    let sub = this.#subs.get(app);
    if (sub) {
      sub.users++;
      return sub;
    }
    sub = new Subscription(this, app, options);
    this.#subs.set(app, sub);
    this.#subscribe(sub);
    return sub;
  }
  push(app, text) {
    return this.request({ op: "push", app, text });
  }
  async presence(app) {
    const { members, anonymous } = await this.request({ op: "presence", app });
    return { members: members.map((m) => ({ memberId: m.member_id, connections: m.connections })), anonymous };
  }
  ping() {
    return this.request({ op: "ping" });
  }
  /** Sends command when there is a link, and returns its reply. */
  async request(command) {
    const link = await this.#connected();
    return new Promise((resolve, reject) => link.ask(command, (err, reply) => err ? reject(err) : resolve(reply)));
  }
  async authenticate(memberId, token) {
    const before = this.#options;
    this.#options = { ...before, memberId, token };
    if (this.state !== "connected") return;
    try {
      await this.#renew();
    } catch (err) {
      if (err.code) this.#options = before;
      throw err;
    }
  }
  // What follows is for Subscription.
  unsubscribe(sub) {
    if (this.#subs.get(sub.app) !== sub || --sub.users > 0) return;
    if (this.state === "connected") this.#link.ask({ op: "unsubscribe", app: sub.app }, () => {
    });
    this.#drop(sub, 1e3, "closed by the client");
  }
  /** Has what sub misses sent again. */
  resume(sub) {
    this.#subscribe(sub);
  }
  #change(state, detail) {
    this.state = state;
    this.emit("state", { state, ...detail });
  }
  #listen(method) {
    for (const event of ["online", "offline", "visibilitychange"]) globalThis[method]?.(event, this.#wake);
  }
  // The network changed, or somebody looks at the page again: timers may have slept.
  #wake = () => {
    if (this.state === "connected") this.#link.probe();
    else if (this.#timer && globalThis.navigator?.onLine !== false) {
      this.#attempt = 0;
      this.#wait(0);
    }
  };
  #wait(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), delay);
  }
  async #open() {
    const turn = ++this.#turn;
    this.#timer = null;
    this.#change("connecting", { attempt: this.#attempt });
    let auth;
    try {
      auth = await this.#auth();
    } catch (err) {
      if (turn !== this.#turn) return;
      this.#ended(0, "no token");
      this.emit("error", err);
      return;
    }
    if (turn !== this.#turn) return;
    const { WebSocket, timeout } = this.#options;
    try {
      const link = this.#link = new Link(WebSocket, this.url, timeout, {
        open: () => link.ask(auth, (err) => this.#welcome(link, auth, err)),
        frame: (sent, data) => this.emit("frame", { sent, data }),
        message: (message) => this.#subs.get(message.app)?.receive(message),
        reply: (reply) => this.#reply(reply),
        end: (code, reason) => this.#ended(code, reason)
      });
    } catch (err) {
      this.#wanted = false;
      this.#ended(0, String(err));
    }
  }
  /** Returns the auth message. */
  async #auth() {
    const { memberId, token, timeout } = this.#options;
    if (!(memberId > 0)) return { member_id: -1, token: "" };
    if (typeof token !== "function") return { member_id: memberId, token };
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(reject, timeout, new Error("the token callback does not answer"));
    });
    try {
      return { member_id: memberId, token: await Promise.race([token(), late]) };
    } finally {
      clearTimeout(timer);
    }
  }
  /** Handles the answer to the auth message. */
  #welcome(link, auth, err) {
    if (err && err.code !== 401) return;
    this.#attempt = 0;
    link.ready(this.#options.silence);
    const before = [...this.#subs.values()];
    this.#authenticated(err ? -1 : auth.member_id);
    for (const sub of before) if (this.#subs.get(sub.app) === sub) this.#subscribe(sub);
    if (err) this.emit("error", err);
  }
  #authenticated(memberId) {
    this.memberId = memberId;
    this.#change("connected", { memberId });
  }
  /** Proves again who this is, over the link that is there. */
  async #renew() {
    const auth = await this.#auth();
    await this.request(auth);
    if (this.memberId !== auth.member_id) this.#authenticated(auth.member_id);
  }
  #subscribe(sub) {
    const link = this.#link;
    if (this.state !== "connected") return;
    for (const command of sub.commands()) {
      link.ask(command, (err, reply) => {
        if (this.#subs.get(sub.app) !== sub) return;
        if (!err) sub.accepted(reply);
        else if (err.code >= 500 || err.code === 429) link.end(1013, err.message);
        else if (err.code) this.#drop(sub, err.code, err.message, err);
      });
    }
  }
  #drop(sub, code, reason, error) {
    this.#subs.delete(sub.app);
    sub.ended(code, reason, error);
  }
  /** Handles a reply that no command asked for. */
  #reply({ code, message }) {
    const [verb, app, rest] = String(message).split(" ");
    const sub = this.#subs.get(app);
    if (message === "token expiring") {
      this.emit("expiring");
      if (typeof this.#options.token === "function") this.#renew().catch((err) => this.emit("error", err));
    } else if (sub && (verb === "join" || verb === "leave")) {
      sub.emit(verb, { memberId: Number(rest) });
    } else if (sub && verb === "unsubscribe") {
      this.#drop(sub, code, message);
    } else if (sub && rest === "forbidden") {
      this.#drop(sub, 403, message, new GatewayError(403, message));
    }
  }
  /** The link, once there is one that is ready. */
  #connected() {
    if (this.state === "connected") return this.#link;
    return new Promise((resolve, reject) => {
      const off = this.on("state", ({ state, reconnect }) => {
        if (state === "connected") done(resolve, this.#link);
        else if (reconnect === false) fail();
      });
      const done = (settle, value) => {
        off();
        clearTimeout(timer);
        settle(value);
      };
      const fail = () => done(reject, new GatewayError(0, "not connected"));
      const timer = setTimeout(fail, this.#wanted ? this.#options.timeout : 0);
    });
  }
  /** Handles the end of a link, or of an attempt to have one. */
  #ended(code, reason) {
    const what = advice(code);
    const { minBackoff, maxBackoff } = this.#options;
    let delay;
    this.#turn++;
    this.#link = null;
    clearTimeout(this.#timer);
    this.#timer = null;
    if (what === "stop") this.#wanted = false;
    if (what === "later") this.#attempt = Math.max(this.#attempt, CONGESTED);
    const reconnect = this.#wanted;
    if (reconnect) {
      const offline = globalThis.navigator?.onLine === false;
      this.#wait(delay = offline ? maxBackoff : backoff(this.#attempt++, minBackoff, maxBackoff));
    } else this.#listen("removeEventListener");
    this.#change("disconnected", { code, reason, reconnect, delay });
    for (const sub of [...this.#subs.values()]) {
      sub.interrupted();
      if (!reconnect) sub.stopped(code !== 1e3 && new GatewayError(code, reason));
    }
  }
};
export {
  Client,
  GatewayError
};
