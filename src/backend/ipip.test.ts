import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf, PROTOCOL } from '../state.ts'
import type { Backend, HostFacts } from './backend.ts'
import { ipip } from './ipip.ts'

const ADDRESS = parseIp('192.168.1.10')
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: { inet: ADDRESS } },
  publicIps: { inet: parseIp('203.0.113.7') },
  links: new Map(),
  underlay: [
    { prefix: parsePrefix('0.0.0.0/0'), direct: false },
    { prefix: parsePrefix('192.168.0.0/16'), direct: true },
    { prefix: parsePrefix('192.168.2.0/24'), direct: false },
  ],
}

function backend(settings: object = {}, network: object = {}, host = HOST): Backend {
  const config = { Network: '10.10.0.0/16', ...network, Backend: { Type: 'ipip', ...settings } }
  return ipip(parseNetworkConfig(JSON.stringify(config)), host)
}

function lease(n: number, publicIp: string): Lease {
  return {
    key: `10.10.${n}.0-24` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(publicIp) },
    backendType: 'ipip',
    backendData: {},
    expires: undefined,
    created: n,
  }
}

describe('ipip', () => {
  test('has one link without a remote end, from the address of the interface, 20 bytes smaller', () => {
    const plan = backend()
    assert.deepEqual([plan.mtu, plan.advertised, plan.needsUnderlay], [1480, {}, false])
    const [link, address] = plan.own(lease(10, '203.0.113.7')).entries
    assert.deepEqual(link, {
      kind: 'link',
      name: 'flannel.ipip',
      mac: undefined,
      mtu: 1480,
      up: true,
      appProbes: {},
      tunnel: { type: 'ipip', local: ADDRESS, remote: undefined },
    })
    assert.deepEqual(address, { kind: 'address', link: 'flannel.ipip', ip: '10.10.10.0', length: 32 })
  })

  test('leads to a peer through its public IP on the link', () => {
    const [route, ...rest] = backend().peer(lease(11, '192.168.1.11')).entries
    assert.deepEqual(rest, [])
    assert.ok(route?.kind === 'route')
    assert.equal(keyOf(route), 'route 254 10.10.11.0/24 0')
    assert.deepEqual([route.link, route.gateway, route.protocol], ['flannel.ipip', '192.168.1.11', PROTOCOL])
  })

  test('DirectRouting: the longest prefix says whether a peer is on a link of this host', () => {
    const plan = backend({ DirectRouting: true })
    assert.equal(plan.needsUnderlay, true)
    for (const [publicIp, link] of [
      ['192.168.1.11', 'eth0'],
      ['192.168.2.11', 'flannel.ipip'],
      ['172.16.0.1', 'flannel.ipip'],
    ] as const) {
      const [route] = plan.peer(lease(11, publicIp)).entries
      assert.ok(route?.kind === 'route')
      assert.deepEqual([route.link, route.gateway], [link, publicIp])
    }
  })

  test('claims nothing', () => {
    assert.deepEqual(backend().judge(lease(11, '192.168.1.11')), { claims: [] })
    assert.deepEqual(backend().judge({ ...lease(11, '192.168.1.11'), publicIps: {} }), {
      refused: 'it has no IPv4 subnet',
    })
  })

  test('is refused for IPv6, and for an interface that is too small', () => {
    const dual = { EnableIPv6: true, IPv6Network: 'fd10::/48' }
    assert.throws(() => backend({}, dual), {
      name: 'ConfigError',
      message: /EnableIPv6 is true: ipip carries/,
    })
    assert.throws(() => backend({}, { ...dual, EnableIPv4: false }), { message: /EnableIPv4 is false: ipip/ })
    const small = { ...HOST, external: { ...HOST.external, mtu: 87 } }
    assert.throws(() => backend({}, {}, small), { message: /MTU 87 of iface eth0 is too small for ipip/ })
  })
})
