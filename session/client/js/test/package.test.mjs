// What is published: its shapes, its examples, its README.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { runInNewContext } from 'node:vm'
import { sleep, startGateway } from './gateway.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const text = (path) => readFileSync(join(root, path), 'utf8')

test('one package, three shapes', async () => {
  const shapes = {
    import: await import('ws-gateway-client'),
    require: createRequire(import.meta.url)('ws-gateway-client'),
    script: runInNewContext(`${text('dist/client.js')}; WSGateway`, { URL }),
  }
  const declared = [...text('src/client.d.ts').matchAll(/^export class (\w+)/gm)].map((m) => m[1])
  for (const [shape, exported] of Object.entries(shapes)) {
    const names = Object.keys(exported).sort()
    assert.deepEqual(names, declared.filter((name) => name !== 'Subscription').sort(), shape)
    assert.equal(new exported.Client('ws://127.0.0.1/', { connect: false, WebSocket: class {} }).state, 'disconnected', shape)
  }
})

test('no dependencies, and nothing in the package but what is used', () => {
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] }))
  assert.deepEqual(files.map((f) => f.path).sort(), [
    'README.md', 'dist/client.cjs', 'dist/client.d.cts', 'dist/client.d.mts', 'dist/client.js', 'dist/client.mjs', 'package.json',
  ])
  assert.equal(JSON.parse(text('package.json')).dependencies, undefined)
})

test('the README type-checks', () => {
  const blocks = [...text('README.md').matchAll(/```ts\n(.*?)```/gs)].map((m) => m[1])
  assert.ok(blocks.length >= 5)
  const dir = mkdtempSync(join(root, 'test/types/readme-'))
  try {
    blocks.forEach((block, i) => writeFileSync(join(dir, `${i}.mts`), `
      ${/\bimport .*Client/.test(block) ? '' : "import { Client } from 'ws-gateway-client'"}
      ${/\bconst client\b/.test(block) ? '' : 'declare const client: Client'}
      ${block}`))
    writeFileSync(join(dir, 'ws.d.ts'), "declare module 'ws' { export default class { constructor(url: string) } }")
    writeFileSync(join(dir, 'tsconfig.json'), '{"extends": "../tsconfig.json", "include": ["*"]}')
    execFileSync('npx', ['tsc', '-p', dir], { cwd: root, stdio: ['ignore', 'inherit', 'ignore'] })
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('the example for Node', { timeout: 30_000 }, async (t) => {
  const gateway = await startGateway()
  t.after(() => gateway.stop())
  const dir = mkdtempSync(join(tmpdir(), 'wsgw-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const start = () => {
    const child = spawn(process.execPath, ['examples/node.mjs', gateway.url, 'match', join(dir, 'position.json')], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const exit = new Promise((resolve) => child.on('exit', resolve))
    t.after(() => child.kill('SIGKILL'))
    const lines = (stream) => createInterface(child[stream])[Symbol.asyncIterator]()
    return { out: lines('stdout'), err: lines('stderr'), end: () => { child.kill(); return exit } }
  }
  const next = async (lines) => (await lines.next()).value

  const first = start()
  const one = next(first.out)
  let seen = false
  one.then(() => { seen = true })
  while (!(await next(first.err)).startsWith('connected'));
  while (!seen) { // it subscribes after that
    await gateway.push('match', 'one')
    await sleep(20)
  }
  assert.equal(await one, 'one')
  assert.equal(await first.end(), 0)

  await gateway.push('match', 'two')
  const second = start()
  let two = 'one'
  while (two === 'one') two = await next(second.out) // of which more came than the first one took
  assert.equal(two, 'two')
  assert.equal(await second.end(), 0)
})
