/** The embedded registry: the contract, and what can happen to a file. */

import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { build } from 'esbuild'
import { parseIp } from '../src/address/ip.ts'
import { decodeEntry } from '../src/lease/entries.ts'
import type { Lease } from '../src/lease/lease.ts'
import { parseRegistryAddress, type RegistryEvent } from '../src/lease/registry.ts'
import { SqliteRegistry } from '../src/lease/sqlite.ts'
import {
  acquire,
  assertApart,
  eventWhere,
  type RegistryStore,
  registryContract,
  snapshotWhere,
} from './registry-contract.ts'

const CONFIG = '{"Network": "10.3.0.0/16"}'
const HOST = parseIp('192.168.1.10')
const OTHER = parseIp('192.168.1.11')

/** The path of a registry that does not exist yet. */
function newPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'twr-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'lib', 'registry#1.db')
}

/** Runs SQL as another program would. */
function meddle(path: string, sql: string, ...values: string[]): void {
  const database = new DatabaseSync(path, { timeout: 5000 })
  database.prepare(sql).run(...values)
  database.close()
}

async function createStore(t: TestContext): Promise<RegistryStore> {
  const path = newPath(t)
  const registries: SqliteRegistry[] = []
  const connect: RegistryStore['connect'] = (times = { ttl: 60_000, renewMargin: 1000 }) => {
    const registry = new SqliteRegistry(path, { ...times, pollInterval: 20 })
    registries.push(registry)
    return registry
  }
  t.after(() => Promise.all(registries.map((registry) => registry.close())))
  await connect().putConfig(CONFIG)
  meddle(path, 'DELETE FROM config')
  const upsert =
    'INSERT INTO leases (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value'
  return { connect, writeEntry: async (key, value) => meddle(path, upsert, key, value) }
}

registryContract('sqlite', createStore)

