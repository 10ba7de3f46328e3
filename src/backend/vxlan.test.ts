import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parseMac } from '../address/mac.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf, type Link, PROTOCOL } from '../state.ts'
import type { Backend, HostFacts } from './backend.ts'
import { vxlan } from './vxlan.ts'

const ADDRESS = parseIp('192.168.1.10')
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: { inet: ADDRESS } },
  publicIps: { inet: ADDRESS },
  links: new Map(),
  underlay: [],
}
/** With both families: a public IPv6 address, and an IPv6 network in the config. */
const ADDRESS6 = parseIp('fd00::10')
const DUAL_HOST: HostFacts = {
  ...HOST,
  external: { ...HOST.external, addresses: { inet: ADDRESS, inet6: ADDRESS6 } },
  publicIps: { inet: ADDRESS, inet6: ADDRESS6 },
}
const DUAL = { EnableIPv6: true, IPv6Network: 'fd10::/48' }

function backend(settings: object = {}, host = HOST, network: object = {}): Backend {
  const Backend = { Type: 'vxlan', ...settings }
  return vxlan(parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...network, Backend })), host)
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
    const { tunnel, ...link } = linkOf(backend())
    assert.deepEqual(
      { name: link.name, mtu: link.mtu, up: link.up, appProbes: link.appProbes },
      { name: 'flannel.1', mtu: 1450, up: true, appProbes: { inet: 0 } },
    )
    assert.deepEqual(tunnel, {
      type: 'vxlan',
      vni: 1,
      port: 8472,
      local: ADDRESS,
      lower: 2,
      group: undefined,
      learning: false,
      l2Miss: false,
      gbp: false,
    })
  })

  test('every setting reaches the link, in any case of its key', () => {
    const plan = backend({ vni: 42, PORT: 4789, Mtu: 9000, learning: true, gbp: true, l3miss: true })
    const link = linkOf(plan)
    assert.equal(link.name, 'flannel.42')
    assert.equal(plan.mtu, 8950)
    assert.deepEqual(link.appProbes, { inet: 3 })
    const { tunnel } = link
    assert.ok(tunnel?.type === 'vxlan')
    assert.deepEqual([tunnel.vni, tunnel.port, tunnel.learning, tunnel.gbp], [42, 4789, true, true])
  })

  test('what cannot be is refused by name, value and what is allowed', () => {
    for (const [settings, message] of [
      [{ VNI: 0 }, /Backend\.VNI is 0: .*1 to 16777215/],
      [{ VNI: 16777216 }, /Backend\.VNI is 16777216/],
      [{ Port: 65536 }, /Backend\.Port is 65536/],
      [{ MTU: 100 }, /Backend\.MTU is 100: vxlan takes 50 bytes/],
      [{ Learning: 1 }, /Backend\.Learning is 1: it must be true or false/],
      [{ DirectRouting: 'yes' }, /Backend\.DirectRouting is "yes": it must be true or false/],
      [{ L2Miss: true }, /Backend\.L2Miss is true: it needs L3Miss/],
      [
        { Group: '192.168.1.1' },
        /Backend\.Group is "192\.168\.1\.1": .*multicast address of IPv4, such as 239/,
      ],
      [{ Group: 'ff05::1' }, /Backend\.Group is "ff05::1": .*multicast address of IPv4/],
      [{ Group: '' }, /Backend\.Group is ""/],
      [{ Group: '239.1.1.1', L3Miss: true }, /Backend\.L3Miss is true: with a Group/],
    ] as const) {
      assert.throws(() => backend(settings), { name: 'ConfigError', message })
    }
  })

  test('a family that the interface does not have, or whose least MTU does not fit, is refused', () => {
    assert.throws(() => backend({}, HOST, DUAL), {
      name: 'ConfigError',
      message: /EnableIPv6 is true: eth0 must have an IPv6 address/,
    })
    assert.throws(() => backend({ MTU: 1349 }, DUAL_HOST, DUAL), { message: /Backend\.MTU is 1349.*1280/ })
    assert.equal(backend({ MTU: 1350 }, DUAL_HOST, DUAL).mtu, 1280)
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
    const { inet: mac = '' } = backend().mac
    assert.equal(backend().mac.inet, mac)
    assert.notEqual(backend({ VNI: 2 }).mac.inet, mac)
    assert.notEqual(backend({}, { ...HOST, publicIps: { inet: parseIp('192.168.1.11') } }).mac.inet, mac)
    assert.equal(Number.parseInt(mac.slice(0, 2), 16) & 3, 2, 'locally administered unicast')
    const dual = backend({}, DUAL_HOST, DUAL).mac
    assert.equal(dual.inet, mac)
    assert.notEqual(dual.inet6, mac)
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
    assert.deepEqual(answers, [
      { link: 'flannel.1', subnet: '10.10.11.0/24', mac: '02:00:00:00:00:0b', destination: undefined },
    ])
    assert.deepEqual([...plan.scope.onDemand], ['flannel.1'])
  })

  test('behind NAT, outer packets leave from the address of the interface', () => {
    const plan = backend({}, { ...HOST, publicIps: { inet: parseIp('203.0.113.7') } })
    const { tunnel } = linkOf(plan)
    assert.ok(tunnel?.type === 'vxlan')
    assert.equal(tunnel.local, ADDRESS)
  })
})

