// The table of apps. Only the rows in sight exist, so that ten thousand cost what thirty do.
import { t, onLanguage } from './words.js'
import { whole, short, bytes } from './format.js'

const ROW = 28 // px, as in style.css
const MARGIN = 8 // rows above and below those in sight
const EVERY = 2000 // ms between looks at all apps

const COLUMNS = [
  { id: 'name', of: (a) => a.name },
  { id: 'subs', of: (a) => a.subscriptions, show: whole },
  { id: 'memberCount', of: (a) => a.members, show: whole },
  { id: 'pushRate', of: (a) => a.rate, show: short },
  { id: 'pushCount', of: (a) => a.pushes, show: whole },
  { id: 'deliveryCount', of: (a) => a.deliveries, show: whole },
  { id: 'logMessages', of: (a) => a.log.messages, show: whole },
  { id: 'logBytes', of: (a) => a.log.bytes, show: bytes },
]

/** Shows all apps, and looks at them again while they are in sight. */
export function startApps() {
  const box = document.querySelector('#rows')
  const table = box.querySelector('table')
  const body = table.tBodies[0]
  const filter = document.querySelector('#filter')
  const found = document.querySelector('#found')
  let all = []
  let shown = []
  let sort = { column: COLUMNS[1], down: true }
  let before = null // pushes by name at the last look, and when that was

  const heads = COLUMNS.map((column) => {
    const th = document.createElement('th')
    th.scope = 'col'
    const button = document.createElement('button')
    button.type = 'button'
    button.onclick = () => {
      const down = sort.column === column ? !sort.down : column.id !== 'name'
      sort = { column, down }
      select()
    }
    th.append(button)
    table.tHead.rows[0].append(th)
    return { column, th, button }
  })

  /** Picks and sorts what is shown. */
  function select() {
    const text = filter.value.trim().toLowerCase()
    shown = text ? all.filter((a) => a.name.toLowerCase().includes(text)) : all.slice()
    const { of } = sort.column
    const sign = sort.down ? -1 : 1
    shown.sort((a, b) => {
      const x = of(a)
      const y = of(b)
      if (x !== y) return x < y ? -sign : sign
      return a.name < b.name ? -1 : 1
    })
    for (const { column, th } of heads) {
      if (column === sort.column) th.setAttribute('aria-sort', sort.down ? 'descending' : 'ascending')
      else th.removeAttribute('aria-sort')
    }
    table.setAttribute('aria-rowcount', shown.length + 1)
    found.textContent = t('found', shown.length, all.length)
    draw()
  }

  function gap(rows) {
    const tr = document.createElement('tr')
    tr.className = 'gap'
    tr.setAttribute('aria-hidden', 'true')
    tr.style.height = rows * ROW + 'px'
    const td = document.createElement('td')
    td.colSpan = COLUMNS.length
    tr.append(td)
    return tr
  }

  /** Makes the rows in sight. */
  function draw() {
    const first = Math.max(0, Math.min(Math.floor(box.scrollTop / ROW) - MARGIN, shown.length))
    const last = Math.min(shown.length, first + Math.ceil(box.clientHeight / ROW) + 2 * MARGIN)
    const rows = []
    if (first > 0) rows.push(gap(first))
    for (let i = first; i < last; i++) {
      const tr = document.createElement('tr')
      tr.setAttribute('aria-rowindex', i + 2)
      for (const { of, show } of COLUMNS) {
        const cell = document.createElement(show ? 'td' : 'th')
        if (!show) {
          cell.scope = 'row'
          cell.title = of(shown[i])
        }
        cell.textContent = show ? show(of(shown[i])) : of(shown[i])
        tr.append(cell)
      }
      rows.push(tr)
    }
    if (last < shown.length) rows.push(gap(shown.length - last))
    body.replaceChildren(...rows)
  }

  async function look() {
    const response = await fetch('/stat', { headers: { Accept: 'application/json' } })
    if (!response.ok) return
    const s = await response.json()
    const now = { at: s.uptime_seconds, pushes: new Map() }
    for (const a of s.apps) {
      const then = before?.pushes.get(a.name)
      const grown = then !== undefined && now.at > before.at ? a.pushes - then : 0
      a.rate = grown > 0 ? grown / (now.at - before.at) : 0
      now.pushes.set(a.name, a.pushes)
    }
    before = now
    all = s.apps
    select()
  }

  let inSight = false
  let looking = false
  async function keepLooking() {
    if (looking) return
    looking = true
    while (inSight && !document.hidden) {
      const start = performance.now()
      try {
        await look()
      } catch { /* it does not answer: the stream says so, and the numbers stay */ }
      const took = performance.now() - start
      await new Promise((resolve) => setTimeout(resolve, Math.max(EVERY, 10 * took)))
    }
    looking = false
  }
  new IntersectionObserver((entries) => {
    inSight = entries.at(-1).isIntersecting
    keepLooking()
  }).observe(box)
  document.addEventListener('visibilitychange', keepLooking)

  filter.addEventListener('input', () => {
    box.scrollTop = 0
    select()
  })
  let drawing = false
  box.addEventListener('scroll', () => {
    if (drawing) return
    drawing = true
    requestAnimationFrame(() => {
      drawing = false
      draw()
    })
  })
  new ResizeObserver(draw).observe(box)
  onLanguage(() => {
    for (const { column, button } of heads) button.textContent = t(column.id)
    select()
  })
}
