// The charts, and the stream that feeds them.
import { t, onLanguage } from './words.js'
import { short, bytes, seconds, percent, span } from './format.js'
import { History, WINDOW, gauge, rate, quantile, sum } from './history.js'

const HEIGHT = 92
const AT_LEAST = 60 // seconds that a chart shows
const BINARY = Array.from({ length: 44 }, (_, i) => 2 ** i) // steps of axes of bytes
const perSecond = (n) => short(n) + t('perSecond')
const bytesPerSecond = (n) => bytes(n) + t('perSecond')

/** How much each counter of an object grew in a second. */
const rates = (of) => (s, before, dt) => {
  const grown = {}
  if (before) for (const key in of(s)) grown[key] = Math.max(0, of(s)[key] - (of(before)[key] ?? 0)) / dt
  return grown
}

// Each chart: its lines, how their numbers read, and the number beside its title: that of
// head, or of its first line. family is lines that come and go; the greatest three are shown.
const CHARTS = [
  {
    id: 'sessions', show: short, head: (s) => s.sessions.total,
    lines: [
      { id: 'members', value: gauge((s) => s.sessions.members) },
      { id: 'anonymous', value: gauge((s) => s.sessions.anonymous) },
      { id: 'pending', value: gauge((s) => s.sessions.pending) },
    ],
  },
  {
    id: 'subscriptions', show: short, lines: [{ id: 'all', value: gauge((s) => s.subscriptions) }],
    family: (s) => Object.fromEntries((s.apps ?? []).map((a) => [a.name, a.subscriptions])),
  },
  {
    id: 'pushes', show: perSecond,
    lines: [
      { id: 'accepted', value: rate((s) => s.pushes) },
      { id: 'notAccepted', value: rate((s) => sum(s.push_results, (r) => r !== 'accepted')) },
    ],
  },
  { id: 'deliveries', show: perSecond, lines: [{ id: 'delivered', value: rate((s) => s.deliveries) }] },
  {
    id: 'queue', show: seconds,
    lines: [
      { id: 'p50', value: quantile(0.5, (s) => s.queue_time) },
      { id: 'p99', value: quantile(0.99, (s) => s.queue_time) },
    ],
  },
  { id: 'written', show: bytesPerSecond, lines: [{ id: 'bytes', value: rate((s) => s.written_bytes) }] },
  {
    id: 'slow', show: perSecond,
    lines: [
      { id: 'kicked', value: rate((s) => s.sessions_closed['4008'] ?? 0) },
      { id: 'dropped', value: rate((s) => sum(s.slow_dropped)) },
    ],
  },
  {
    id: 'resumes', show: perSecond,
    lines: [
      { id: 'recovered', value: rate((s) => s.resumes.recovered) },
      { id: 'unrecovered', value: rate((s) => s.resumes.unrecovered) },
    ],
  },
  {
    id: 'refused', show: perSecond, lines: [{ id: 'all', value: rate((s) => sum(s.refused)) }],
    family: rates((s) => s.refused),
  },
  {
    id: 'memory', show: bytes,
    lines: [
      { id: 'rss', value: gauge((s) => s.process.rss_bytes) },
      { id: 'heap', value: gauge((s) => s.process.heap_bytes) },
    ],
  },
  { id: 'cpu', show: percent, lines: [{ id: 'used', value: rate((s) => 100 * s.process.cpu_seconds) }] },
  {
    id: 'process', show: short,
    lines: [
      { id: 'goroutines', value: gauge((s) => s.process.goroutines) },
      { id: 'files', value: gauge((s) => s.process.open_files) },
    ],
  },
]

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** The places of values without neighbours, which no line shows. */
function lonely(values) {
  const missing = (v) => v === null || v === undefined
  return values.flatMap((v, i) => (!missing(v) && missing(values[i - 1]) && missing(values[i + 1]) ? [i] : []))
}