/** A registry with two leases and a watch that has seen them. */
async function withLeases(t: TestContext) {
  const path = newPath(t)
  const registry = new SqliteRegistry(path, { pollInterval: 20 })
  t.after(() => registry.close())
  await registry.putConfig(CONFIG)
  const lease = await acquire(registry, HOST, t.signal)
  await acquire(registry, OTHER, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  const { incarnation } = await snapshotWhere(events, ({ leases }) => leases.size === 2)
  return { path, registry, lease, events, incarnation }
}

/** The next event must be that the registry is unavailable: nothing is said of leases in between. */
async function assertUnavailable(events: AsyncIterator<RegistryEvent>, reason: RegExp): Promise<void> {
  const event = await eventWhere(events, () => true)
  assert.ok(event.kind === 'unavailable', `a snapshot of ${'leases' in event ? event.leases.size : 0} leases`)
  assert.match(event.reason, reason)
}

/** The next event must be the same two leases again. */
async function assertRecovered(events: AsyncIterator<RegistryEvent>): Promise<void> {
  assertSameLeases(await eventWhere(events, () => true))
}

/** Returns the incarnation. */
function assertSameLeases(event: RegistryEvent): string {
  assert.ok(event.kind === 'snapshot', JSON.stringify(event))
  assert.equal(event.leases.size, 2)
  assert.deepEqual(event.changed, new Set())
  return event.incarnation
}

/** Prints a line when it is ready, waits for the end of its input, takes a lease and prints its key. */
const CONTENDER = `
  import { once } from 'node:events'
  import { parseNetworkConfig } from './src/config/network-config.ts'
  import { SqliteRegistry } from './src/lease/sqlite.ts'
  const [path, inet] = process.argv.slice(2)
  const config = parseNetworkConfig('${CONFIG}')
  const attributes = { publicIps: { inet }, backendType: 'vxlan', backendData: {} }
  console.log('ready')
  await once(process.stdin.resume(), 'end')
  const { key } = await new SqliteRegistry(path).acquire({ config, attributes, previous: {} }, AbortSignal.timeout(60_000))
  console.log(key)`

test('50 processes that ask one fresh file at once get subnets apart', { timeout: 120_000 }, async (t) => {
  const path = newPath(t)
  const admin = new SqliteRegistry(path)
  await admin.putConfig(CONFIG)
  // One file starts in a third of the time that the sources take.
  const program = join(dirname(path), 'contender.mjs')
  const resolveDir = join(import.meta.dirname, '..')
  await build({
    stdin: { contents: CONTENDER, resolveDir },
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'esm',
  })
  const contenders = Array.from({ length: 50 }, (_, i) => {
    const host = `192.168.2.${i + 1}`
    return {
      host,
      process: spawn(process.execPath, [program, path, host], { stdio: ['pipe', 'pipe', 'inherit'] }),
    }
  })
  await Promise.all(contenders.map(({ process: { stdout } }) => once(stdout, 'data')))
  for (const {
    process: { stdin },
  } of contenders)
    stdin.end()
  const claimed = await Promise.all(
    contenders.map(async ({ host, process: { stdout } }) => [(await text(stdout)).trim(), host] as const),
  )
  const events = admin.watch(t.signal)[Symbol.asyncIterator]()
  const { leases } = await snapshotWhere(events, () => true)
  assert.equal(leases.size, 50)
  assertApart([...leases.values()])
  assert.deepEqual(
    new Map(claimed),
    new Map([...leases].map(([key, { publicIps }]) => [key, publicIps.inet])),
  )
})

test('an agent waits for a registry and never makes one', async (t) => {
  const path = newPath(t)
  const registry = new SqliteRegistry(path, { pollInterval: 20 })
  t.after(() => registry.close())
  await assert.rejects(acquire(registry, HOST, t.signal), {
    code: 'unavailable',
    message: `${path} does not exist`,
  })
  await assert.rejects(registry.readConfig(t.signal), { code: 'unavailable' })
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await assertUnavailable(events, /does not exist/)
  assert.ok(!existsSync(path))
  await new SqliteRegistry(path).putConfig(CONFIG)
  assert.equal((await snapshotWhere(events, () => true)).config, CONFIG)
})

test('deleted: unavailable; put back: the same leases; made anew: another incarnation', async (t) => {
  const { path, registry, lease, events, incarnation } = await withLeases(t)
  const held = registry.hold(lease, t.signal)
  renameSync(path, `${path}.away`)
  await assertUnavailable(events, /does not exist/)
  const next = events.next()
  // Time for the same to be said twice, which it must not.
  await setTimeout(200)
  renameSync(`${path}.away`, path)
  assert.equal(assertSameLeases((await next).value), incarnation)

  rmSync(path)
  await assertUnavailable(events, /does not exist/)
  await new SqliteRegistry(path).putConfig(CONFIG)
  const fresh = await snapshotWhere(events, () => true)
  assert.equal(fresh.leases.size, 0)
  assert.notEqual(fresh.incarnation, incarnation)
  assert.equal(await held, 'lost')
  assert.equal((await acquire(registry, HOST, t.signal, { previous: lease.subnets })).key, lease.key)
})

test('replaced in one step: noticed, even by its like, and written to from then on', async (t) => {
  const { path, registry, lease, events, incarnation } = await withLeases(t)
  const replace = async () => {
    const other = newPath(t)
    await new SqliteRegistry(other).putConfig(CONFIG)
    renameSync(other, path)
  }
  await replace()
  const first = await snapshotWhere(events, ({ leases }) => leases.size === 0)
  await replace()
  const second = await snapshotWhere(events, () => true)
  assert.equal(new Set([incarnation, first.incarnation, second.incarnation]).size, 3)
  assert.equal((await acquire(registry, HOST, t.signal, { previous: lease.subnets })).key, lease.key)
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
})

test('locked by another process: unavailable, and back when the lock goes', async (t) => {
  const { path, registry, lease, events } = await withLeases(t)
  const held = registry.hold(lease, t.signal)
  const program = `const { DatabaseSync } = require('node:sqlite')
    new DatabaseSync(process.argv[1]).exec('BEGIN EXCLUSIVE'); console.log('locked'); setInterval(() => {}, 1000)`
  const locker = execFile(process.execPath, ['--eval', program, path])
  t.after(() => locker.kill('SIGKILL'))
  assert.ok(locker.stdout !== null)
  await once(locker.stdout, 'data')
  await assertUnavailable(events, /is locked by another process/)
  locker.kill('SIGKILL')
  await assertRecovered(events)
  assert.equal(await Promise.race([held, Promise.resolve('still held')]), 'still held')
})

test('read-only, to root too: unavailable, because nobody can renew', async (t) => {
  const { path, registry, events } = await withLeases(t)
  const directory = dirname(path)
  execFileSync('mount', ['--bind', directory, directory])
  try {
    execFileSync('mount', ['-o', 'remount,bind,ro', directory])
    await assertUnavailable(events, /is read-only/)
    await assert.rejects(acquire(registry, HOST, t.signal), { code: 'unavailable', message: /is read-only/ })
    execFileSync('mount', ['-o', 'remount,bind,rw', directory])
    await assertRecovered(events)
  } finally {
    execFileSync('umount', ['--lazy', directory])
  }
})

test('damaged: unavailable; restored: the same leases', async (t) => {
  const { path, registry, events } = await withLeases(t)
  copyFileSync(path, `${path}.backup`)
  const damages: [RegExp, () => void][] = [
    [/is damaged/, () => writeFileSync(path, 'x'.repeat(8192))],
    [/is damaged/, () => truncateSync(path, 5000)],
    [/is not a tweed registry/, () => truncateSync(path, 0)],
  ]
  for (const [reason, damage] of damages) {
    damage()
    await assertUnavailable(events, reason)
    await assert.rejects(acquire(registry, HOST, t.signal), { code: 'unavailable', message: reason })
    copyFileSync(`${path}.backup`, path)
    await assertRecovered(events)
  }
})

test('a writer that was killed in the middle leaves nothing behind', async (t) => {
  const { path, registry, events } = await withLeases(t)
  // A transaction larger than the page cache has written to the file, and its journal, before it commits.
  const program = `const { DatabaseSync } = require('node:sqlite')
    const database = new DatabaseSync(process.argv[1])
    database.exec("PRAGMA cache_size = 2; BEGIN; DELETE FROM leases")
    for (let i = 0; i < 2000; i++) database.exec("INSERT INTO leases (key, value) VALUES ('junk " + i + "', '" + 'x'.repeat(100) + "')")
    console.log('written'); setInterval(() => {}, 1000)`
  const writer = execFile(process.execPath, ['--eval', program, path])
  t.after(() => writer.kill('SIGKILL'))
  assert.ok(writer.stdout !== null)
  await once(writer.stdout, 'data')
  assert.ok(existsSync(`${path}-journal`))
  writer.kill('SIGKILL')
  await once(writer, 'exit')
  const third = await acquire(registry, parseIp('192.168.1.12'), t.signal)
  const { leases, malformed } = await snapshotWhere(events, (snapshot) => snapshot.leases.has(third.key))
  assert.deepEqual([leases.size, malformed.size], [3, 0])
})

test('hold: a registry that is away costs the lease only when it has expired', async (t) => {
  const path = newPath(t)
  const registry = new SqliteRegistry(path, { ttl: 1000, renewMargin: 900, pollInterval: 20 })
  t.after(() => registry.close())
  await registry.putConfig(CONFIG)
  const lease = await acquire(registry, HOST, t.signal)
  const held = registry.hold(lease, t.signal)
  renameSync(path, `${path}.away`)
  assert.equal(await held, 'lost')
  assert.ok(lease.expires !== undefined && Date.now() >= lease.expires)
})

test('a lease that expired while nobody could renew it, and that nobody took, is renewed', async (t) => {
  const { path, registry, lease } = await withLeases(t)
  meddle(path, `UPDATE leases SET expires = ${Date.now() - 5000} WHERE key = ?`, lease.key)
  const stop = new AbortController()
  const held = registry.hold({ ...lease, expires: Date.now() + 5000 }, stop.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  stop.abort()
  assert.equal(await held, 'released')
})

test('a lease that expired, and that nobody took, is its host’s again', async (t) => {
  const { path, registry, lease } = await withLeases(t)
  meddle(path, `UPDATE leases SET expires = ${Date.now() - 5000} WHERE key = ?`, lease.key)
  assert.equal((await acquire(registry, HOST, t.signal)).key, lease.key)
})

test('numbers that no clock shows are read, not thrown over', async (t) => {
  const { path, events } = await withLeases(t)
  const value = '{"PublicIP":"192.168.1.13","PublicIPv6":null}'
  const insert = 'INSERT INTO leases (key, value, expires) VALUES (?, ?, 9223372036854775807)'
  meddle(path, insert, '10.3.255.0-24', value)
  const { leases } = await snapshotWhere(events, (snapshot) => snapshot.leases.size === 3)
  const stranger: Lease | undefined = leases.get(
    decodeEntry({ key: '10.3.255.0-24', value, expires: 0, created: 0 }).key,
  )
  assert.deepEqual(stranger?.publicIps, { inet: '192.168.1.13' })
})

test('a registry is named by its kind and its path', () => {
  assert.deepEqual(parseRegistryAddress('sqlite:/var/lib/tweed/a:b.db'), {
    kind: 'sqlite',
    path: '/var/lib/tweed/a:b.db',
  })
  for (const text of ['', '/var/lib/tweed', 'sqlite:', 'etc:x']) {
    assert.throws(() => parseRegistryAddress(text), {
      code: 'invalid',
      message: /write sqlite:PATH, etcd:/,
    })
  }
})
