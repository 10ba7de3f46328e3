/** The registry in etcd when the server, the way to it, or what it remembers is gone. */

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { parseIp } from '../src/address/ip.ts'
import { type EtcdOptions, EtcdRegistry } from '../src/lease/etcd/registry.ts'
import type { LeaseSnapshot, RegistryCall, RegistryEvent } from '../src/lease/registry.ts'
import { Etcd, freePort, Proxy } from './etcd.ts'
import { acquire, eventWhere, snapshotWhere, subnetOf } from './registry-contract.ts'

const CONFIG = '{"Network": "10.3.0.0/16"}'
const HOST = parseIp('192.168.1.10')
const OTHER = parseIp('192.168.1.11')
const THIRD = parseIp('192.168.1.12')

function open(t: TestContext, options: EtcdOptions): EtcdRegistry {
  const registry = new EtcdRegistry(options)
  t.after(() => registry.close())
  return registry
}

function watch(t: TestContext, registry: EtcdRegistry): AsyncIterator<RegistryEvent> {
  return registry.watch(t.signal)[Symbol.asyncIterator]()
}

/** An etcd with two leases, a registry that reaches it through a proxy, and a watch that has seen both. */
async function withLeases(t: TestContext) {
  const calls: string[] = []
  const etcd = await Etcd.start(t)
  const proxy = await Proxy.start(t, etcd.endpoint)
  const observe = ({ operation }: RegistryCall) => calls.push(operation)
  const registry = open(t, { endpoints: [proxy.endpoint], observe })
  const direct = open(t, { endpoints: [etcd.endpoint] })
  await direct.putConfig(CONFIG)
  const lease = await acquire(direct, HOST, t.signal)
  const other = await acquire(direct, OTHER, t.signal)
  const events = watch(t, registry)
  const { incarnation } = await snapshotWhere(events, ({ leases }) => leases.size === 2)
  return { etcd, proxy, registry, direct, lease, other, events, incarnation, calls }
}

/** The next event must be that the registry is unavailable: nothing is said of leases in between. */
async function assertUnavailable(events: AsyncIterator<RegistryEvent>, reason: RegExp): Promise<void> {
  const event = await eventWhere(events, () => true)
  assert.ok(event.kind === 'unavailable', `a snapshot of ${'leases' in event ? event.leases.size : 0} leases`)
  assert.match(event.reason, reason)
}

/** The first snapshot from now on. */
function recovered(events: AsyncIterator<RegistryEvent>): Promise<LeaseSnapshot> {
  return snapshotWhere(events, () => true)
}

/** Cuts the proxy's connections, and lets no other come through until `work` is done. */
async function without(proxy: Proxy, work: () => Promise<unknown>): Promise<void> {
  proxy.suspend()
  proxy.cut()
  await work()
  proxy.resume()
}

test('an etcd that is not there: unavailable, said once', async (t) => {
  const registry = open(t, { endpoints: [`http://127.0.0.1:${await freePort()}`] })
  await assert.rejects(registry.readConfig(t.signal), { code: 'unavailable', message: /ECONNREFUSED/ })
  await assert.rejects(acquire(registry, HOST, t.signal), { code: 'unavailable' })
  const events = watch(t, registry)
  await assertUnavailable(events, /^http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED 127\.0\.0\.1:\d+$/)
  // Time for several attempts.
  assert.equal(await Promise.race([events.next(), setTimeout(1500, 'quiet')]), 'quiet')
})

test('a connection that is cut: the watch goes on where it was, and nothing is said', async (t) => {
  const { proxy, direct, events, lease, calls } = await withLeases(t)
  calls.length = 0
  proxy.cut()
  const third = await acquire(direct, THIRD, t.signal)
  await direct.release(subnetOf(lease))
  const seen = new Set<string>()
  while (seen.size < 2) {
    const event = await eventWhere(events, () => true)
    assert.equal(event.kind, 'snapshot')
    for (const key of event.changed ?? ['everything']) seen.add(key)
  }
  assert.deepEqual(seen, new Set([third.key, lease.key]))
  // One look whether it is the same store: nothing is read again.
  assert.deepEqual(calls, ['Range'])
})

