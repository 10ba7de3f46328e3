/** The registry in Kubernetes when the server, the way to it, or what it remembers is gone. */

import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { LeaseSnapshot, RegistryEvent } from '../src/lease/registry.ts'
import { freePort, Proxy } from './etcd.ts'
import { Kubernetes } from './kubernetes.ts'
import { acquire, annotationsOf, attributesOf, KubernetesNetwork } from './kubernetes-network.ts'
import { eventWhere, snapshotWhere } from './registry-contract.ts'

const kubernetes = await Kubernetes.start({ after })
/** Its data are thrown away. */
const replaced = await Kubernetes.start({ after })

type Events = AsyncIterator<RegistryEvent>

/** Two nodes, a registry that reaches the server through a proxy, and a watch that has seen both. */
async function withNodes(t: TestContext, silence?: number) {
  const network = await KubernetesNetwork.open(kubernetes, t)
  for (const [name, last] of [
    ['a', 10],
    ['b', 11],
  ] as const) {
    await network.create(name, { podCIDRs: [`10.244.${last}.0/24`], annotations: annotationsOf(last) })
  }
  const proxy = await Proxy.start(t, kubernetes.url)
  const apiUrl = proxy.endpoint.replace('http:', 'https:')
  const registry = await network.connect('a', { apiUrl, ...(silence !== undefined && { silence }) })
  const events: Events = registry.watch(t.signal)
  const { incarnation } = await snapshotWhere(events, ({ leases }) => leases.size === 2)
  // Which shows that the watch stands.
  await network.annotate('b', { 'backend-type': 'host-gw' })
  await snapshotWhere(events, ({ changed }) => changed?.size === 1)
  network.calls.length = 0
  return { network, proxy, registry, events, incarnation }
}

/** The next event must be that the registry is unavailable: nothing is said of leases in between. */
async function assertUnavailable(events: Events, reason: RegExp): Promise<void> {
  const event = await eventWhere(events, () => true)
  assert.ok(event.kind === 'unavailable', `a snapshot of ${'leases' in event ? event.leases.size : 0} leases`)
  assert.match(event.reason, reason)
}

/** The first event from now on must be a snapshot. */
async function nextSnapshot(events: Events): Promise<LeaseSnapshot> {
  const event = await eventWhere(events, () => true)
  assert.ok(event.kind === 'snapshot', 'reason' in event ? event.reason : '')
  return event
}

/** Cuts the proxy's connections, and lets no other come through until `work` is done. */
async function without(proxy: Proxy, work: () => Promise<unknown>): Promise<void> {
  proxy.suspend()
  proxy.cut()
  await work()
  proxy.resume()
}

test('a server that is not there: unavailable, said once', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const registry = await network.connect('a', { apiUrl: `https://127.0.0.1:${await freePort()}` })
  await assert.rejects(acquire(registry, attributesOf(10), t.signal), {
    code: 'unavailable',
    message: /ECONNREFUSED/,
  })
  const events: Events = registry.watch(t.signal)
  await assertUnavailable(events, /^https:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED 127\.0\.0\.1:\d+$/)
  // Time for several attempts.
  assert.equal(await Promise.race([events.next(), setTimeout(1500, 'quiet')]), 'quiet')
})

test('a connection that is cut: the watch goes on where it was, and nothing is said', async (t) => {
  const { network, proxy, events } = await withNodes(t)
  proxy.cut()
  await network.create('c', { podCIDRs: ['10.244.12.0/24'], annotations: annotationsOf(12) })
  await network.delete('a')
  const seen = new Set<string>()
  while (seen.size < 2)
    for (const key of (await nextSnapshot(events)).changed ?? ['everything']) seen.add(key)
  assert.deepEqual(seen, new Set(['10.244.12.0-24', '10.244.10.0-24']))
  // One look whether it is the same store: nothing is read again.
  assert.deepEqual(network.calls, ['list'])
})

test('a watch that falls silent is begun anew, and what changed meanwhile is seen', async (t) => {
  const { network, proxy, events, incarnation } = await withNodes(t, 1000)
  proxy.suspend()
  await network.annotate('b', { 'public-ip': '192.168.1.77' })
  await network.delete('a')
  await assertUnavailable(events, /no answer within 10 s/)
  proxy.resume()
  const snapshot = await snapshotWhere(events, ({ leases }) => leases.size === 1)
  assert.deepEqual([...snapshot.leases.values()][0]?.publicIps, { inet: '192.168.1.77' })
  assert.equal(snapshot.incarnation, incarnation)
})

