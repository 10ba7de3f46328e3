/** What every registry must do, whatever stores it. */

import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { type Family, type Ip, ipFromNumber, type PerFamily, parseIp } from '../src/address/ip.ts'
import { parsePrefix, prefixesOverlap } from '../src/address/prefix.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'
import { encodeLeaseValue, type Lease, type LeaseAttributes, type LeaseKey } from '../src/lease/lease.ts'
import type { LeaseRegistry, LeaseSnapshot, RegistryAdmin, RegistryEvent } from '../src/lease/registry.ts'

/** In milliseconds. */
export interface LeaseTimes {
  readonly ttl: number
  readonly renewMargin: number
}

/** A store of its own for one test, removed with it. */
export interface RegistryStore {
  /** The registry as one more host sees it. */
  connect(times?: LeaseTimes): LeaseRegistry & RegistryAdmin
  /** Writes an entry without an end, as a stranger might. */
  writeEntry(key: string, value: string): Promise<void>
}

const CONFIG = '{"Network": "10.3.0.0/16"}'
const NARROW = '{"Network": "10.3.0.0/24", "SubnetLen": 26}'
const HOST = parseIp('192.168.1.10')
const OTHER = parseIp('192.168.1.11')

/** Networks that have IPv6, alone and beside IPv4. `other` overlaps `subnets` in IPv6. */
const WITH_IPV6 = [
  {
    families: 'IPv6 alone',
    config: '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd80::/48"}',
    publicIps: (n: number): PerFamily<Ip> => ({ inet6: parseIp(`fd00::${n}`) }),
    subnets: { inet6: parsePrefix('fd80:0:0:48::/64') },
    key: '0.0.0.0-0&fd80:0:0:48::-64',
    other: { inet6: parsePrefix('fd80:0:0:48::/62') },
  },
  {
    families: 'both families',
    config: '{"Network": "10.3.0.0/16", "EnableIPv6": true, "IPv6Network": "fd80::/48"}',
    publicIps: (n: number): PerFamily<Ip> => ({
      inet: parseIp(`192.168.1.${n}`),
      inet6: parseIp(`fd00::${n}`),
    }),
    subnets: { inet: parsePrefix('10.3.48.0/24'), inet6: parsePrefix('fd80:0:0:48::/64') },
    key: '10.3.48.0-24&fd80:0:0:48::-64',
    other: { inet: parsePrefix('10.3.49.0/24'), inet6: parsePrefix('fd80:0:0:48::/64') },
  },
] as const

