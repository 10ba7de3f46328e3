import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import type { HostFacts } from '../backend/backend.ts'
import { compare } from './host.ts'

const V4 = parseIp('192.168.1.10')
const V6 = parseIp('fd00:192::10')

function facts(more: Partial<HostFacts> = {}): HostFacts {
  const addresses = { inet: V4, inet6: V6 }
  return {
    external: { name: 'eth0', index: 2, mtu: 1500, addresses },
    publicIps: addresses,
    links: new Map(),
    underlay: [],
    ...more,
  }
}

test('links are no part of what an agent joined with', () => {
  const links = new Map([['docker0', { mac: undefined, addresses: [V4] }]])
  assert.deepEqual(compare(facts(), facts({ links }), true), { kind: 'same' })
})

test('an address of either family, and the MTU, are', () => {
  for (const changed of [
    { publicIps: { inet: parseIp('192.168.1.50'), inet6: V6 } },
    { publicIps: { inet: V4, inet6: parseIp('fd00:192::50') } },
    { external: { ...facts().external, mtu: 1400 } },
  ]) {
    const event = compare(facts(), facts(changed), false)
    assert.deepEqual(event, { kind: 'changed', why: 'the external interface changed' })
  }
})

test('routes of the underlay are, where they are asked for', () => {
  const now = facts({ underlay: [{ prefix: parsePrefix('192.168.1.0/24'), direct: true }] })
  assert.deepEqual(compare(facts(), now, false), { kind: 'same' })
  assert.deepEqual(compare(facts(), now, true), {
    kind: 'changed',
    why: 'the routes to other hosts changed',
  })
})

test('a link-local address takes the place of none but another', () => {
  for (const [family, name, ip] of [
    ['inet', 'IPv4', '169.254.7.7'],
    ['inet6', 'IPv6', 'fe80::7'],
  ] as const) {
    const publicIps = { inet: V4, inet6: V6, [family]: parseIp(ip) }
    assert.deepEqual(compare(facts(), facts({ publicIps }), false), {
      kind: 'unusable',
      why: `eth0 has a link-local ${name} address only`,
    })
    assert.equal(compare(facts({ publicIps }), facts(), false).kind, 'changed')
  }
})
