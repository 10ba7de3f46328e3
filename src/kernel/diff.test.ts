import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { cannedStates, type State } from '../../test/states.ts'
import { parseIp } from '../address/ip.ts'
import { NO_KEY, parseKey, Secret } from '../address/key.ts'
import { parsePrefix } from '../address/prefix.ts'
import { type Entry, type Key, type KernelState, keyOf, type Operation, type Peer } from '../state.ts'
import { Desired } from './desired.ts'
import { diffEntry, orderOperations } from './diff.ts'
import { NexthopIds } from './nexthops.ts'

/** What the kernel does with an operation, in one line: the diff may rely on nothing more. */
function play(state: Map<Key, Entry>, { verb, entry }: Operation): void {
  if (verb === 'delete') state.delete(keyOf(entry))
  else state.set(keyOf(entry), entry)
  if (verb !== 'delete' || entry.kind !== 'link') return
  for (const [key, other] of state) if ('link' in other && other.link === entry.name) state.delete(key)
}

function diff(desired: KernelState, actual: KernelState): readonly Operation[] {
  const keys = new Set([...desired.keys(), ...actual.keys()])
  return orderOperations([...keys].flatMap((key) => diffEntry(desired.get(key), actual.get(key)) ?? []))
}

function desiredOf({ backend, shares }: State): KernelState {
  const desired = new Desired(new NexthopIds(), backend.scope.underlay)
  desired.exchange([], shares)
  return desired.entries
}

/** Turns until nothing is left to do: a link that must be made anew takes one more. */
function converge(desired: KernelState, actual: Map<Key, Entry>): void {
  for (let turn = 0; turn < 3; turn++) for (const operation of diff(desired, actual)) play(actual, operation)
}

const STATES = cannedStates(2, 'inet')

for (const families of ['inet', 'both'] as const) {
  describe(`every pair of canned states, ${families}`, () => {
    const states = cannedStates(2, families)
    for (const from of states) {
      test(`from "${from.name}" to every other, and back`, () => {
        for (const to of states) {
          const actual = new Map(desiredOf(from))
          for (const [there, name] of [
            [to, to.name],
            [from, `${to.name} and back`],
          ] as const) {
            const desired = desiredOf(there)
            converge(desired, actual)
            assert.deepEqual(actual, desired, name)
            assert.deepEqual(diff(desired, actual), [], `${name}: a second turn does nothing`)
          }
        }
      })
    }
  })
}

test('whatever the path, shares that were exchanged one by one say what they say at once', () => {
  const [first] = STATES
  assert.ok(first)
  const desired = new Desired(undefined)
  let present = first.shares
  desired.exchange([], present)
  for (const { shares } of [...STATES, ...STATES.toReversed()]) {
    for (const share of shares) desired.exchange([], [share])
    for (const share of present) desired.exchange([share], [])
    present = shares
    const whole = new Desired(undefined)
    whole.exchange([], shares)
    assert.deepEqual(desired.entries, whole.entries)
  }
})

test('what leads a packet somewhere is there before the route, and goes after it', () => {
  const from = STATES.find(({ name }) => name === 'one peer')
  const to = STATES.find(({ name }) => name === 'another three')
  assert.ok(from && to)
  const steps = diff(desiredOf(to), desiredOf(from)).map(({ verb, entry }) => `${verb} ${entry.kind}`)
  assert.deepEqual(
    steps.filter((step, i) => step !== steps[i - 1]),
    [
      'add fdb',
      'add neighbour',
      'change nexthop',
      'add nexthop',
      'add route',
      'delete route',
      'delete neighbour',
      'delete fdb',
    ],
  )
})

test('a link that cannot be changed in place is deleted first, and says why', () => {
  const links = STATES.map(desiredOf).map((state) =>
    [...state.values()].find((entry) => entry.kind === 'link'),
  )
  const [usual] = links
  const other = links.find((link) => link?.tunnel?.type === 'vxlan' && link.tunnel.port === 4789)
  assert.ok(usual)
  assert.deepEqual(diffEntry(other, usual), { verb: 'delete', entry: usual, why: 'port 8472, not 4789' })
})

describe('a peer', () => {
  const secret = Buffer.alloc(32, 3).toString('base64')
  const other = Buffer.alloc(32, 4).toString('base64')
  const peer: Peer = {
    kind: 'peer',
    link: 'flannel-wg',
    publicKey: NO_KEY,
    presharedKey: new Secret(parseKey(secret)),
    endpoint: parseIp('192.0.2.1'),
    port: 51820,
    keepalive: 0,
    allowedIps: [parsePrefix('10.10.1.0/24')],
  }

  test('that differs is changed, and says in what, except for its secrets', () => {
    for (const [change, why] of [
      [{ endpoint: parseIp('192.0.2.2') }, 'endpoint 192.0.2.1, not 192.0.2.2'],
      [{ port: 1 }, 'port 51820, not 1'],
      [{ keepalive: 25 }, 'keepalive 0, not 25'],
      [{ allowedIps: [] }, 'allowedIps 10.10.1.0/24, not none'],
      [{ presharedKey: undefined }, 'another presharedKey'],
      [{ presharedKey: new Secret(parseKey(other)) }, 'another presharedKey'],
    ] as const) {
      const desired = { ...peer, ...change }
      const operation = diffEntry(desired, peer)
      assert.deepEqual([operation?.verb, operation?.why], ['change', why])
      assert.ok(!JSON.stringify(operation).includes(secret))
    }
    assert.equal(diffEntry({ ...peer, presharedKey: new Secret(parseKey(secret)) }, peer), undefined)
  })

  test('that takes a subnet from another is there before the other goes, and after its link', () => {
    const older = { ...peer, publicKey: parseKey(other) }
    const link: Entry = {
      kind: 'link',
      name: 'flannel-wg',
      mac: undefined,
      mtu: 1420,
      up: true,
      appProbes: {},
      tunnel: undefined,
    }
    const desired = new Map<Key, Entry>([peer, link].map((entry) => [keyOf(entry), entry]))
    assert.deepEqual(
      diff(desired, new Map([[keyOf(older), older]])).map(({ verb, entry }) => `${verb} ${keyOf(entry)}`),
      ['add link flannel-wg', `add ${keyOf(peer)}`, `delete ${keyOf(older)}`],
    )
  })

  test('of several shares has the allowed IPs of all, in whatever order they come and go', () => {
    const share = (subnet: string, endpoint = '192.0.2.1') => ({
      entries: [{ ...peer, endpoint: parseIp(endpoint), allowedIps: [parsePrefix(subnet)] }],
      answers: [],
    })
    const [one, two, moved] = [
      share('10.10.1.0/24'),
      share('10.10.2.0/24'),
      share('10.10.1.0/24', '192.0.2.9'),
    ]
    const desired = new Desired(undefined)
    const told = () =>
      [...desired.entries.values()].map(
        (entry) => entry.kind === 'peer' && `${entry.endpoint} ${entry.allowedIps.join()}`,
      )
    desired.exchange([], [two, one])
    assert.deepEqual(told(), ['192.0.2.1 10.10.1.0/24,10.10.2.0/24'])
    desired.exchange([two], [])
    assert.deepEqual(told(), ['192.0.2.1 10.10.1.0/24'])
    desired.exchange([one], [moved])
    assert.deepEqual(told(), ['192.0.2.9 10.10.1.0/24'])
    desired.exchange([moved], [])
    assert.deepEqual(told(), [])
  })
})
