import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipFromNumber, parseIp } from '../address/ip.ts'
import { type Prefix, prefixesOverlap } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import { Admission, byAge, type OutcomeChange } from './admission.ts'
import type { AdmissionRules, Outcome } from './judge.ts'
import { formatLeaseKey, type Lease, type LeaseKey, parseLeaseKey } from './lease.ts'

const { ranges } = parseNetworkConfig('{"Network": "10.3.0.0/16"}')

function lease(key: string, publicIp: string, mac: string, more: Partial<Lease> = {}): Lease {
  const subnets = parseLeaseKey(key)
  return {
    key: formatLeaseKey(subnets),
    subnets,
    publicIps: { inet: parseIp(publicIp) },
    backendType: 'vxlan',
    backendData: { inet: mac },
    expires: 1,
    created: 1,
    ...more,
  }
}

const self = lease('10.3.1.0-24', '192.168.1.10', 'self')

/** As vxlan does it: a MAC is one public IP's. */
const rules: AdmissionRules = {
  ranges,
  self,
  backendType: 'vxlan',
  judge({ backendData, publicIps }) {
    if (backendData.inet === 'bad') return { refused: 'VtepMAC is bad' }
    return { claims: [{ kind: 'MAC', name: String(backendData.inet), value: `${publicIps.inet}` }] }
  },
}

function byKey(leases: readonly Lease[]): Map<LeaseKey, Lease> {
  return new Map(leases.map((each) => [each.key, each]))
}

/** What comes of a lease alone. */
function alone(candidate: Lease, more: Partial<AdmissionRules> = {}): Outcome | undefined {
  const admission = new Admission({ ...rules, ...more })
  return admission.update({ leases: byKey([candidate]), changed: undefined })[0]?.after
}

function summary(changes: readonly OutcomeChange[]): Record<string, string> {
  const show = (outcome: Outcome | undefined) =>
    outcome === undefined ? 'gone' : 'reason' in outcome ? `${outcome.kind}: ${outcome.reason}` : outcome.kind
  return Object.fromEntries(changes.map(({ key, after }) => [key, show(after)]))
}

test('a good lease is admitted, our own is own', () => {
  const peer = lease('10.3.2.0-24', '192.168.1.11', 'a')
  assert.deepEqual(alone(peer), { kind: 'admitted', lease: peer })
  assert.deepEqual(alone(self), { kind: 'own' })
})

test('hostile leases are refused with the reason', () => {
  const expected: [Lease, string][] = [
    [lease('10.4.2.0-24', '192.168.1.11', 'a'), '10.4.2.0/24 is outside the network 10.3.0.0/16'],
    [lease('10.0.0.0-8', '192.168.1.11', 'a'), '10.0.0.0/8 is outside the network 10.3.0.0/16'],
    [lease('10.3.0.0-20', '192.168.1.11', 'a'), '10.3.0.0/20 overlaps our own subnet 10.3.1.0/24'],
    [lease('10.3.1.128-25', '192.168.1.11', 'a'), '10.3.1.128/25 overlaps our own subnet 10.3.1.0/24'],
    [lease('10.3.2.0-24', '192.168.1.10', 'a'), 'public IP 192.168.1.10 is our own'],
    [lease('10.3.2.0-24', '127.0.0.2', 'a'), 'public IP 127.0.0.2 is a loopback address'],
    [lease('10.3.2.0-24', '239.1.1.1', 'a'), 'public IP 239.1.1.1 is a multicast address'],
    [lease('10.3.2.0-24', '0.0.0.0', 'a'), 'public IP 0.0.0.0 is the unspecified address'],
    [lease('10.3.2.0-24', '255.255.255.255', 'a'), 'public IP 255.255.255.255 is the broadcast address'],
    [lease('10.3.2.0-24', '192.168.1.11', 'a', { publicIps: {} }), 'it has no public IP for 10.3.2.0/24'],
    [lease('10.3.2.0-24', '192.168.1.11', 'bad'), 'VtepMAC is bad'],
  ]
  for (const [candidate, reason] of expected) assert.deepEqual(alone(candidate), { kind: 'refused', reason })
})

test('what is not meant for us is ignored', () => {
  const expected: [Lease, string][] = [
    [lease('10.4.2.0-24', '127.0.0.1', 'a', { backendType: '' }), 'no host has claimed it yet'],
    [
      lease('10.3.2.0-24', '192.168.1.11', 'a', { backendType: 'host-gw' }),
      'its backend is host-gw, ours is vxlan',
    ],
    [lease('0.0.0.0-0&fd00::-64', '192.168.1.11', 'a'), 'it has no subnet of our address family'],
  ]
  for (const [candidate, reason] of expected) assert.deepEqual(alone(candidate), { kind: 'ignored', reason })
})

