// Makes dist from src: an ES module and a CommonJS module with their types, and one script
// for a page. With --check it fails when dist is not what src gives.
import { build } from 'esbuild'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const MAX = 5 * 1024 // bytes of the page's script, gzipped

const at = (path) => fileURLToPath(new URL(path, import.meta.url))

async function bundle(options) {
  const { outputFiles } = await build({ entryPoints: [at('src/client.js')], bundle: true, target: 'es2022', write: false, ...options })
  return outputFiles[0].text
}

const types = await readFile(at('src/client.d.ts'), 'utf8')
const script = await bundle({ format: 'iife', globalName: 'WSGateway', minify: true })
const dist = {
  'client.mjs': await bundle({ format: 'esm' }),
  'client.d.mts': types,
  'client.cjs': await bundle({ format: 'cjs' }),
  'client.d.cts': types,
  'client.js': script,
}

if (process.argv.includes('--check')) {
  for (const [name, text] of Object.entries(dist)) {
    const now = await readFile(at(`dist/${name}`), 'utf8').catch(() => '')
    if (now !== text) throw new Error(`dist/${name} is not what src gives: npm run build`)
  }
} else {
  await mkdir(at('dist'), { recursive: true })
  for (const [name, text] of Object.entries(dist)) await writeFile(at(`dist/${name}`), text)
}

const size = gzipSync(script).length
console.log(`dist/client.js: ${script.length} bytes, ${size} gzipped`)
if (size > MAX) throw new Error(`dist/client.js is larger than ${MAX} bytes gzipped`)
