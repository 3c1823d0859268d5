/**
 * A place in an app's log. It tells messages that are new from duplicates and from those
 * behind a gap.
 *
 * The log is one order, but a subscriber sees two chains of it: the public messages and its
 * own private ones. Each message names the one before it in its chain.
 */
export class Cursor {
  #base // offset where this began
  #seen // offset of the last message of each chain since

  constructor({ epoch, offset }) {
    this.position = { epoch, offset } // nothing up to here is missing
    this.#base = offset
    this.#seen = { public: 0, private: 0 }
  }

  /** Whether message is behind this place: it was taken, or is of before. */
  has(message) { return message.offset <= this.#last(message) }

  /** Moves behind message, and returns "new" or "old"; or moves back to where a gap begins and returns "gap". */
  take(message) {
    const last = this.#last(message)
    const isNew = message.offset > last
    const gap = isNew && message.prev > last
    this.position = { epoch: this.position.epoch, offset: gap ? last : message.offset }
    if (gap) return 'gap'
    if (isNew) this.#seen[chain(message)] = message.offset
    return isNew ? 'new' : 'old'
  }

  #last(message) { return Math.max(this.#base, this.#seen[chain(message)]) }
}

const chain = ({ member_id: memberId }) => memberId > 0 ? 'private' : 'public'