export function registryContract(
  name: string,
  createStore: (t: TestContext) => Promise<RegistryStore>,
): void {
  suite(`registry contract: ${name}`, { timeout: 60_000 }, () => {
    test('the config is absent, then what was put, to the letter', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      assert.equal(await registry.readConfig(signal), undefined)
      const text = ' {"network":\n "10.3.0.0/16"}'
      await admin.putConfig(text)
      assert.equal(await registry.readConfig(signal), text)
    })

    test('a host gets a subnet, and the same lease again with what it says of itself now', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const first = await acquire(registry, HOST, signal)
      assert.match(first.key, /^10\.3\.\d+\.0-24$/)
      assert.deepEqual(first.subnets, { inet: first.key.replace('-', '/') })
      const attributes = {
        publicIps: { inet: HOST },
        backendType: 'vxlan',
        backendData: { inet: { VNI: 2 } },
      }
      const request = { config: parseNetworkConfig(CONFIG), attributes, previous: {} }
      const second = await registry.acquire(request, signal)
      assert.deepEqual({ ...second, expires: 0 }, { ...first, ...attributes, expires: 0 })
    })

    test('hosts that ask at once get subnets apart', async (t) => {
      const { store, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const hosts = Array.from({ length: 20 }, (_, i) => ipFromNumber(0xc0a80200n + BigInt(i), 'inet'))
      const leases = await Promise.all(hosts.map((host) => acquire(store.connect(), host, signal)))
      assertApart(leases)
    })

    test('the previous subnet is taken again unless another host has it', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const previous = { inet: parsePrefix('10.3.77.0/24') }
      assert.equal((await acquire(registry, HOST, signal, { previous })).key, '10.3.77.0-24')
      assert.notEqual((await acquire(registry, OTHER, signal, { previous })).key, '10.3.77.0-24')
    })

    test('a lease that does not fit a new config is replaced', async (t) => {
      const { registry, admin, signal, events } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const { key } = await acquire(registry, HOST, signal)
      const config = '{"Network": "10.4.0.0/16"}'
      const lease = await acquire(registry, HOST, signal, { config })
      assert.match(lease.key, /^10\.4\./)
      const snapshot = await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
      assert.ok(!snapshot.leases.has(key))
    })

    test('no subnet is left: an answer, not a failure', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(NARROW)
      for (const last of [20, 21, 22]) {
        await acquire(registry, parseIp(`192.168.1.${last}`), signal, { config: NARROW })
      }
      await assert.rejects(acquire(registry, HOST, signal, { config: NARROW }), {
        code: 'out-of-subnets',
        message: /all 3 subnets of length 26/,
      })
    })

    test('a reservation is its host’s alone and does not expire', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(NARROW)
      const reserved = await admin.reserve({ inet: parsePrefix('10.3.0.64/26') }, { inet: HOST })
      await admin.reserve({ inet: parsePrefix('10.3.0.128/26') }, { inet: parseIp('192.168.1.12') })
      assert.equal(reserved.expires, undefined)
      assert.equal((await acquire(registry, OTHER, signal, { config: NARROW })).key, '10.3.0.192-26')
      const lease = await acquire(registry, HOST, signal, { config: NARROW })
      assert.equal(lease.key, '10.3.0.64-26')
      assert.equal(lease.expires, undefined)
      assert.equal(lease.backendType, 'vxlan')
    })

    test('a lease becomes a reservation and stays its host’s; another’s is not reserved', async (t) => {
      const { registry, admin, signal } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const previous = { inet: parsePrefix('10.3.77.0/24') }
      const lease = await acquire(registry, HOST, signal, { previous })
      assert.deepEqual(await admin.reserve(previous, { inet: HOST }), { ...lease, expires: undefined })
      await assert.rejects(admin.reserve(previous, { inet: OTHER }), {
        code: 'conflict',
        message: /192\.168\.1\.10/,
      })
      await assert.rejects(admin.reserve({ inet: parsePrefix('10.3.76.0/23') }, { inet: HOST }), {
        code: 'conflict',
      })
      await assert.rejects(
        admin.reserve({ inet: parsePrefix('10.3.78.0/24') }, { inet6: parseIp('fd00::1') }),
        {
          code: 'invalid',
        },
      )
    })

    test('watch: the first snapshot is complete, the next say what changed', async (t) => {
      const { store, registry, admin, signal, events } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const lease = await acquire(registry, HOST, signal)
      const late = store.connect().watch(signal)[Symbol.asyncIterator]()
      const complete = await snapshotWhere(late, () => true)
      assert.deepEqual([complete.config, complete.changed], [CONFIG, undefined])
      const expires = expiry(complete.leases, lease.key)
      // Who did not write a lease may think that it lasts longer.
      assert.ok(expires >= (lease.expires ?? 0))
      assert.deepEqual(complete.leases, new Map([[lease.key, { ...lease, expires }]]))

      await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
      const attributes = { publicIps: { inet: HOST }, backendType: 'host-gw', backendData: {} }
      await acquire(registry, HOST, signal, { attributes })
      const changed = await snapshotWhere(
        events,
        ({ leases }) => leases.get(lease.key)?.backendType === 'host-gw',
      )
      assert.deepEqual(changed.changed, new Set([lease.key]))

      const other = await acquire(registry, OTHER, signal)
      const added = await snapshotWhere(events, ({ leases }) => leases.size === 2)
      assert.deepEqual(added.changed, new Set([other.key]))

      await admin.release(subnetOf(lease))
      const removed = await snapshotWhere(events, ({ leases }) => leases.size === 1)
      assert.deepEqual(removed.changed, new Set([lease.key]))
      await assert.rejects(admin.release(subnetOf(lease)), { code: 'not-found' })

      await admin.putConfig(NARROW)
      const config = await snapshotWhere(events, (snapshot) => snapshot.config === NARROW)
      assert.deepEqual([config.changed, config.incarnation], [new Set(), complete.incarnation])
    })

    test('watch ends with its signal', async (t) => {
      const { store } = await setUp(t, createStore)
      const stop = new AbortController()
      for await (const event of store.connect().watch(stop.signal)) {
        assert.equal(event.kind, 'snapshot')
        stop.abort()
      }
    })

    test('a lease that nobody renews goes; its host may come back to it, or another take it', async (t) => {
      const { store, admin, signal, events } = await setUp(t, createStore)
      const registry = store.connect({ ttl: 300, renewMargin: 100 })
      await admin.putConfig(NARROW)
      const config = NARROW
      const lease = await acquire(registry, HOST, signal, { config })
      await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
      const expired = await snapshotWhere(events, ({ leases }) => leases.size === 0)
      assert.ok(expired.changed === undefined || expired.changed.has(lease.key))
      const previous = lease.subnets
      assert.equal((await acquire(registry, HOST, signal, { config, previous })).key, lease.key)
      await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
      await snapshotWhere(events, ({ leases }) => leases.size === 0)
      const taken = await acquire(registry, OTHER, signal, { config, previous })
      assert.equal(taken.key, lease.key)
      assert.ok(taken.created > lease.created)
      assert.notEqual((await acquire(registry, HOST, signal, { config })).key, lease.key)
    })

    test('hold renews, and lets go with its signal', async (t) => {
      const { store, admin, signal, events } = await setUp(t, createStore)
      const registry = store.connect({ ttl: 2000, renewMargin: 1800 })
      await admin.putConfig(CONFIG)
      const lease = await acquire(registry, HOST, signal)
      const stop = new AbortController()
      const held = registry.hold(lease, stop.signal)
      const renewed = await snapshotWhere(
        events,
        ({ leases }) => expiry(leases, lease.key) > (lease.expires ?? 0),
      )
      assert.equal(renewed.leases.get(lease.key)?.created, lease.created)
      stop.abort()
      assert.equal(await held, 'released')
    })

    test('hold: a lease that was removed or is another’s is lost, and stays so', async (t) => {
      const { store, admin, signal, events } = await setUp(t, createStore)
      const registry = store.connect({ ttl: 60_000, renewMargin: 59_900 })
      await admin.putConfig(CONFIG)
      const lease = await acquire(registry, HOST, signal)
      const held = registry.hold(lease, signal)
      await admin.release(subnetOf(lease))
      assert.equal(await held, 'lost')
      const taken = await acquire(registry, OTHER, signal, { previous: lease.subnets })
      assert.equal(taken.key, lease.key)
      assert.equal(await registry.hold(lease, signal), 'lost')
      const after = await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
      assert.deepEqual(after.leases.get(lease.key)?.publicIps, { inet: OTHER })
    })

    test('hold: an own value that somebody broke is written again', async (t) => {
      const { store, registry, admin, signal, events } = await setUp(t, createStore)
      await admin.putConfig(CONFIG)
      const lease = await acquire(registry, HOST, signal)
      await store.writeEntry(lease.key, '{"PublicIP":')
      await snapshotWhere(events, ({ malformed }) => malformed.has(lease.key))
      const stop = new AbortController()
      const held = registry.hold(lease, stop.signal)
      const { leases } = await snapshotWhere(events, ({ malformed }) => malformed.size === 0)
      assert.deepEqual(leases.get(lease.key)?.publicIps, lease.publicIps)
      stop.abort()
      assert.equal(await held, 'released')
    })

    test('junk disturbs nobody, and its subnet is nobody’s to take', async (t) => {
      const { store, registry, admin, signal, events } = await setUp(t, createStore)
      await admin.putConfig(NARROW)
      const lease = await acquire(registry, HOST, signal, {
        config: NARROW,
        previous: { inet: parsePrefix('10.3.0.64/26') },
      })
      await store.writeEntry('junk', '{}')
      await store.writeEntry('10.3.0.128-26', '{"PublicIP": 7}')
      const { leases, malformed } = await snapshotWhere(events, (snapshot) => snapshot.malformed.size === 2)
      assert.deepEqual([...leases.keys()], [lease.key])
      assert.match(malformed.get('junk') ?? '', /not a lease key/)
      assert.match(malformed.get('10.3.0.128-26') ?? '', /PublicIP is 7/)
      assert.equal((await acquire(registry, OTHER, signal, { config: NARROW })).key, '10.3.0.192-26')
      await admin.release(parsePrefix('10.3.0.128/26'))
      await snapshotWhere(events, (snapshot) => !snapshot.malformed.has('10.3.0.128-26'))
    })

    for (const { families, config, publicIps, subnets, key, other } of WITH_IPV6) {
      test(`${families}: the same lease again, by its public IP, and by the subnet it had`, async (t) => {
        const { registry, admin, signal } = await setUp(t, createStore)
        await admin.putConfig(config)
        const attributes = {
          publicIps: publicIps(10),
          backendType: 'vxlan',
          backendData: { inet6: { VNI: 1 } },
        }
        const first = await acquire(registry, HOST, signal, { config, attributes, previous: subnets })
        assert.equal(first.key, key)
        assert.deepEqual(first.subnets, subnets)
        assert.deepEqual(first.publicIps, publicIps(10))
        const again = await acquire(registry, HOST, signal, { config, attributes })
        assert.deepEqual({ ...again, expires: 0 }, { ...first, expires: 0 })
        const moved = { ...attributes, publicIps: publicIps(11) }
        const theirs = await acquire(registry, HOST, signal, { config, attributes: moved, previous: subnets })
        for (const family of ['inet', 'inet6'] as const) assertApart([first, theirs], family)
        await admin.release(subnets.inet6)
        const freed = await acquire(registry, HOST, signal, {
          config,
          attributes: { ...attributes, publicIps: publicIps(12) },
          previous: subnets,
        })
        assert.equal(freed.key, key)
      })

      test(`${families}: hosts that ask at once get subnets apart, and all see all`, async (t) => {
        const { store, admin, signal, events } = await setUp(t, createStore)
        await admin.putConfig(config)
        const leases = await Promise.all(
          Array.from({ length: 20 }, (_, n) => {
            const attributes = { publicIps: publicIps(n), backendType: 'vxlan', backendData: {} }
            return acquire(store.connect(), HOST, signal, { config, attributes })
          }),
        )
        for (const family of ['inet', 'inet6'] as const) assertApart(leases, family)
        assert.equal(new Set(leases.flatMap((lease) => lease.subnets.inet6 ?? [])).size, 20)
        const known = await snapshotWhere(events, (snapshot) => snapshot.leases.size === 20)
        for (const lease of leases) assert.deepEqual(known.leases.get(lease.key)?.subnets, lease.subnets)
      })

      test(`${families}: a reservation is its host’s; what it overlaps in one family is no other’s`, async (t) => {
        const { registry, admin, signal } = await setUp(t, createStore)
        await admin.putConfig(config)
        const reserved = await admin.reserve(subnets, publicIps(10))
        assert.equal(reserved.key, key)
        await assert.rejects(admin.reserve(other, publicIps(11)), { code: 'conflict' })
        await assert.rejects(admin.reserve(subnets, { inet: HOST }), { code: 'invalid' })
        const attributes = { publicIps: publicIps(10), backendType: 'vxlan', backendData: {} }
        const lease = await acquire(registry, HOST, signal, { config, attributes })
        assert.deepEqual([lease.key, lease.expires], [key, undefined])
      })

      test(`${families}: hold renews, and says when the lease is another’s`, async (t) => {
        const { store, admin, signal, events } = await setUp(t, createStore)
        const registry = store.connect({ ttl: 60_000, renewMargin: 59_900 })
        await admin.putConfig(config)
        const attributes = { publicIps: publicIps(10), backendType: 'vxlan', backendData: {} }
        const lease = await acquire(registry, HOST, signal, { config, attributes })
        const held = registry.hold(lease, signal)
        await snapshotWhere(events, ({ leases }) => expiry(leases, lease.key) > (lease.expires ?? 0))
        await store.writeEntry(lease.key, encodeLeaseValue({ ...lease, publicIps: publicIps(11) }))
        assert.equal(await held, 'lost')
      })
    }
  })
}