test('a watch that is quiet because nothing happens tells nothing', async (t) => {
  const { network, events } = await withNodes(t, 500)
  // It is begun again each time: this server has no bookmark to send while nothing happens.
  assert.equal(await Promise.race([events.next(), setTimeout(2500, 'quiet')]), 'quiet')
  assert.ok(network.calls.length > 1)
})

test('the server killed and started again with its data: unavailable in between, the same leases after', async (t) => {
  const { network, registry, events, incarnation } = await withNodes(t)
  const lease = await acquire(registry, attributesOf(10), t.signal)
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  await kubernetes.stop()
  await assertUnavailable(events, /./)
  await kubernetes.start()
  const snapshot = await snapshotWhere(events, () => true)
  assert.deepEqual([snapshot.leases.size, snapshot.incarnation], [2, incarnation])
  assert.deepEqual(snapshot.changed, new Set())
  await network.annotate('b', { 'public-ip': '192.168.1.77' })
  assert.deepEqual((await nextSnapshot(events)).changed, new Set(['10.244.11.0-24']))
  stop.abort()
  assert.equal(await held, 'released')
})

test('a version that the server no longer remembers (410): a new list', async (t) => {
  const { network, proxy, events, incarnation } = await withNodes(t)
  await without(proxy, async () => {
    await network.delete('a')
    await network.create('c', { podCIDRs: ['10.244.12.0/24'], annotations: annotationsOf(12) })
    await kubernetes.etcd.compact()
    // What it remembers in its own memory goes with the process.
    await kubernetes.stop()
    await kubernetes.start()
  })
  const snapshot = await snapshotWhere(events, ({ changed }) => changed?.size !== 0)
  assert.deepEqual(snapshot.changed, new Set(['10.244.10.0-24', '10.244.12.0-24']))
  assert.deepEqual(new Set(snapshot.leases.keys()), new Set(['10.244.11.0-24', '10.244.12.0-24']))
  assert.equal(snapshot.incarnation, incarnation)
  // The look whether it can go on, and the list.
  assert.deepEqual(network.calls.slice(-2), ['list', 'list'])
})

test('what the last watch knew is not listed again by the next', async (t) => {
  const { network, registry, events } = await withNodes(t)
  await events.return?.()
  await network.annotate('b', { 'public-ip': '192.168.1.77' })
  const again: Events = registry.watch(t.signal)
  const first = await nextSnapshot(again)
  assert.deepEqual([first.changed, first.leases.size], [undefined, 2])
  assert.deepEqual((await nextSnapshot(again)).changed, new Set(['10.244.11.0-24']))
  assert.deepEqual(network.calls, ['list'])
})

test('a user who may not: unavailable, and well again when he may', async (t) => {
  const { network, proxy, events } = await withNodes(t)
  const path = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings'
  const { body } = await kubernetes.request<{ readonly metadata: object }>('GET', `${path}/flannel`)
  await kubernetes.request('DELETE', `${path}/flannel`)
  while ((await kubernetes.request('GET', '/api/v1/nodes', undefined, { user: 'flannel' })).status !== 403)
    await setTimeout(50)
  proxy.cut()
  await assertUnavailable(events, /nodes is forbidden: User "flannel" cannot list resource "nodes"/)
  await kubernetes.request('POST', path, { ...body, metadata: { name: 'flannel' } })
  const { leases, changed } = await snapshotWhere(events, () => true)
  assert.deepEqual([leases.size, changed], [2, new Set()])
  await network.delete('a')
  assert.equal((await nextSnapshot(events)).leases.size, 1)
})

test('another store: another incarnation, and our lease is lost', async (t) => {
  const network = await KubernetesNetwork.open(replaced, t)
  const kubeconfig = await replaced.kubeconfig('admin')
  for (const [name, last] of [
    ['a', 10],
    ['b', 11],
  ] as const) {
    await network.create(name, { podCIDRs: [`10.244.${last}.0/24`], annotations: annotationsOf(last) })
  }
  for (let i = 0; i < 200; i++) await network.annotate('b', { count: `${i}` })
  const registry = await network.connect('a', { kubeconfig })
  const lease = await acquire(registry, attributesOf(10), t.signal)
  const held = registry.hold(lease, t.signal)
  const events: Events = registry.watch(t.signal)
  const { incarnation } = await snapshotWhere(events, ({ leases }) => leases.size === 2)
  await replaced.stop()
  await replaced.etcd.stop()
  replaced.etcd.wipe()
  await replaced.etcd.start()
  await replaced.start()
  const snapshot = await snapshotWhere(events, ({ leases }) => leases.size === 0)
  assert.notEqual(snapshot.incarnation, incarnation)
  assert.equal(await held, 'lost')
})
