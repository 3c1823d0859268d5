// Numbers for people, in the page's language.
import { language } from './words.js'

const formats = new Map()

function number(options) {
  const key = language + JSON.stringify(options)
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language === 'zh' ? 'zh-CN' : 'en', options))
  return formats.get(key)
}

/** A number in full, with separators. */
export const whole = (n) => number({ maximumFractionDigits: 0 }).format(n)

/** A number that is short: 12.3K. */
export function short(n) {
  if (n !== 0 && Math.abs(n) < 10 && !Number.isInteger(n)) return number({ maximumFractionDigits: 2 }).format(n)
  return number({ notation: n < 10_000 ? 'standard' : 'compact', maximumFractionDigits: 1 }).format(n)
}

/** Bytes, in KiB and so on. */
export function bytes(n) {
  let unit = 0
  for (; n >= 1024 && unit < 4; unit++) n /= 1024
  return number({ maximumFractionDigits: n < 10 ? 1 : 0 }).format(n) + ' ' + ['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]
}

/** Seconds, in the unit that suits. */
export function seconds(s) {
  if (s === 0) return '0 ms'
  const [value, unit] = s < 1e-3 ? [s * 1e6, 'µs'] : s < 1 ? [s * 1e3, 'ms'] : [s, 's']
  return number({ maximumSignificantDigits: 3 }).format(value) + ' ' + unit
}

export const percent = (n) => number({ maximumFractionDigits: n < 10 ? 1 : 0 }).format(n) + ' %'

/** How long something runs: 3 d 4 h, or 4:05. */
export function span(s) {
  s = Math.floor(s)
  const two = (n) => String(n).padStart(2, '0')
  const d = Math.floor(s / 86400)
  const clock = `${Math.floor(s / 3600) % 24}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
  return d ? `${d} d ${clock}` : clock
}

/** The time of day with milliseconds. */
export function clock(date) {
  return date.toTimeString().slice(0, 8) + '.' + String(date.getMilliseconds()).padStart(3, '0')
}