/** A store with two clients, and one watch that began before anything was written. */
async function setUp(t: TestContext, createStore: (t: TestContext) => Promise<RegistryStore>) {
  const store = await createStore(t)
  const [registry, admin] = [store.connect(), store.connect()]
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  return { store, registry, admin, events, signal: t.signal }
}

interface AcquireOptions {
  readonly config?: string
  readonly attributes?: LeaseAttributes
  readonly previous?: Lease['subnets']
}

export async function acquire(
  registry: LeaseRegistry,
  publicIp: Ip,
  signal: AbortSignal,
  { config = CONFIG, attributes, previous = {} }: AcquireOptions = {},
): Promise<Lease> {
  const vxlan = { publicIps: { inet: publicIp }, backendType: 'vxlan', backendData: { inet: { VNI: 1 } } }
  const request = { config: parseNetworkConfig(config), attributes: attributes ?? vxlan, previous }
  return registry.acquire(request, signal)
}

/** The first event from now on of which that holds. */
export async function eventWhere(
  events: AsyncIterator<RegistryEvent>,
  holds: (event: RegistryEvent) => boolean,
): Promise<RegistryEvent> {
  for (;;) {
    const { value, done } = await events.next()
    assert.ok(!done, 'the watch ended')
    if (holds(value)) return value
  }
}

export async function snapshotWhere(
  events: AsyncIterator<RegistryEvent>,
  holds: (snapshot: LeaseSnapshot) => boolean,
): Promise<LeaseSnapshot> {
  const event = await eventWhere(events, (each) => each.kind === 'snapshot' && holds(each))
  assert.equal(event.kind, 'snapshot')
  return event
}

/** No two leases share an address. */
export function assertApart(leases: readonly Lease[], family: Family = 'inet'): void {
  const subnets = leases.flatMap((lease) => lease.subnets[family] ?? [])
  for (const [i, subnet] of subnets.entries()) {
    assert.ok(!subnets.slice(i + 1).some((other) => prefixesOverlap(subnet, other)), `${subnet} twice`)
  }
}

export function subnetOf({ subnets }: Lease) {
  assert.ok(subnets.inet !== undefined)
  return subnets.inet
}

function expiry(leases: ReadonlyMap<LeaseKey, Lease>, key: LeaseKey): number {
  return leases.get(key)?.expires ?? 0
}
