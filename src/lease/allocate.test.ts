import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipFromNumber, parseIp } from '../address/ip.ts'
import { type Prefix, parsePrefix, prefixBase, prefixesOverlap, prefixOf } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import { type AllocationInput, chooseSubnets, isCompatible } from './allocate.ts'
import { formatLeaseKey, type Lease } from './lease.ts'

const { ranges } = parseNetworkConfig('{"Network": "10.3.0.0/16"}')
const dual = parseNetworkConfig(
  '{"Network": "10.3.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48"}',
).ranges

function lease(subnet: string, publicIp: string, more: Partial<Lease> = {}): Lease {
  const subnets = { inet: parsePrefix(subnet), ...more.subnets }
  return {
    key: formatLeaseKey(subnets),
    publicIps: { inet: parseIp(publicIp) },
    backendType: '',
    backendData: {},
    expires: 1,
    created: 1,
    ...more,
    subnets,
  }
}

/** The first candidate is picked, so that a result is one value. */
function choose(leases: Lease[], more: Partial<AllocationInput> = {}) {
  const publicIps = { inet: parseIp('192.168.1.10') }
  return chooseSubnets({ ranges, publicIps, previous: {}, leases, unreadable: [], random: () => 0, ...more })
}

const previous = { inet: parsePrefix('10.3.77.0/24') }

test('the lease of this public IP is taken again, before the previous subnet', () => {
  const mine = lease('10.3.9.0/24', '192.168.1.10')
  assert.deepEqual(choose([mine], { previous }), { kind: 'reuse', lease: mine, remove: [] })
})

test('a reservation for this public IP wins over a lease, which gives way', () => {
  const old = lease('10.3.9.0/24', '192.168.1.10')
  const reservation = lease('10.3.10.0/24', '192.168.1.10', { expires: undefined, created: 2 })
  assert.deepEqual(choose([old, reservation]), { kind: 'reuse', lease: reservation, remove: [old] })
})

test('a lease that does not fit the config gives way; a reservation that does not fit stays', () => {
  for (const subnet of ['10.3.0.0/24', '10.4.1.0/24', '10.3.9.0/25']) {
    const mine = lease(subnet, '192.168.1.10')
    assert.deepEqual(choose([mine], { previous }), { kind: 'take', subnets: previous, remove: [mine] })
  }
  const reserved = lease('10.3.1.0/25', '192.168.1.10', { expires: undefined })
  assert.deepEqual(choose([reserved]), { kind: 'take', subnets: { inet: '10.3.2.0/24' }, remove: [] })
  const v6 = lease('10.3.1.0/24', '192.168.1.10', { subnets: { inet6: parsePrefix('fc00:0:0:1::/64') } })
  assert.deepEqual(choose([v6]), { kind: 'take', subnets: { inet: '10.3.1.0/24' }, remove: [v6] })
})

test('the previous subnet is taken again unless somebody holds it or it does not fit', () => {
  assert.deepEqual(choose([], { previous }), { kind: 'take', subnets: previous, remove: [] })
  const first = { kind: 'take', subnets: { inet: '10.3.1.0/24' }, remove: [] }
  assert.deepEqual(choose([lease('10.3.76.0/23', '192.168.1.11')], { previous }), first)
  assert.deepEqual(choose([], { previous, unreadable: [previous] }), first)
  assert.deepEqual(choose([], { previous: { inet: parsePrefix('10.4.1.0/24') } }), first)
})

test('a reservation for another public IP is never taken', () => {
  const reserved = lease('10.3.1.0/24', '192.168.1.11', { expires: undefined })
  assert.deepEqual(choose([reserved]), { kind: 'take', subnets: { inet: '10.3.2.0/24' }, remove: [] })
})

test('each family is decided alone', () => {
  const other = lease('10.3.1.0/24', '192.168.1.11', { subnets: { inet6: parsePrefix('fc00:0:0:1::/64') } })
  const subnets = { inet: '10.3.77.0/24', inet6: 'fc00:0:0:2::/64' }
  assert.deepEqual(choose([other], { ranges: dual, previous }), { kind: 'take', subnets, remove: [] })
})

test('the choice is uniform over the first hundred free subnets', () => {
  const limits: number[] = []
  const random = (below: number) => limits.push(below) * 0 + below - 1
  const taken = [lease('10.3.3.0/24', '192.168.1.11'), lease('10.3.5.128/25', '192.168.1.12')]
  const chosen = choose(taken, { random })
  assert.deepEqual(limits, [100])
  assert.deepEqual(chosen, { kind: 'take', subnets: { inet: '10.3.102.0/24' }, remove: [] })
})

test('out of subnets says how many there are and who holds them', () => {
  const small = parseNetworkConfig('{"Network": "10.3.0.0/24", "SubnetLen": 26}').ranges
  const taken = ['10.3.0.64/26', '10.3.0.128/26', '10.3.0.192/26'].map((subnet, i) =>
    lease(subnet, `192.168.1.${20 + i}`, { expires: i === 0 ? undefined : 1 }),
  )
  assert.deepEqual(choose(taken, { ranges: small }), {
    kind: 'out-of-subnets',
    message:
      'out of subnets: all 3 subnets of length 26 from 10.3.0.64 to 10.3.0.192 are taken (3 entries in the registry, 1 of them reservations)',
  })
})

test('a /8 with 40,000 leases: no subnet is looked at twice', () => {
  const big = parseNetworkConfig('{"Network": "10.0.0.0/8"}').ranges
  const taken = Array.from({ length: 40_000 }, (_, i) => {
    const base = ipFromNumber(0x0a000000n + (BigInt(i + 1) << 8n), 'inet')
    return lease(`${base}/24`, '192.168.1.11')
  })
  assert.deepEqual(choose(taken, { ranges: big }), {
    kind: 'take',
    subnets: { inet: '10.156.65.0/24' },
    remove: [],
  })
})

test('law: what is picked is free, and nothing is picked only when nothing is free', () => {
  const small = parseNetworkConfig('{"Network": "10.3.0.0/24", "SubnetLen": 28}').ranges
  const block = fc.tuple(fc.integer({ min: 0x0a02ff00, max: 0x0a0301ff }), fc.integer({ min: 22, max: 32 }))
  const blocks = fc.array(
    block.map(([base, length]) => prefixOf(ipFromNumber(BigInt(base), 'inet'), length)),
    { maxLength: 30 },
  )
  const every: Prefix[] = Array.from({ length: 15 }, (_, i) => parsePrefix(`10.3.0.${16 * (i + 1)}/28`))
  fc.assert(
    fc.property(blocks, fc.nat(), (taken, seed) => {
      const result = choose([], {
        ranges: small,
        unreadable: taken.map((inet) => ({ inet })),
        random: (below) => seed % below,
      })
      const free = every.filter((subnet) => !taken.some((other) => prefixesOverlap(subnet, other)))
      if (result.kind !== 'take') assert.deepEqual(free, [])
      else assert.equal(result.subnets.inet, free[seed % free.length], `of ${free.map(prefixBase).join(' ')}`)
    }),
  )
})

test('a subnet that is given fits anywhere in the network, whatever its length', () => {
  const given = parseNetworkConfig('{"Network": "10.3.0.0/16"}', true).ranges
  for (const subnet of ['10.3.0.0/24', '10.3.255.128/25', '10.3.0.0/16']) {
    assert.ok(isCompatible({ inet: parsePrefix(subnet) }, given), subnet)
  }
  assert.ok(!isCompatible({ inet: parsePrefix('10.4.0.0/24') }, given))
  assert.ok(!isCompatible({ inet6: parsePrefix('fd00::/64') }, given))
})
