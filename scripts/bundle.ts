/**
 * Bundles src/main.ts with its libraries: `node scripts/bundle.ts FOLDER` writes `lib/tweed.js`, a file for each command
 * and for each library that few runs need, and `THIRD-PARTY-LICENSES` into the folder. The bundle lies one folder below
 * the package's root, as the source does, because it looks for package.json and the prebuilt addon there.
 *
 * A start is to read few files, and little that it does not need. They are CommonJS, because its `require` gives Node's
 * own modules as they are. An `import` reads each of their exports, and some of those are made when they are read: of
 * node:http a whole web client, which takes 30 ms and some MB.
 */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'

const ROOT = new URL('..', import.meta.url).pathname

/** What src/main.ts loads. One of them runs in a process, so that each can have a copy of what they share. */
const COMMANDS = ['agent', 'status', 'config', 'leases', 'docker-opts', 'lab', 'demo']

/** Those that no agent needs for its start, and the names of their files. */
const LIBRARIES: Readonly<Record<string, string>> = {
  '@prometheus-io/client': 'prometheus',
  'cli-table3': 'table',
  commander: 'commander',
  'pino-pretty': 'pretty',
  yaml: 'yaml',
}

/** What has a file of its own, as it is written in an import. */
const FILES: ReadonlyMap<string, string> = new Map([
  ...COMMANDS.map((name) => [`./cli/${name}.ts`, name] as const),
  ...Object.entries(LIBRARIES),
])

const SEPARATE: Plugin = {
  name: 'separate',
  setup(build) {
    build.onResolve({ filter: /./ }, ({ path, kind }) => {
      const name = kind === 'entry-point' ? undefined : FILES.get(path)
      return name === undefined ? undefined : { path: `./${name}.js`, external: true }
    })
  },
}

/**
 * pino can log from a thread, for which it loads Node's threads at every start, some 4 ms. We do not: it finds that this is
 * the main thread, and nothing more.
 */
const NO_THREADS: Plugin = {
  name: 'no-threads',
  setup(build) {
    build.onResolve({ filter: /^(?:thread-stream|worker_threads)$/ }, ({ path, importer }) =>
      importer.includes('/node_modules/pino/') ? { path, namespace: 'no-threads' } : undefined,
    )
    build.onLoad({ filter: /./, namespace: 'no-threads' }, () => ({
      contents: 'exports.isMainThread = true',
    }))
  },
}

/** What CommonJS has in place of `import.meta.url`. */
const URL_OF_BUNDLE = "const urlOfBundle = require('node:url').pathToFileURL(__filename).href"

async function bundle(folder: string): Promise<void> {
  const lib = join(folder, 'lib')
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: {
      tweed: 'src/main.ts',
      ...Object.fromEntries(COMMANDS.map((name) => [name, `src/cli/${name}.ts`])),
      ...Object.fromEntries(Object.entries(LIBRARIES).map(([library, name]) => [name, library])),
    },
    outdir: lib,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node22.18',
    // As `require`: an `import` of CommonJS reads the file once more, for the names that it exports.
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': 'urlOfBundle' },
    banner: { js: URL_OF_BUNDLE },
    plugins: [SEPARATE, NO_THREADS],
    // Less to read and to keep. The names stay, and lines are short, for the sake of stack traces.
    minifyWhitespace: true,
    lineLimit: 160,
    metafile: true,
  })
  writeFileSync(join(lib, 'package.json'), '{ "type": "commonjs" }\n')
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
