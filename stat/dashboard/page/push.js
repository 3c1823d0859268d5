// The form that pushes, and the same as a line for a terminal.
import { t, onLanguage } from './words.js'

/** Quotes s for a shell. */
const quote = (s) => (/^[\w@%+=:,./-]+$/.test(s) ? s : `'${s.replaceAll("'", `'\\''`)}'`)

/** Serves the push form; address is the input that has the gateway's URL. */
export function startPush(address) {
  const form = document.querySelector('#push')
  const receipt = document.querySelector('#receipt')
  const curl = document.querySelector('#curl')
  const { app, member, text, key } = form.elements
  form.hidden = false
  let told = () => '' // what the receipt says, in the language in use
  const tell = () => { receipt.textContent = told() }

  const body = () => JSON.stringify({ app: app.value.trim(), member_id: Number(member.value || -1), text: text.value })
  const headers = () => ({ 'Content-Type': 'application/json', ...(key.value && { 'X-Push-Key': key.value }) })

  function tellCurl() {
    const to = address.value.replace(/^ws/, 'http').replace(/\/[^/]*$/, '/push')
    const options = Object.entries(headers()).map(([name, value]) => `-H ${quote(`${name}: ${value}`)} `)
    curl.textContent = `curl ${options.join('')}-d ${quote(body())} ${quote(to)}`
  }

  async function push() {
    let response
    let answer
    try {
      response = await fetch('/dashboard/push', { method: 'POST', headers: headers(), body: body() })
      answer = await response.json()
    } catch {
      say(false, () => t('unreachable'))
      return
    }
    if (response.status === 401) {
      document.querySelector('#key').hidden = false
      key.focus()
    }
    say(response.ok, () => (response.ok ? t('receipt', answer) : `${answer.code}: ${answer.message}`))
  }

  /** Shows what came of a push. */
  function say(ok, words) {
    receipt.dataset.ok = ok
    told = words
    tell()
  }

  form.addEventListener('submit', (e) => {
    e.preventDefault()
    push()
  })
  document.querySelector('#copy').onclick = async () => {
    try {
      await navigator.clipboard.writeText(curl.textContent)
      say(true, () => t('copied'))
    } catch { // the browser does not let this page: show it, to be copied by hand
      form.querySelector('details').open = true
      getSelection().selectAllChildren(curl)
    }
  }
  form.addEventListener('input', tellCurl)
  address.addEventListener('input', tellCurl)
  onLanguage(tellCurl)
  onLanguage(tell)
}
