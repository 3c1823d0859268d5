// The last ten minutes of snapshots, as the lines of charts.

/** How many seconds are kept. */
export const WINDOW = 600

const MOST = 300 // lines of a family, beside those of the newest snapshot

/** A line that shows a number as it is. */
export const gauge = (of) => (s) => of(s)

/** A line that shows by how much a counter grows in a second. */
export const rate = (of) => (s, before, dt) => (before ? Math.max(0, of(s) - of(before)) / dt : null)

/** A line that shows the q-quantile of the durations of the last second; nothing if there were none. */
export const quantile = (q, of) => (s, before) => {
  if (!before) return null
  const now = of(s)
  const then = of(before)
  const total = now.count - then.count
  if (total <= 0) return null
  let low = 0
  let below = 0
  for (let i = 0; i < (now.buckets?.length ?? 0); i++) {
    const upTo = now.buckets[i].count - (then.buckets?.[i]?.count ?? 0)
    if (upTo >= q * total) {
      return low + (now.buckets[i].le - low) * ((q * total - below) / Math.max(1, upTo - below))
    }
    low = now.buckets[i].le
    below = upTo
  }
  return low
}

/** The sum of the values of an object, or of those that pick names. */
export function sum(values, pick = () => true) {
  let total = 0
  for (const key in values) if (pick(key)) total += values[key]
  return total
}

/** Lines whose names come and go, such as apps: all of them are kept, the greatest are shown. */
class Family {
  constructor(values) {
    this.values = values // (snapshot, before, dt) -> {name: number}
    this.lines = new Map()
  }

  add(length, s, before, dt) {
    const values = this.values(s, before, dt)
    for (const name in values) {
      if (!this.lines.has(name)) this.lines.set(name, new Array(length).fill(null))
    }
    for (const [name, line] of this.lines) {
      if (this.lines.size > MOST && !(name in values)) this.lines.delete(name)
      else line.push(values[name] ?? null)
    }
  }

  shift() {
    for (const [name, line] of this.lines) {
      line.shift()
      if (line.every((v) => v === null)) this.lines.delete(name)
    }
  }

  /** The n lines with the greatest sums, as [name, values]. */
  top(n) {
    const sums = [...this.lines].map(([name, line]) => [line.reduce((a, b) => a + b, 0), name, line])
    sums.sort((a, b) => b[0] - a[0] || (a[1] < b[1] ? -1 : 1))
    return sums.slice(0, n).filter((x) => x[0] > 0).map(([, name, line]) => [name, line])
  }
}

/** All lines of all charts, which share their times. */
export class History {
  constructor(charts) {
    this.time = [] // Unix seconds
    this.lines = new Map() // the lines of each chart
    this.families = new Map() // the family of each chart that has one
    this.charts = charts
    this.before = null
    for (const c of charts) {
      this.lines.set(c.id, c.lines.map(() => []))
      if (c.family) this.families.set(c.id, new Family(c.family))
    }
  }

  /** Adds a snapshot, and forgets what is too old. */
  add(s) {
    const now = Date.parse(s.time) / 1000
    let before = this.before
    if (before && s.uptime_seconds < before.uptime_seconds) before = null // it was restarted: counters start again
    const then = this.time.at(-1)
    if (then !== undefined && now <= then) return
    const dt = before ? s.uptime_seconds - before.uptime_seconds : 1
    if (then !== undefined && now - then > 3) this.push(then + 1, () => null, {}) // a hole, not a slope
    this.push(now, (line) => line(s, before, dt), s, before, dt)
    this.before = s
    while (this.time[0] < now - WINDOW) {
      this.time.shift()
      for (const lines of this.lines.values()) for (const line of lines) line.shift()
      for (const family of this.families.values()) family.shift()
    }
  }

  push(time, value, s, before, dt) {
    for (const c of this.charts) {
      this.lines.get(c.id).forEach((line, i) => line.push(value(c.lines[i].value)))
      this.families.get(c.id)?.add(this.time.length, s, before, dt)
    }
    this.time.push(time)
  }
}