test('a connection that falls silent: noticed; what changed meanwhile is seen, nothing else', async (t) => {
  const { proxy, registry, direct, events, lease, other, incarnation } = await withLeases(t)
  const held = registry.hold(lease, t.signal)
  proxy.suspend()
  const attributes = { publicIps: { inet: OTHER }, backendType: 'vxlan', backendData: { inet: { VNI: 9 } } }
  await acquire(direct, OTHER, t.signal, { attributes })
  await assertUnavailable(events, /no answer within 5 s/)
  await assert.rejects(registry.readConfig(t.signal), {
    code: 'unavailable',
    message: /no answer within 5 s/,
  })
  proxy.resume()
  const snapshot = await recovered(events)
  assert.deepEqual(new Set(snapshot.leases.keys()), new Set([lease.key, other.key]))
  assert.deepEqual(snapshot.leases.get(other.key)?.backendData, { inet: { VNI: 9 } })
  assert.equal(snapshot.incarnation, incarnation)
  assert.equal(await Promise.race([held, Promise.resolve('still held')]), 'still held')
})

test('a compaction while the connection is cut: a new range', async (t) => {
  const { etcd, proxy, direct, events, lease, other, incarnation } = await withLeases(t)
  let third = lease
  await without(proxy, async () => {
    await direct.release(subnetOf(other))
    third = await acquire(direct, THIRD, t.signal)
    await etcd.compact()
  })
  const snapshot = await snapshotWhere(events, ({ leases }) => leases.has(third.key))
  assert.deepEqual(new Set(snapshot.leases.keys()), new Set([lease.key, third.key]))
  assert.deepEqual(snapshot.changed, new Set([other.key, third.key]))
  assert.equal(snapshot.incarnation, incarnation)
})

test('a compaction after which the newest lease is remembered, and the time of the config is not', async (t) => {
  const { etcd, proxy, direct, events, other } = await withLeases(t)
  await direct.release(subnetOf(other))
  const third = await acquire(direct, THIRD, t.signal)
  await snapshotWhere(events, ({ leases }) => leases.has(third.key))
  await etcd.compact()
  proxy.cut()
  await direct.putConfig('{"Network": "10.4.0.0/16"}')
  const { leases, changed } = await snapshotWhere(events, ({ config }) => config?.includes('10.4.') === true)
  assert.deepEqual([leases.size, changed], [2, new Set()])
})

test('etcd restarted with its data: unavailable in between, the same leases after', async (t) => {
  const { etcd, registry, direct, events, lease, incarnation } = await withLeases(t)
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  await etcd.stop()
  await assertUnavailable(events, /./)
  await etcd.start()
  const snapshot = await recovered(events)
  assert.deepEqual([snapshot.leases.size, snapshot.incarnation], [2, incarnation])
  assert.deepEqual(snapshot.changed, new Set())
  const third = await acquire(direct, THIRD, t.signal)
  await snapshotWhere(events, ({ leases }) => leases.has(third.key))
  stop.abort()
  assert.equal(await held, 'released')
})

async function replace(etcd: Etcd): Promise<void> {
  await etcd.stop()
  etcd.wipe()
  await etcd.start()
}

test('etcd wiped: another incarnation, the lease is lost and taken again', async (t) => {
  const { etcd, proxy, registry, events, lease, incarnation } = await withLeases(t)
  const held = registry.hold(lease, t.signal)
  await without(proxy, () => replace(etcd))
  const snapshot = await recovered(events)
  assert.equal(snapshot.leases.size, 0)
  assert.notEqual(snapshot.incarnation, incarnation)
  assert.equal(await held, 'lost')
  assert.equal((await acquire(registry, HOST, t.signal, { previous: lease.subnets })).key, lease.key)
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
})