test('L2 miss: a peer is an answer with its public IP, and the link tells of MACs that it misses', () => {
  const plan = backend({ L3Miss: true, L2Miss: true })
  const { tunnel } = linkOf(plan)
  assert.ok(tunnel?.type === 'vxlan')
  assert.equal(tunnel.l2Miss, true)
  assert.deepEqual(plan.peer(lease(11)), {
    entries: [],
    answers: [
      {
        link: 'flannel.1',
        subnet: '10.10.11.0/24',
        mac: '02:00:00:00:00:0b',
        destination: '192.168.1.11',
      },
    ],
  })
  assert.deepEqual([...plan.scope.fdbOnDemand], ['flannel.1'])
})

test('a group: the link learns, and a peer is a route alone', () => {
  const plan = backend({ Group: '239.1.1.1' })
  const { tunnel } = linkOf(plan)
  assert.ok(tunnel?.type === 'vxlan')
  assert.deepEqual([tunnel.group, tunnel.learning], ['239.1.1.1', true])
  assert.deepEqual(plan.own(lease(10)).entries.map(keyOf), [
    'link flannel.1',
    'address flannel.1 10.10.10.0/32',
    'fdb flannel.1 00:00:00:00:00:00',
  ])
  assert.deepEqual(plan.peer(lease(11)).entries.map(keyOf), ['route 254 10.10.11.0/24 0'])
  const dual = backend({ Group: '239.1.1.1', GroupV6: 'ff05::1' }, DUAL_HOST, DUAL)
  assert.equal(dual.own(lease(10)).entries.filter(({ kind }) => kind === 'fdb').length, 2)
  assert.throws(() => backend({ Group: '239.1.1.1' }, DUAL_HOST, DUAL), {
    name: 'ConfigError',
    message: /Backend\.GroupV6 is missing: each family needs one/,
  })
})

