/**
 * The oracle of everything that is computed for what changed alone: whatever happened to a registry, the plan that the
 * agent has reached step by step is the plan that one look at the whole would make. So is the kernel that either leads to.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parseIp } from '../src/address/ip.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import type { Backend } from '../src/backend/backend.ts'
import { vxlan } from '../src/backend/vxlan.ts'
import { type NetworkConfig, parseNetworkConfig } from '../src/config/network-config.ts'
import type { Cell } from '../src/kernel/cells.ts'
import { Desired } from '../src/kernel/desired.ts'
import { diffEntry, orderOperations } from '../src/kernel/diff.ts'
import { NexthopIds } from '../src/kernel/nexthops.ts'
import { Admission, byAge } from '../src/lease/admission.ts'
import { type Entry as Stored, Snapshots } from '../src/lease/entries.ts'
import { Grace } from '../src/lease/grace.ts'
import type { Lease, LeaseKey } from '../src/lease/lease.ts'
import type { LeaseSnapshot } from '../src/lease/registry.ts'
import { type Entry, type Key, type KernelState, keyOf, type Share } from '../src/state.ts'

const FACTS = { config: undefined, incarnation: '1' }
const SELF: Lease = {
  key: '10.10.1.0-24' as LeaseKey,
  subnets: { inet: parsePrefix('10.10.1.0/24') },
  publicIps: { inet: parseIp('192.168.1.10') },
  backendType: 'vxlan',
  backendData: {},
  expires: undefined,
  created: 1,
}

/** What the agent does with a snapshot (`agent/network.ts`), and a kernel that obeys. */
class Follower {
  readonly #backend: Backend
  readonly #admission: Admission
  readonly #grace = new Grace(0)
  readonly desired: Desired
  readonly kernel = new Map<Key, Entry>()

  constructor(config: NetworkConfig, backend: Backend, ids: NexthopIds | undefined) {
    this.#backend = backend
    const judge = (lease: Lease) => backend.judge(lease)
    this.#admission = new Admission({
      ranges: config.ranges,
      self: SELF,
      backendType: backend.leaseType,
      judge,
    })
    this.desired = new Desired(ids, backend.scope.underlay)
    this.#turn(this.desired.exchange([], [backend.own(SELF)]))
  }

  take(snapshot: LeaseSnapshot): void {
    const known = this.#grace.take(snapshot, 0)
    if (this.#admission.outcomes.size === 0) return this.#begin([...known.leases.values()].sort(byAge))
    const removed: Share[] = []
    const added: Share[] = []
    for (const { before, after } of this.#admission.update(known)) {
      if (before?.kind === 'admitted') removed.push(this.#backend.peer(before.lease))
      if (after?.kind === 'admitted') added.push(this.#backend.peer(after.lease))
    }
    this.#turn(this.desired.exchange(removed, added))
  }

  /** One by one, as at a start: whatever the kernel is told holds. */
  #begin(leases: readonly Lease[]): void {
    for (const lease of leases) {
      const outcome = this.#admission.admit(lease)
      if (outcome.kind === 'admitted')
        this.#turn(this.desired.exchange([], [this.#backend.peer(outcome.lease)]))
    }
  }

  /** Looks at the touched keys alone; again, because what cannot be changed in place is made in a second round. */
  #turn(touched: readonly Cell[]): void {
    const desired = this.desired.entries
    for (let round = 0; round < 2; round++) {
      const operations = [...new Set(touched.map(({ like }) => keyOf(like)))].flatMap(
        (key) => diffEntry(desired.get(key), this.kernel.get(key)) ?? [],
      )
      for (const { verb, entry } of orderOperations(operations)) {
        if (verb === 'delete') this.kernel.delete(keyOf(entry))
        else this.kernel.set(keyOf(entry), entry)
      }
    }
  }
}

/** Subnets that overlap, MACs and hosts that contradict each other, and what is no lease at all. */
const KEY = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.tuple(fc.nat(9), fc.constantFrom(23, 24, 24, 24, 25)).map(([n, l]) => `10.10.${n}.0-${l}`),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.nat(9), fc.nat(9), fc.constantFrom(63, 64, 64))
      .map(([n, n6, l]) => `10.10.${n}.0-24&fd10:0:0:${n6}::-${l}`),
  },
  fc.constantFrom('junk', '10.11.0.0-24', '10.10.3.7-24', '10.10.3.0-24&fd00::-64'),
)
const VALUE = fc.oneof(
  {
    weight: 9,
    arbitrary: fc
      .record({
        host: fc.integer({ min: 9, max: 14 }),
        mac: fc.nat(4),
        type: fc.constantFrom('vxlan', 'vxlan', 'vxlan', 'host-gw', 'host-gw'),
        host6: fc.option(fc.integer({ min: 9, max: 14 })),
        mac6: fc.option(fc.nat(4)),
      })
      .map(({ host, mac, type, host6, mac6 }) =>
        JSON.stringify({
          PublicIP: `192.168.1.${host}`,
          PublicIPv6: host6 === null ? null : `fd00::${host6}`,
          BackendType: type,
          BackendData: { VtepMAC: `02:00:00:00:00:0${mac}` },
          BackendV6Data: mac6 === null ? null : { VtepMAC: `02:00:00:00:06:0${mac6}` },
        }),
      ),
  },
  fc.constantFrom('{', '{"PublicIP": 7}', '{"PublicIP":"192.168.1.11","BackendType":"vxlan"}'),
)
const CHANGE = fc.tuple(KEY, fc.option(VALUE, { nil: undefined, freq: 3 }))
const HISTORY = fc.array(fc.array(CHANGE, { minLength: 1, maxLength: 5 }), { maxLength: 15 })
const ADDRESSES = Array.from({ length: 11 }, (_, n) => [
  ['flannel.1', parseIp(`10.10.${n}.${n * 20}`)] as const,
  ['flannel-v6.1', parseIp(`fd10:0:0:${n}::${n * 20}`)] as const,
]).flat()

