// A real gateway for the tests.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const APPS = `
apps:
  match: {history: {size: 100000, ttl: 10m}}
  short: {history: {size: 3, ttl: 10m}}
  im: {visibility: private}
  vip: {subscribe: ["role:gold"]}
  "room:*": {push: [members], presence: true}
`

/** Starts the program that WSGW_BINARY names; resolves when it is up. */
export async function startGateway({ apps = APPS, ...env } = {}) {
  const binary = process.env.WSGW_BINARY
  if (!binary) throw new Error('WSGW_BINARY must name the ws-gateway program')
  const dir = mkdtempSync(join(tmpdir(), 'wsgw-'))
  const file = join(dir, 'apps.yaml')
  writeFileSync(file, apps)
  const child = spawn(binary, [], {
    env: {
      PATH: process.env.PATH, WSGW_ADDR: '127.0.0.1:0', WSGW_STAT_ADDR: '127.0.0.1:0', WSGW_APPS_FILE: file,
      WSGW_LOG_FORMAT: 'json', WSGW_DRAIN_WINDOW: '0s', ...env,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const log = []
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const up = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on('line', (line) => {
      log.push(line)
      if (line.includes('"ws-gateway is up"')) resolve(JSON.parse(line))
    })
    exited.then((code) => reject(new Error(`the gateway ended with ${code}:\n${log.join('\n')}`)))
  })
  const call = async (path, body) => {
    const r = await fetch(new URL(path, up.push), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
    if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`)
    return r.json()
  }
  const url = new URL(up.clients)
  return {
    url: up.clients,
    origin: `http://${url.host}`,
    port: Number(url.port),
    call,
    push: (app, text, member_id = -1) => call('/push', { app, member_id, text }),
    /** Writes another apps file, or the first one, and has it read. */
    async rules(text = apps) {
      writeFileSync(file, text)
      const r = await fetch(new URL('/reload', up.stat), { method: 'POST' })
      if (!r.ok) throw new Error(`reload: ${r.status} ${await r.text()}`)
    },
    async stop() {
      child.kill('SIGTERM')
      await exited
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** Resolves with the first event of that name that is wanted. */
export const until = (emitter, name, want = () => true) => new Promise((resolve) => {
  const off = emitter.on(name, (event) => {
    if (!want(event)) return
    off()
    resolve(event)
  })
})

export const state = (emitter, name) => until(emitter, 'state', (e) => e.state === name)

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