describe('both families', () => {
  const dualLease = (n: number): Lease => ({
    ...lease(n),
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`), inet6: parsePrefix(`fd10:0:0:${n}::/64`) },
    publicIps: { inet: parseIp(`192.168.1.${n}`), inet6: parseIp(`fd00::${n}`) },
    backendData: { inet: { VtepMAC: '02:00:00:00:00:0b' }, inet6: { VtepMAC: '02:00:00:00:06:0b' } },
  })
  const plan = backend({}, DUAL_HOST, DUAL)

  test('have a link each, over their own underlay, with the MTU that fits', () => {
    const { entries } = plan.own(dualLease(10))
    assert.deepEqual(entries.map(keyOf), [
      'link flannel.1',
      'address flannel.1 10.10.10.0/32',
      'link flannel-v6.1',
      'address flannel-v6.1 fd10:0:0:10::/128',
    ])
    const links = entries.filter((entry) => entry.kind === 'link')
    assert.deepEqual(
      links.map(({ mtu, tunnel }) => [mtu, tunnel?.type === 'vxlan' && tunnel.local]),
      [
        [1450, ADDRESS],
        [1430, ADDRESS6],
      ],
    )
    assert.equal(plan.mtu, 1430)
    assert.deepEqual([...plan.scope.links], ['flannel.1', 'flannel-v6.1'])
    assert.deepEqual(plan.advertised, {
      inet: { VNI: 1, VtepMAC: plan.mac.inet },
      inet6: { VNI: 1, VtepMAC: plan.mac.inet6 },
    })
  })

  test('of a peer are carried; IPv6 routes have the metric that the kernel gives them', () => {
    assert.deepEqual(plan.peer(dualLease(11)).entries.map(keyOf), [
      'fdb flannel.1 02:00:00:00:00:0b',
      'neighbour flannel.1 10.10.11.0',
      'route 254 10.10.11.0/24 0',
      'fdb flannel-v6.1 02:00:00:00:06:0b',
      'neighbour flannel-v6.1 fd10:0:0:11::',
      'route 254 fd10:0:0:11::/64 1024',
    ])
    assert.deepEqual(plan.judge(dualLease(11)), {
      claims: [
        { kind: 'VtepMAC', name: '02:00:00:00:00:0b', value: '192.168.1.11' },
        { kind: 'IPv6 VtepMAC', name: '02:00:00:00:06:0b', value: 'fd00::11' },
      ],
    })
  })

  test('L3 misses are answered in both', () => {
    const onDemand = backend({ L3Miss: true }, DUAL_HOST, DUAL)
    assert.deepEqual(onDemand.own(dualLease(10)).entries.slice(-1).map(keyOf), ['route 254 fd10::/48 1024'])
    assert.deepEqual(
      onDemand.peer(dualLease(11)).answers.map(({ link, subnet }) => [link, subnet]),
      [
        ['flannel.1', '10.10.11.0/24'],
        ['flannel-v6.1', 'fd10:0:0:11::/64'],
      ],
    )
    assert.deepEqual([...onDemand.scope.onDemand], ['flannel.1', 'flannel-v6.1'])
  })

  test('a peer that lacks one is used for the other', () => {
    const { subnets, backendData } = dualLease(11)
    for (const [family, lacking] of [
      ['inet', lease(11)],
      ['inet', { ...dualLease(11), backendData: { inet: backendData.inet } }],
      ['inet6', { ...dualLease(11), subnets: { inet6: subnets.inet6 } }],
      ['inet6', { ...dualLease(11), publicIps: { inet6: parseIp('fd00::11') } }],
    ] as const) {
      const verdict = plan.judge(lacking as Lease)
      assert.ok('claims' in verdict)
      assert.equal(verdict.claims.length, 1)
      const links = plan.peer(lacking as Lease).entries.map((entry) => 'link' in entry && entry.link)
      assert.deepEqual(
        links,
        Array.from({ length: 3 }, () => (family === 'inet' ? 'flannel.1' : 'flannel-v6.1')),
      )
    }
  })

  test('DirectRouting: a peer on a link of this host has a route alone, in each family by itself', () => {
    const host = { ...DUAL_HOST, underlay: [{ prefix: parsePrefix('fd00::/64'), direct: true }] }
    const direct = backend({ DirectRouting: true }, host, DUAL)
    assert.deepEqual([plan.needsUnderlay, direct.needsUnderlay], [false, true])
    assert.deepEqual(
      direct.peer(dualLease(11)).entries.map((entry) => [entry.kind, 'link' in entry && entry.link]),
      [
        ['fdb', 'flannel.1'],
        ['neighbour', 'flannel.1'],
        ['route', 'flannel.1'],
        ['route', 'eth0'],
      ],
    )
  })

  test('data that is wrong in one spoils the lease', () => {
    const data = { ...dualLease(11).backendData, inet6: { VtepMAC: 'ff:ff:ff:ff:ff:ff' } }
    assert.deepEqual(plan.judge({ ...dualLease(11), backendData: data }), {
      refused: 'VtepMAC ff:ff:ff:ff:ff:ff is not a unicast address',
    })
  })

  test('IPv6 alone has the IPv6 link alone', () => {
    const only = backend({}, DUAL_HOST, { ...DUAL, EnableIPv4: false })
    assert.deepEqual([...only.scope.links], ['flannel-v6.1'])
    assert.deepEqual(only.scope.networks, ['fd10::/48'])
    assert.equal(only.mtu, 1430)
    assert.deepEqual(only.judge(lease(11)), { refused: 'it has no IPv6 subnet' })
  })
})

test('a link that an earlier VNI left in our network is ours to remove, that of another network is not', () => {
  const link = (ip: string) => ({ mac: undefined, addresses: [parseIp(ip)] })
  const links = new Map([
    ['flannel.1', link('10.10.10.0')],
    ['flannel.2', link('10.20.10.0')],
    ['flannel.ipip', link('10.10.10.0')],
    ['flannel-x', link('10.10.10.0')],
    ['docker0', link('10.10.10.1')],
  ])
  const { scope } = backend({ VNI: 42 }, { ...HOST, links })
  assert.deepEqual([...scope.links], ['flannel.42', 'flannel.1', 'flannel.ipip'])
})

describe('the data of a peer', () => {
  test('is good without a VNI, as flannel 0.5 writes it', () => {
    assert.deepEqual(backend().judge(lease(11, { VtepMAC: '02:00:00:00:00:0B' })), {
      claims: [{ kind: 'VtepMAC', name: '02:00:00:00:00:0b', value: '192.168.1.11' }],
    })
  })

  for (const [what, data] of [
    ['a multicast MAC', { VtepMAC: '01:00:5e:00:00:01' }],
    ['the broadcast MAC', { VtepMAC: 'ff:ff:ff:ff:ff:ff' }],
    ['a zero MAC', { VtepMAC: '00:00:00:00:00:00' }],
    ['our own MAC', { VtepMAC: backend().mac.inet }],
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