/** Which object a route names is the kernel layer's choice, and depends on what was there before. */
function withoutIds(state: KernelState): Map<string, unknown> {
  return new Map(
    [...state]
      .map(([key, entry]): [string, unknown] => {
        if (entry.kind === 'nexthop') return [`nexthop ${entry.gateway}`, { ...entry, id: 0 }]
        return [key, entry.kind === 'route' ? { ...entry, nexthop: entry.nexthop !== undefined } : entry]
      })
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  )
}

function setUp(settings: object, families: 'inet' | 'both') {
  const Backend = { Type: 'vxlan', ...settings }
  const second = families === 'both' && { EnableIPv6: true, IPv6Network: 'fd10::/48' }
  const config = parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...second, Backend }))
  const addresses = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00::10') }
  const backend = vxlan(config, {
    external: { name: 'eth0', index: 2, mtu: 1500, addresses },
    publicIps: addresses,
    links: new Map(),
    underlay: [
      { prefix: parsePrefix('192.168.1.12/30'), direct: true },
      { prefix: parsePrefix('fd00::/64'), direct: true },
      { prefix: parsePrefix('fd00::11/128'), direct: false },
    ],
  })
  return { config, backend }
}

describe('law: step by step is as at once', () => {
  for (const [name, settings, objects, families] of [
    ['static, with nexthop objects', {}, true, 'inet'],
    ['static, with gateway routes', {}, false, 'inet'],
    ['L3 miss', { L3Miss: true }, true, 'inet'],
    ['static, both families', {}, true, 'both'],
    ['L3 miss and direct routing, both families', { L3Miss: true, DirectRouting: true }, true, 'both'],
    ['L3 and L2 miss, both families', { L3Miss: true, L2Miss: true }, true, 'both'],
    ['a group, both families', { Group: '239.1.1.1', GroupV6: 'ff05::1' }, true, 'both'],
    ['direct routing, both families', { DirectRouting: true }, true, 'both'],
    ['host-gw, both families', { Type: 'host-gw' }, true, 'both'],
  ] as const) {
    test(name, () => {
      const { config, backend } = setUp(settings, families)
      const begin = () => new Follower(config, backend, objects ? new NexthopIds() : undefined)
      fc.assert(
        fc.property(HISTORY, (history) => {
          const snapshots = new Snapshots()
          const steps = begin()
          steps.take(snapshots.take({ ...FACTS, entries: [] }, 0).snapshot)
          const stored = new Map<string, Stored>()
          let created = 1
          for (const changes of history) {
            const step = new Map<string, Stored | undefined>()
            for (const [key, value] of changes) {
              const before = stored.get(key)
              const entry =
                value === undefined
                  ? undefined
                  : { key, value, expires: undefined, created: before?.created ?? ++created }
              if (entry === undefined) stored.delete(key)
              else stored.set(key, entry)
              step.set(key, entry)
            }
            steps.take(snapshots.change(step, FACTS).snapshot)
          }

          const whole = begin()
          const entries = [...stored.values()].sort((a, b) => a.created - b.created)
          const { snapshot } = new Snapshots().take({ ...FACTS, entries }, 0)
          // An entry that cannot be read keeps the lease that it was: of that, the whole knows nothing.
          fc.pre(
            snapshot.malformed.size === 0 || [...snapshot.malformed.keys()].every((key) => key === 'junk'),
          )
          whole.take(snapshot)
          assert.deepEqual(withoutIds(steps.desired.entries), withoutIds(whole.desired.entries))
          assert.deepEqual(steps.kernel, new Map(steps.desired.entries), 'the kernel is as desired')
          for (const [link, ip] of ADDRESSES) {
            const [step, once] = [steps, whole].map(({ desired }) => desired.answers.find(link, ip))
            assert.equal(step, once, ip)
            const [there, there6] = [steps, whole].map(
              ({ desired }) => step && desired.answers.findDestination(link, step),
            )
            assert.equal(there, there6, step)
          }
          for (const [key, entry] of steps.kernel) assert.equal(key, keyOf(entry))
        }),
        { numRuns: 500 },
      )
    })
  }
})