test('etcd wiped, and written to more often than before: another incarnation all the same', async (t) => {
  const { etcd, proxy, direct, events, lease, other, incarnation } = await withLeases(t)
  await without(proxy, async () => {
    await replace(etcd)
    await direct.putConfig(CONFIG)
    await acquire(direct, HOST, t.signal, { previous: lease.subnets })
    for (let i = 0; i < 50; i++) await direct.putConfig(CONFIG)
  })
  const snapshot = await recovered(events)
  assert.deepEqual([...snapshot.leases.keys()], [lease.key])
  assert.deepEqual(snapshot.changed, new Set([lease.key, other.key]))
  assert.notEqual(snapshot.incarnation, incarnation)
})

test('a cluster that lost its leader: unavailable, though a member answers; then as before', async (t) => {
  const [first, second, third] = await Etcd.startCluster(t)
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  const registry = open(t, { endpoints: [first.endpoint] })
  const lease = await acquire(registry, HOST, t.signal)
  const events = watch(t, registry)
  const { incarnation } = await snapshotWhere(events, ({ leases }) => leases.size === 1)
  await Promise.all([second.stop(), third.stop()])
  await assertUnavailable(events, /no leader|timed out|no answer/)
  await assert.rejects(acquire(registry, OTHER, t.signal), { code: 'unavailable' })
  await Promise.all([second.start(), third.start()])
  const snapshot = await recovered(events)
  assert.deepEqual([...snapshot.leases.keys()], [lease.key])
  assert.equal(snapshot.incarnation, incarnation)
})

test('several endpoints: those that are dead or silent are passed over', async (t) => {
  const etcd = await Etcd.start(t)
  const silent = await Proxy.start(t, etcd.endpoint)
  silent.suspend()
  const dead = `http://127.0.0.1:${await freePort()}`
  const spare = await Proxy.start(t, etcd.endpoint)
  const registry = open(t, { endpoints: [dead, silent.endpoint, spare.endpoint] })
  const lease = await acquire(registry, HOST, t.signal)
  const events = watch(t, registry)
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  silent.resume()
  spare.suspend()
  spare.cut()
  const other = await acquire(open(t, { endpoints: [etcd.endpoint] }), OTHER, t.signal)
  const { changed } = await snapshotWhere(events, ({ leases }) => leases.has(other.key))
  assert.deepEqual(changed, new Set([other.key]))
})

test('hold: an etcd that is away costs the lease only when it has expired', async (t) => {
  const etcd = await Etcd.start(t)
  const proxy = await Proxy.start(t, etcd.endpoint)
  const registry = open(t, { endpoints: [proxy.endpoint], ttl: 3000, renewMargin: 1000 })
  const lease = await acquire(registry, HOST, t.signal)
  const held = registry.hold(lease, t.signal)
  proxy.suspend()
  proxy.cut()
  assert.equal(await held, 'lost')
  assert.ok(lease.expires !== undefined && Date.now() >= lease.expires)
})

test('hold: a renewal that failed is tried again', async (t) => {
  const etcd = await Etcd.start(t)
  const registry = open(t, { endpoints: [etcd.endpoint], ttl: 8000, renewMargin: 7000 })
  const lease = await acquire(registry, HOST, t.signal)
  const events = watch(t, registry)
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  await etcd.stop()
  await setTimeout(2000)
  await etcd.start()
  await snapshotWhere(events, ({ changed }) => changed?.has(lease.key) === true)
  stop.abort()
  assert.equal(await held, 'released')
})

test('etcd that is not there when it is asked beforehand is said once, and asked again', async (t) => {
  const etcd = await Etcd.start(t)
  const proxy = await Proxy.start(t, etcd.endpoint)
  const direct = open(t, { endpoints: [etcd.endpoint] })
  await direct.putConfig(CONFIG)
  const registry = open(t, { endpoints: [proxy.endpoint] })
  await without(proxy, async () => {
    registry.prepare(t.signal)
    await assert.rejects(registry.readConfig(t.signal), { code: 'unavailable' })
  })
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  assert.equal((await acquire(registry, HOST, t.signal)).publicIps.inet, HOST)
})
