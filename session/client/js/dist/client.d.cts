/** Everything here is also in the global WSGateway of the script /client.js. */
export as namespace WSGateway

/** A place in an app's log. */
export interface Position {
  epoch: string
  offset: number
}

/** One push. */
export interface Message {
  app: string
  /** -1: for everybody who is subscribed; else for this member only. */
  memberId: number
  text: string
  /** The member who pushed it; undefined: a backend. */
  from?: number
  /** Undefined for a subscription without positions, and for the first ones of `last`. */
  position?: Position
}

/** What the gateway refused. */
export class GatewayError extends Error {
  /** As in HTTP; 4000 and above is a close code; 0: there was no link, or it was lost before the answer. */
  readonly code: number
  constructor(code: number, message: string)
}

export interface ClientOptions {
  /** Who this is; -1, the default, is anonymous. */
  memberId?: number
  /** The proof of it. A function is asked at every connect, and when the token is about to expire. */
  token?: string | (() => string | Promise<string>)
  /** False: only `connect()` connects. */
  connect?: boolean
  /** The class to use where there is no global one (Node before 22: that of the package ws). */
  WebSocket?: new (url: string) => object
  /** Shortest wait before it comes back, in ms; 500. */
  minBackoff?: number
  /** Longest wait, in ms; 20 000. */
  maxBackoff?: number
  /** How long a connect and an answer may take, in ms; 10 000. */
  timeout?: number
  /** How long nothing may come before a sign of life is asked for, in ms; 25 000. */
  silence?: number
}

export type ClientState =
  | { state: 'connecting'; attempt: number }
  | { state: 'connected'; memberId: number }
  | {
      state: 'disconnected'
      /** The close code: the gateway's, 1000 after `close()`, 1006 for a lost link, 4012 for one without an answer; 0: there was no token, or no URL to open. */
      code: number
      reason: string
      /** Whether it comes back by itself. */
      reconnect: boolean
      /** When it does: in so many ms. */
      delay?: number
    }

export interface ClientEvents {
  state: ClientState
  /** A token was refused (401: the client is anonymous from now on), or its callback failed. */
  error: unknown
  /** The token expires in less than 30 s. A callback is asked for a new one; else use `authenticate`. */
  expiring: undefined
  /** A frame as it crossed the socket, tokens and all. */
  frame: { sent: boolean; data: string }
}

/** A link to a gateway that comes back by itself and goes on where it was. */
export class Client {
  readonly url: string
  readonly state: ClientState['state']
  /** Who the gateway takes this for; -1: anonymous. */
  readonly memberId: number

  /** Connects at once. Without a URL: to the gateway that this script came from. */
  constructor(url?: string | URL, options?: ClientOptions)

  /** Returns what ends this. */
  on<K extends keyof ClientEvents>(event: K, handler: (event: ClientEvents[K]) => void): () => void

  /** Connects, and stays connected until `close()` or a close code that says not to come back. */
  connect(): void

  /** Disconnects. Subscriptions go on at the next `connect()`; iterators end. */
  close(): void

  /**
   * Subscribes to an app, now and after every connect. For an app that has a subscription it
   * returns that one, which ends when `unsubscribe()` was called as often as this.
   */
  subscribe(app: string, options?: SubscribeOptions): Subscription

  /** Pushes text to everybody subscribed to app, where the app's rules allow it. */
  push(app: string, text: string): Promise<Reply>

  /** Who is subscribed to app, where its rules have presence. */
  presence(app: string): Promise<Presence>

  ping(): Promise<Reply>

  /** An anonymous client becomes a member, or a member renews the token: now, and at every later connect. */
  authenticate(memberId: number, token: ClientOptions['token']): Promise<void>

  /**
   * Sends a command of the protocol. Waits up to `timeout` for the link; rejects with a
   * GatewayError. With its code 0 the command may have been carried out or not.
   */
  request(command: object): Promise<Reply>
}

export interface Reply {
  code: number
  message: string
  [key: string]: unknown
}

export interface Presence {
  members: { memberId: number; connections: number }[]
  anonymous: number
}

export interface SubscribeOptions {
  /** Where to go on, as `subscription.position` was; false: without positions, so that nothing is sent again. */
  position?: Position | false | null
  /** How many of the newest messages to get first, where there is no position to go on from. */
  last?: number
  /** Whether to be told who joins and leaves. */
  events?: boolean
}

export type SubscriptionState =
  | { state: 'subscribing' }
  | { state: 'subscribed'; recovered?: boolean }
  | { state: 'unsubscribed'; code: number; reason: string }

export interface SubscriptionEvents {
  state: SubscriptionState
  message: Message
  /** Messages may be missing before the next one, because the log did not reach back far enough: load the state anew. */
  missed: { position: Position }
  /** The gateway refused the subscription, or took it away. */
  error: GatewayError
  join: { memberId: number }
  leave: { memberId: number }
}

/** Each message of an app, once and in order, over reconnects too. */
export class Subscription implements AsyncIterable<Message> {
  private constructor()
  readonly app: string
  readonly state: SubscriptionState['state']
  /** Where it is: an option of a later `subscribe` to go on behind it. Null before the first answer, and without positions. */
  readonly position: Position | null

  /** Returns what ends this. */
  on<K extends keyof SubscriptionEvents>(event: K, handler: (event: SubscriptionEvents[K]) => void): () => void

  unsubscribe(): void

  /**
   * Messages from now on; any number may iterate. Ends with the subscription and with
   * `client.close()`; throws a GatewayError when the gateway refuses, ends the client, or
   * when 10 000 messages wait (4008).
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>
}
