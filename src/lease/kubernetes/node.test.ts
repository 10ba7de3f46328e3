import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { PUBLISHED } from './annotations.ts'
import { decodeNode, isManaged, type NodeEntry, readNode } from './node.ts'

const PREFIX = 'flannel.alpha.coreos.com/'
const CREATED = '2026-01-02T03:04:05Z'

const RIGHT = {
  'kube-subnet-manager': 'true',
  'backend-type': 'vxlan',
  'backend-data': '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
  'public-ip': '192.168.1.10',
}

function node(
  spec: unknown,
  annotations: Readonly<Record<string, unknown>> = RIGHT,
  more: object = {},
): unknown {
  const prefixed = Object.entries(annotations).map(([name, value]) => [PREFIX + name, value])
  const metadata = {
    name: 'a',
    uid: 'u',
    creationTimestamp: CREATED,
    annotations: Object.fromEntries(prefixed),
  }
  return { metadata: { ...metadata, ...more }, spec }
}

function read(object: unknown): NodeEntry {
  const entry = readNode(object, PREFIX, PUBLISHED)
  assert.ok(entry !== undefined)
  return entry
}

test('a node as flanneld leaves it is a lease', () => {
  const left = node({ podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] })
  assert.ok(isManaged(left, PREFIX))
  const entry = read(left)
  assert.deepEqual(decodeNode(entry), {
    key: '10.244.1.0-24',
    subnets: { inet: '10.244.1.0/24' },
    publicIps: { inet: '192.168.1.10' },
    backendType: 'vxlan',
    backendData: { inet: { VNI: 1, VtepMAC: '12:c6:65:89:b4:e3' } },
    expires: undefined,
    created: Date.parse(CREATED),
    node: 'a',
  })
})

test('IPv6 alone, both families, and an old server that knows podCIDR only', () => {
  const six = { 'public-ipv6': 'fd00::10', 'backend-v6-data': '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e4"}' }
  const alone = decodeNode(read(node({ podCIDRs: ['fd00:244:1::/64'] }, { ...six, 'public-ip': '0.0.0.0' })))
  assert.ok(typeof alone === 'object')
  assert.equal(alone.key, '0.0.0.0-0&fd00:244:1::-64')
  assert.deepEqual(alone.publicIps, { inet6: 'fd00::10' })
  const both = decodeNode(
    read(node({ podCIDRs: ['fd00:244:1::/64', '10.244.1.0/24'] }, { ...RIGHT, ...six })),
  )
  assert.ok(typeof both === 'object')
  assert.equal(both.key, '10.244.1.0-24&fd00:244:1::-64')
  assert.deepEqual(Object.keys(both.backendData), ['inet', 'inet6'])
  const old = decodeNode(read(node({ podCIDR: '10.244.1.0/24' })))
  assert.ok(typeof old === 'object')
  assert.deepEqual(old.subnets, { inet: '10.244.1.0/24' })
})

test('null is no data', () => {
  const lease = decodeNode(read(node({ podCIDR: '10.244.1.0/24' }, { ...RIGHT, 'backend-data': 'null' })))
  assert.ok(typeof lease === 'object')
  assert.deepEqual(lease.backendData, {})
})

test('what a heartbeat changes does not count', () => {
  const spec = { podCIDR: '10.244.1.0/24' }
  const quiet = read(node(spec))
  const loud = read(node(spec, { ...RIGHT, other: 'x' }, { resourceVersion: '7', labels: { a: 'b' } }))
  assert.deepEqual(loud, quiet)
})

describe('a node that is no lease is refused, with the reason', () => {
  for (const [spec, annotations, why] of [
    [{}, RIGHT, /^node "a" pod cidr not assigned$/],
    [{ podCIDR: '' }, RIGHT, /pod cidr not assigned/],
    [
      { podCIDRs: ['10.0.0.0/24', 'fd00::/64', '10.1.0.0/24'] },
      RIGHT,
      /^node "a" pod cidrs should be IPv4\/IPv6 only or dualstack$/,
    ],
    [{ podCIDR: '10.244.1.0' }, RIGHT, /^podCIDR "10\.244\.1\.0" is not a subnet$/],
    [{ podCIDR: '10.244.1.0/32' }, RIGHT, /is not a subnet/],
    [{ podCIDR: '10.244.1.0/24' }, {}, /^public-ip is missing$/],
    [{ podCIDR: '10.244.1.0/24' }, { ...RIGHT, 'public-ip': 'x' }, /^public-ip is "x", not an IPv4 address$/],
    [{ podCIDR: '10.244.1.0/24' }, { 'public-ipv6': '10.0.0.1' }, /not an IPv6 address/],
    [{ podCIDR: '10.244.1.0/24' }, { ...RIGHT, 'backend-data': '{"VNI":' }, /^backend-data is not JSON/],
    [
      { podCIDR: '10.244.1.0/24' },
      { ...RIGHT, 'backend-data': '['.repeat(100_000) },
      /^backend-data has more than 1000 brackets$/,
    ],
  ] as const) {
    test(`${why}`, () => {
      const result = decodeNode(read(node(spec, annotations)))
      assert.ok(typeof result === 'string')
      assert.match(result, why)
    })
  }
})

test('law: whatever a node is, it is a lease, a reason, or nothing', () => {
  const value = fc.oneof(
    fc.json(),
    fc.constantFrom('', 'null', '10.244.1.0/24', 'fd00::/64', '192.168.1.10', 'fd00::1', '::ffff:1.2.3.4'),
    fc.anything(),
  )
  const record = fc.dictionary(fc.constantFrom(...Object.keys(RIGHT), 'public-ipv6', '__proto__'), value)
  const spec = fc.oneof(fc.anything(), fc.record({ podCIDR: value, podCIDRs: fc.array(value) }))
  fc.assert(
    fc.property(fc.anything(), spec, record, fc.anything(), (object, own, annotations, created) => {
      for (const each of [
        object,
        node(own, annotations, { creationTimestamp: created }),
        { metadata: object },
      ]) {
        const entry = readNode(each, PREFIX, PUBLISHED)
        if (entry === undefined) continue
        isManaged(each, PREFIX)
        const result = decodeNode(entry)
        assert.ok(typeof result === 'string' ? result !== '' : JSON.stringify(result) !== '')
      }
    }),
    { numRuns: 2000 },
  )
})
