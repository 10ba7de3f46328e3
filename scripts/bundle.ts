/**
 * Bundles src/main.ts with its libraries: `node scripts/bundle.ts FOLDER` writes `lib/tweed.js`, the chunks that it
 * loads, and `THIRD-PARTY-LICENSES` into the folder. The bundle lies one folder below the package's root, as the source
 * does, because it looks for package.json and the prebuilt addon there. In chunks, because an agent is not to parse and
 * hold what other commands need.
 */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'

const ROOT = new URL('..', import.meta.url).pathname

/** What `require` is to the CommonJS libraries within an ES module. */
const BANNER = `import { createRequire as createRequireOfBundle } from 'node:module'
const require = createRequireOfBundle(import.meta.url)`

/**
 * Node's own modules as `require` gives them. An `import` of one reads each of its exports, and some of those are made
 * when they are read: of node:http a whole web client, which takes 30 ms and some MB.
 */
const BUILTINS: Plugin = {
  name: 'builtins',
  setup(build) {
    const names = new Set(builtinModules)
    build.onResolve({ filter: /^(?:node:)?[a-z]/ }, ({ path, kind }) => {
      const isImported = kind === 'import-statement' || kind === 'dynamic-import'
      const isBuiltin = path.startsWith('node:') || names.has(path)
      return isImported && isBuiltin ? { path, namespace: 'builtin' } : undefined
    })
    build.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`,
    }))
  },
}

async function bundle(folder: string): Promise<void> {
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/main.ts'],
    entryNames: 'tweed',
    outdir: join(folder, 'lib'),
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node22.18',
    banner: { js: BANNER },
    plugins: [BUILTINS],
    metafile: true,
  })
  writeFileSync(join(folder, 'THIRD-PARTY-LICENSES'), licenses(metafile))
}

/** The license of every library that has code in the bundle. */
function licenses({ inputs }: Metafile): string {
  const folders = new Set<string>()
  for (const path of Object.keys(inputs)) {
    const folder = /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0]
    if (folder !== undefined) folders.add(folder)
  }
  return [...folders].toSorted().map(license).join('\n')
}

function license(folder: string): string {
  const path = join(ROOT, folder)
  const { name, version, license: identifier } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'))
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry))
  if (file === undefined && identifier === undefined) throw new Error(`${name} has no license`)
  const text = file === undefined ? `SPDX: ${identifier}` : readFileSync(join(path, file), 'utf8').trim()
  return `== ${name} ${version}\n\n${text}\n`
}

const [folder] = process.argv.slice(2)
if (folder === undefined) throw new Error('usage: node scripts/bundle.ts FOLDER')
await bundle(folder)