test('a dual-stack lease reaches an IPv4 network without its IPv6 half, and the reverse', () => {
  const publicIps = { inet: parseIp('192.168.1.11'), inet6: parseIp('fd99::11') }
  const peer = lease('10.3.2.0-24&fd00:0:0:1::-64', '192.168.1.11', 'a', {
    publicIps,
    backendData: { inet: 'a', inet6: 'b' },
  })
  const { subnets } = peer
  assert.deepEqual(alone(peer), {
    kind: 'admitted',
    lease: {
      ...peer,
      subnets: { inet: subnets.inet },
      publicIps: { inet: publicIps.inet },
      backendData: { inet: 'a' },
    },
  })
  const dual = parseNetworkConfig(
    '{"Network": "10.3.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48"}',
  ).ranges
  assert.deepEqual(alone(peer, { ranges: dual }), { kind: 'admitted', lease: peer })
  const half = lease('10.3.2.0-24', '192.168.1.11', 'a')
  assert.deepEqual(alone(half, { ranges: dual }), { kind: 'admitted', lease: half })
})

test('of two leases that contradict each other the older holds, until it goes', () => {
  const admission = new Admission(rules)
  const old = lease('10.3.2.0-24', '192.168.1.11', 'a', { created: 1 })
  const overlap = lease('10.3.2.0-23', '192.168.1.12', 'b', { created: 2 })
  const sameMac = lease('10.3.8.0-24', '192.168.1.13', 'a', { created: 3 })
  const sameHost = lease('10.3.9.0-24', '192.168.1.11', 'a', { created: 4 })
  const leases = byKey([overlap, sameMac, sameHost])
  // sameMac is older than sameHost, and they claim one MAC at two addresses.
  assert.deepEqual(summary(admission.update({ leases, changed: undefined })), {
    '10.3.2.0-23': 'admitted',
    '10.3.8.0-24': 'admitted',
    '10.3.9.0-24': 'refused: MAC a at 192.168.1.11 is that of the older lease 10.3.8.0-24 at 192.168.1.13',
  })
  leases.set(old.key, old)
  assert.deepEqual(summary(admission.update({ leases, changed: new Set([old.key]) })), {
    '10.3.2.0-24': 'admitted',
    '10.3.2.0-23': 'refused: 10.3.2.0/23 overlaps the older lease 10.3.2.0-24',
    '10.3.8.0-24': 'refused: MAC a at 192.168.1.13 is that of the older lease 10.3.2.0-24 at 192.168.1.11',
    '10.3.9.0-24': 'admitted',
  })
  leases.delete(old.key)
  assert.deepEqual(summary(admission.update({ leases, changed: new Set([old.key]) })), {
    '10.3.2.0-24': 'gone',
    '10.3.2.0-23': 'admitted',
    '10.3.8.0-24': 'admitted',
    '10.3.9.0-24': 'refused: MAC a at 192.168.1.11 is that of the older lease 10.3.8.0-24 at 192.168.1.13',
  })
})

test('one changed lease among 20,000 is judged alone', () => {
  let judged = 0
  const big = parseNetworkConfig('{"Network": "10.0.0.0/8"}').ranges
  const judge: AdmissionRules['judge'] = (each) => {
    judged++
    return rules.judge(each)
  }
  const admission = new Admission({ ...rules, ranges: big, judge })
  const peers = Array.from({ length: 20_000 }, (_, i) => {
    const base = ipFromNumber(0x0b000000n - (BigInt(i + 1) << 8n), 'inet')
    return lease(`${base}-24`, String(ipFromNumber(0xc0a90000n + BigInt(i), 'inet')), `mac ${i}`)
  })
  const leases = byKey(peers)
  assert.equal(admission.update({ leases, changed: undefined }).length, 20_000)
  judged = 0
  const moved = lease('10.255.255.0-24', '192.168.1.77', 'new')
  leases.set(moved.key, moved)
  const changes = admission.update({ leases, changed: new Set([moved.key]) })
  const [before, after] = [peers[0] as Lease, moved].map((each) => ({ kind: 'admitted', lease: each }))
  assert.deepEqual(changes, [{ key: moved.key, before, after }])
  // The one that comes, and the one that goes: what it claimed is taken back.
  assert.equal(judged, 3)
  assert.equal(admission.update({ leases, changed: undefined }).length, 0)
})

test('thousands that claim one MAC, and one by one at that, are not compared in pairs', () => {
  let judged = 0
  const judge: AdmissionRules['judge'] = (each) => {
    judged++
    return rules.judge(each)
  }
  const big = parseNetworkConfig('{"Network": "10.0.0.0/8"}').ranges
  const admission = new Admission({ ...rules, ranges: big, judge })
  const outcomes = Array.from({ length: 3000 }, (_, i) => {
    const key = `10.${10 + (i >> 8)}.${i & 255}.0-24`
    return admission.admit(lease(key, `192.169.${i >> 8}.${i & 255}`, 'a', { created: i }))
  })
  assert.deepEqual(outcomes.map(({ kind }) => kind).slice(0, 3), ['admitted', 'refused', 'refused'])
  assert.equal(outcomes.filter(({ kind }) => kind === 'refused').length, 2999)
  // Each once, and the one that holds the MAC once more.
  assert.equal(judged, 3001)
})