/** One chart and its legend. */
class Chart {
  constructor(spec, history) {
    this.spec = spec
    this.history = history
    this.names = [] // of its lines, as shown
    const figure = document.querySelector('#chart').content.cloneNode(true).firstElementChild
    figure.dataset.chart = spec.id
    this.title = figure.querySelector('h3')
    this.head = figure.querySelector('output')
    this.legend = figure.querySelector('.legend')
    this.box = figure.querySelector('.plot')
    document.querySelector('#charts').append(figure)

    const count = spec.lines.length + (spec.family ? 3 : 0)
    const series = [{}]
    for (let i = 1; i <= count; i++) {
      const stroke = () => colour(`--c${i}`)
      series.push({ stroke, width: 1.5, points: { show: true, size: 3, fill: stroke, filter: (u) => lonely(u.data[i]) } })
    }
    const axis = { stroke: () => colour('--muted'), font: '10px system-ui', ticks: { show: false }, grid: { stroke: () => colour('--grid'), width: 1 } }
    this.plot = new uPlot({
      width: Math.max(100, this.box.clientWidth), height: HEIGHT, padding: [8, 14, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'live' }, y: false, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { range: (_, min, max) => [Math.max(max - WINDOW, Math.min(min, max - AT_LEAST)), max] },
        y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] },
      },
      axes: [
        { ...axis, size: 18, gap: 2, space: 60, values: (_, at, __, ___, step) => at.map((x) => new Date(x * 1000).toTimeString().slice(0, step < 60 ? 8 : 5)), incrs: [15, 60, 120, 300] },
        { ...axis, size: 44, gap: 4, space: 26, incrs: spec.show === bytes || spec.show === bytesPerSecond ? BINARY : undefined, values: (_, at) => at.map((v) => spec.show(v).replace(t('perSecond'), '')) },
      ],
      series,
      hooks: { setCursor: [() => this.tell()] },
    }, this.data(), this.box)
    new ResizeObserver(() => {
      if (this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: HEIGHT })
    }).observe(this.box)
  }

  data() {
    const lines = [...this.history.lines.get(this.spec.id)]
    this.names = this.spec.lines.map((l) => t(l.id))
    if (this.spec.family) {
      const top = this.history.families.get(this.spec.id).top(3)
      for (let i = 0; i < 3; i++) {
        this.names.push(top[i]?.[0])
        lines.push(top[i]?.[1] ?? this.history.time.map(() => null))
      }
    }
    return [this.history.time, ...lines]
  }

  draw() {
    this.plot.setData(this.data())
    this.tell()
  }

  /** Shows the numbers at the cursor, or else the newest. */
  tell() {
    if (!this.plot) return // uPlot calls its hooks while it is made
    const at = this.plot.cursor.idx ?? this.history.time.length - 1
    const show = (v) => (v === null || v === undefined ? '–' : this.spec.show(v))
    const newest = this.history.before
    const head = this.spec.head && newest ? this.spec.head(newest) : this.plot.data[1][this.history.time.length - 1]
    this.title.textContent = t(this.spec.id)
    this.head.textContent = show(head)
    const shown = this.names.map((name, i) => [name, this.plot.data[i + 1][at]]).filter(([name]) => name !== undefined)
    while (this.legend.children.length > shown.length) this.legend.lastElementChild.remove()
    shown.forEach(([name, value], i) => {
      let item = this.legend.children[i]
      if (!item) {
        item = document.createElement('li')
        item.append(document.createElement('span'), document.createElement('b'))
        this.legend.append(item)
      }
      item.firstElementChild.textContent = name
      item.lastElementChild.textContent = show(value)
    })
  }
}

/** Shows the stream of snapshots for as long as the page is open. */
export function startLive() {
  const history = new History(CHARTS)
  const charts = CHARTS.map((spec) => new Chart(spec, history))
  const link = document.querySelector('#link')
  const node = document.querySelector('#node')
  const draw = () => { for (const c of charts) c.draw() }

  const tell = (state) => {
    if (link.dataset.state !== state || !link.textContent) link.textContent = t(state)
    link.dataset.state = state
  }
  const describe = () => {
    const s = history.before
    if (s) node.textContent = t('up', s.version ? `${s.node} · ${s.version}` : s.node, span(s.uptime_seconds))
  }
  const open = () => {
    const stream = new EventSource('/stat/stream')
    stream.onmessage = (e) => {
      history.add(JSON.parse(e.data))
      tell('live')
      describe()
      if (!document.hidden) draw()
    }
    stream.onerror = () => {
      tell('lost')
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, 3000) // it was answered, but not with a stream
    }
  }
  open()

  onLanguage(() => {
    link.textContent = t(link.dataset.state)
    describe()
    draw()
  })
  document.addEventListener('visibilitychange', () => { if (!document.hidden) draw() })
  return { redraw: () => { for (const c of charts) c.plot.redraw() } }
}
