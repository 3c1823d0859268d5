// Where the page starts.
import { setLanguage } from './words.js'
import { startLive } from './live.js'
import { startApps } from './apps.js'
import { startPush } from './push.js'
import { Pane } from './pane.js'

/** What the visitor chose, as long as the browser remembers. */
const memory = {
  get(key) { try { return localStorage.getItem(key) } catch { return null } },
  set(key, value) { try { localStorage.setItem(key, value) } catch { /* storage is off */ } },
}

const language = document.querySelector('#language')
language.value = memory.get('language') ?? (navigator.language.startsWith('zh') ? 'zh' : 'en')
language.onchange = () => {
  memory.set('language', language.value)
  setLanguage(language.value)
}
setLanguage(language.value)

const live = startLive()
startApps()

const theme = document.querySelector('#theme')
theme.value = document.documentElement.dataset.theme
theme.onchange = () => {
  memory.set('theme', theme.value)
  document.documentElement.dataset.theme = theme.value
  live.redraw()
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', live.redraw)

/** The address of the gateway, from here: a host such as 0.0.0.0 is the one of this page. */
function reach(address) {
  const url = new URL(address)
  if (url.hostname === '0.0.0.0' || url.hostname === '[::]') url.hostname = location.hostname
  return url.href
}

/** Loads a script of ours that is no module. */
function load(src) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script')
    script.onload = resolve
    script.onerror = reject
    script.src = src
    document.head.append(script)
  })
}

const settings = await (await fetch('/dashboard/settings')).json()
const address = document.querySelector('#gateway')
const input = address.querySelector('input')
if (settings.gateway) {
  await load('/dashboard/client.js')
  address.hidden = false
  input.value = reach(settings.gateway)
  for (const member of [false, true]) new Pane(member, settings, input)
}
if (settings.push) startPush(input)
document.querySelector('#nothing').hidden = Boolean(settings.gateway || settings.push)