test('a start after all leases went knows nothing of those before', () => {
  const admission = new Admission(rules)
  const begin = (first: number): string[] => {
    const each = [first, first + 1].map((i) => lease(`10.3.${i}.0-24`, `192.168.1.${i}`, 'a', { created: i }))
    return each.map(
      (one) => summary([{ key: one.key, before: undefined, after: admission.admit(one) }])[one.key] ?? '',
    )
  }
  const held = (i: number) =>
    `refused: MAC a at 192.168.1.${i + 1} is that of the older lease 10.3.${i}.0-24 at 192.168.1.${i}`
  assert.deepEqual(begin(20), ['admitted', held(20)])
  admission.update({ leases: new Map(), changed: undefined })
  assert.deepEqual(begin(30), ['admitted', held(30)])
})

/** The definition, in its plainest form. */
function admittedByDefinition(leases: readonly Lease[]): Set<LeaseKey> {
  const admitted: Lease[] = []
  const sorted = leases.toSorted((a, b) => a.created - b.created || (a.key < b.key ? -1 : 1))
  const subnetsOf = ({ subnets }: Lease): Prefix[] => (subnets.inet === undefined ? [] : [subnets.inet])
  for (const candidate of sorted) {
    if (alone(candidate)?.kind !== 'admitted') continue
    const contradicted = admitted.some(
      (other) =>
        subnetsOf(other).some((a) => subnetsOf(candidate).some((b) => prefixesOverlap(a, b))) ||
        (other.backendData.inet === candidate.backendData.inet &&
          other.publicIps.inet !== candidate.publicIps.inet),
    )
    if (!contradicted) admitted.push(candidate)
  }
  return new Set(admitted.map(({ key }) => key))
}

test('law: any history ends where its last state leads, and that is the definition', () => {
  const key = fc
    .tuple(
      fc.integer({ min: 0, max: 11 }),
      fc.constantFrom(22, 23, 24, 25),
      fc.constantFrom('', '&fd00::-64'),
    )
    .map(([third, length, six]) => formatLeaseKey(parseLeaseKey(`10.3.${third}.0-${length}${six}`)))
  const content = fc.record({
    ip: fc.constantFrom('192.168.1.10', '192.168.1.11', '192.168.1.12', '192.168.1.13', '127.0.0.1'),
    mac: fc.constantFrom('a', 'b', 'c', 'd', 'bad'),
    type: fc.constantFrom('vxlan', 'vxlan', 'vxlan', 'vxlan', ''),
    created: fc.integer({ min: 1, max: 9 }),
  })
  const step = fc.array(fc.tuple(key, fc.option(content, { nil: undefined })), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 20 }),
      fc.boolean(),
      fc.boolean(),
      (history, hinted, oneByOne) => {
        const leases = new Map<LeaseKey, Lease>()
        const admission = new Admission(rules)
        const seen = new Map<LeaseKey, Outcome>()
        for (const [i, changes] of history.entries()) {
          for (const [name, value] of changes) {
            if (value === undefined) leases.delete(name)
            else
              leases.set(
                name,
                lease(name, value.ip, value.mac, { backendType: value.type, created: value.created }),
              )
          }
          if (i === 0 && oneByOne) {
            for (const each of [...leases.values()].sort(byAge)) seen.set(each.key, admission.admit(each))
            continue
          }
          const changed = hinted ? new Set(changes.map(([name]) => name)) : undefined
          for (const { key: name, before, after } of admission.update({ leases: new Map(leases), changed })) {
            assert.deepEqual(before, seen.get(name))
            if (after === undefined) seen.delete(name)
            else seen.set(name, after)
          }
        }
        const fresh = new Admission(rules)
        fresh.update({ leases: new Map([...leases].reverse()), changed: undefined })
        const sorted = (outcomes: ReadonlyMap<LeaseKey, Outcome>) =>
          [...outcomes].sort(([a], [b]) => (a < b ? -1 : 1))
        assert.deepEqual(sorted(admission.outcomes), sorted(fresh.outcomes))
        assert.deepEqual(sorted(seen), sorted(fresh.outcomes))
        const begun = new Admission(rules)
        for (const each of [...leases.values()].sort(byAge)) begun.admit(each)
        assert.deepEqual(sorted(begun.outcomes), sorted(fresh.outcomes))
        const admitted = [...seen].filter(([, { kind }]) => kind === 'admitted').map(([name]) => name)
        assert.deepEqual(new Set(admitted), admittedByDefinition([...leases.values()]))
      },
    ),
    { numRuns: 400 },
  )
})
