import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parseMac } from '../address/mac.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf, type Link, PROTOCOL } from '../state.ts'
import type { Backend, HostFacts } from './backend.ts'
import { createBackend } from './table.ts'

const ADDRESS = parseIp('192.168.1.10')
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: { inet: ADDRESS } },
  publicIps: { inet: ADDRESS },
  links: new Map(),
}

function backend(settings: object = {}, host = HOST, network: object = {}): Backend {
  const Backend = { Type: 'vxlan', ...settings }
  return createBackend(
    parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...network, Backend })),
    host,
  )
}

function lease(n: number, data: unknown = { VNI: 1, VtepMAC: '02:00:00:00:00:0b' }): Lease {
  return {
    key: `10.10.${n}.0-24` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(`192.168.1.${n}`) },
    backendType: 'vxlan',
    backendData: { inet: data },
    expires: undefined,
    created: n,
  }
}

function linkOf(plan: Backend): Link {
  const link = plan.own(lease(10)).entries.find((entry) => entry.kind === 'link')
  assert.ok(link)
  return link
}

describe('settings', () => {
  test("the defaults are flannel's", () => {
    const { vxlan, ...link } = linkOf(backend())
    assert.deepEqual(
      { name: link.name, mtu: link.mtu, up: link.up, appProbes: link.appProbes },
      { name: 'flannel.1', mtu: 1450, up: true, appProbes: 0 },
    )
    assert.deepEqual(vxlan, {
      vni: 1,
      port: 8472,
      local: ADDRESS,
      lower: 2,
      group: undefined,
      learning: false,
      gbp: false,
    })
  })

  test('every setting reaches the link, in any case of its key', () => {
    const plan = backend({ vni: 42, PORT: 4789, Mtu: 9000, learning: true, gbp: true, l3miss: true })
    const link = linkOf(plan)
    assert.equal(link.name, 'flannel.42')
    assert.equal(plan.mtu, 8950)
    assert.equal(link.appProbes, 3)
    assert.deepEqual(
      [link.vxlan?.vni, link.vxlan?.port, link.vxlan?.learning, link.vxlan?.gbp],
      [42, 4789, true, true],
    )
  })

  test('what cannot be is refused by name, value and what is allowed', () => {
    for (const [settings, message] of [
      [{ VNI: 0 }, /Backend\.VNI is 0: .*1 to 16777215/],
      [{ VNI: 16777216 }, /Backend\.VNI is 16777216/],
      [{ Port: 65536 }, /Backend\.Port is 65536/],
      [{ MTU: 100 }, /Backend\.MTU is 100: vxlan takes 50 bytes/],
      [{ Learning: 1 }, /Backend\.Learning is 1: it must be true or false/],
      [{ DirectRouting: true }, /Backend\.DirectRouting is true/],
      [{ Type: 'host-gw' }, /Backend\.Type is "host-gw": it must be one of: vxlan/],
      [{ Type: 'constructor' }, /Backend\.Type is "constructor"/],
    ] as const) {
      assert.throws(() => backend(settings), { name: 'ConfigError', message })
    }
  })

  test('an IPv6 family is refused, not ignored', () => {
    const network = { EnableIPv6: true, IPv6Network: 'fd00::/48' }
    assert.throws(() => backend({}, HOST, network), { name: 'ConfigError', message: /EnableIPv6/ })
  })
})

describe('the VTEP MAC', () => {
  test('of a link that exists is kept', () => {
    const mac = parseMac('02:11:22:33:44:55')
    const plan = backend({}, { ...HOST, links: new Map([['flannel.1', { mac, addresses: [] }]]) })
    assert.equal(linkOf(plan).mac, mac)
    assert.deepEqual(plan.advertised, { inet: { VNI: 1, VtepMAC: mac } })
  })

  test('of a new link is always the same for the host, and its own for each host and VNI', () => {
    const { mac } = backend()
    assert.equal(backend().mac, mac)
    assert.notEqual(backend({ VNI: 2 }).mac, mac)
    assert.notEqual(backend({}, { ...HOST, publicIps: { inet: parseIp('192.168.1.11') } }).mac, mac)
    assert.equal(Number.parseInt(mac.slice(0, 2), 16) & 3, 2, 'locally administered unicast')
  })
})

describe('the plan', () => {
  test('static: FDB entry, neighbour and route of a peer; no answers', () => {
    const { entries, answers } = backend().peer(lease(11))
    assert.deepEqual(entries.map(keyOf), [
      'fdb flannel.1 02:00:00:00:00:0b',
      'neighbour flannel.1 10.10.11.0',
      'route 254 10.10.11.0/24 0',
    ])
    assert.deepEqual(answers, [])
    const route = entries.at(-1)
    assert.ok(route?.kind === 'route')
    assert.deepEqual([route.gateway, route.protocol], ['10.10.11.0', PROTOCOL])
  })

  test('L3 miss: the network route is our own, a peer is an FDB entry and an answer', () => {
    const plan = backend({ L3Miss: true })
    assert.deepEqual(plan.own(lease(10)).entries.map(keyOf), [
      'link flannel.1',
      'address flannel.1 10.10.10.0/32',
      'route 254 10.10.0.0/16 0',
    ])
    const { entries, answers } = plan.peer(lease(11))
    assert.deepEqual(entries.map(keyOf), ['fdb flannel.1 02:00:00:00:00:0b'])
    assert.deepEqual(answers, [{ link: 'flannel.1', subnet: '10.10.11.0/24', mac: '02:00:00:00:00:0b' }])
    assert.deepEqual([...plan.scope.onDemand], ['flannel.1'])
  })

  test('behind NAT, outer packets leave from the address of the interface', () => {
    const plan = backend({}, { ...HOST, publicIps: { inet: parseIp('203.0.113.7') } })
    assert.equal(linkOf(plan).vxlan?.local, ADDRESS)
  })
})

test('a link that an earlier VNI left in our network is ours to remove, that of another network is not', () => {
  const link = (ip: string) => ({ mac: undefined, addresses: [parseIp(ip)] })
  const links = new Map([
    ['flannel.1', link('10.10.10.0')],
    ['flannel.2', link('10.20.10.0')],
    ['flannel-x', link('10.10.10.0')],
    ['docker0', link('10.10.10.1')],
  ])
  const { scope } = backend({ VNI: 42 }, { ...HOST, links })
  assert.deepEqual([...scope.links], ['flannel.42', 'flannel.1'])
})

describe('the data of a peer', () => {
  test('is good without a VNI, as flannel 0.5 writes it', () => {
    assert.deepEqual(backend().judge(lease(11, { VtepMAC: '02:00:00:00:00:0B' })), {
      claims: [{ name: 'VtepMAC 02:00:00:00:00:0b', value: '192.168.1.11' }],
    })
  })

  for (const [what, data] of [
    ['a multicast MAC', { VtepMAC: '01:00:5e:00:00:01' }],
    ['the broadcast MAC', { VtepMAC: 'ff:ff:ff:ff:ff:ff' }],
    ['a zero MAC', { VtepMAC: '00:00:00:00:00:00' }],
    ['our own MAC', { VtepMAC: backend().mac }],
    ['no MAC', { VNI: 1 }],
    ['a MAC that is no text', { VtepMAC: 7 }],
    ['a MAC that is none', { VtepMAC: '02:00:00:00:00' }],
    ['no object', 'text'],
    ['nothing', undefined],
  ] as const) {
    test(`${what} is refused`, () => {
      assert.ok(
        'refused' in backend().judge({ ...lease(11), backendData: data === undefined ? {} : { inet: data } }),
      )
    })
  }
})
