import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf, type Route } from '../state.ts'
import { alloc } from './alloc.ts'
import type { Backend, HostFacts } from './backend.ts'
import { hostGw } from './host-gw.ts'

const ADDRESSES = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00::10') }
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: ADDRESSES },
  publicIps: ADDRESSES,
  links: new Map([['flannel.1', { mac: undefined, addresses: [parseIp('10.10.10.0')] }]]),
  underlay: [],
}
const DUAL = { EnableIPv6: true, IPv6Network: 'fd10::/48' }

function backend(Type: 'host-gw' | 'alloc', network: object = {}, host = HOST): Backend {
  const config = { Network: '10.10.0.0/16', ...network, Backend: { Type } }
  const make = Type === 'alloc' ? alloc : hostGw
  return make(parseNetworkConfig(JSON.stringify(config)), host)
}

const PEER: Lease = {
  key: '10.10.11.0-24&fd10:0:0:11::-64' as LeaseKey,
  subnets: { inet: parsePrefix('10.10.11.0/24'), inet6: parsePrefix('fd10:0:0:11::/64') },
  publicIps: { inet: parseIp('192.168.1.11'), inet6: parseIp('fd00::11') },
  backendType: 'host-gw',
  backendData: {},
  expires: undefined,
  created: 11,
}

describe('host-gw', () => {
  test('has the MTU of the interface, no link and no data; a link of another backend is its own to remove', () => {
    const plan = backend('host-gw', DUAL)
    assert.deepEqual([plan.type, plan.leaseType, plan.mtu, plan.advertised], ['host-gw', 'host-gw', 1500, {}])
    assert.deepEqual(plan.own(PEER), { entries: [], answers: [] })
    assert.deepEqual([...plan.scope.links], ['flannel.1'])
    assert.deepEqual([plan.scope.underlay, plan.scope.networks], ['eth0', ['10.10.0.0/16', 'fd10::/48']])
  })

  test('leads to a peer through the peer, in each family that is enabled', () => {
    const routes = (plan: Backend) =>
      plan.peer(PEER).entries.map((entry) => [keyOf(entry), (entry as Route).link, (entry as Route).gateway])
    const inet = ['route 254 10.10.11.0/24 0', 'eth0', '192.168.1.11']
    const inet6 = ['route 254 fd10:0:0:11::/64 1024', 'eth0', 'fd00::11']
    assert.deepEqual(routes(backend('host-gw')), [inet])
    assert.deepEqual(routes(backend('host-gw', DUAL)), [inet, inet6])
    assert.deepEqual(routes(backend('host-gw', { ...DUAL, EnableIPv4: false })), [inet6])
  })

  test('takes a peer that has one of the families, and no claims', () => {
    const { inet6 } = PEER.publicIps
    assert.ok(inet6)
    const lacking = { ...PEER, publicIps: { inet6 } }
    assert.deepEqual(backend('host-gw', DUAL).judge(lacking), { claims: [] })
    assert.equal(backend('host-gw', DUAL).peer(lacking).entries.length, 1)
    assert.deepEqual(backend('host-gw').judge(lacking), { refused: 'it has no IPv4 subnet' })
  })

  test('is refused behind NAT, in either family', () => {
    for (const [family, field] of [
      ['inet', 'PublicIP'],
      ['inet6', 'PublicIPv6'],
    ] as const) {
      const ip = parseIp(family === 'inet' ? '203.0.113.7' : '2001:db8::7')
      const host = { ...HOST, publicIps: { ...ADDRESSES, [family]: ip } }
      assert.throws(() => backend('host-gw', DUAL, host), {
        name: 'ConfigError',
        message: `${field} is "${ip}": your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not supported by host-gw backend`,
      })
    }
  })
})

test('alloc has a lease without a type, and nothing else', () => {
  const plan = backend('alloc', DUAL)
  assert.deepEqual([plan.type, plan.leaseType, plan.mtu, plan.advertised], ['alloc', '', 1500, {}])
  assert.deepEqual([plan.own(PEER).entries, plan.peer(PEER).entries], [[], []])
  assert.deepEqual(plan.judge(PEER), { claims: [] })
})
