/**
 * The codec against bytes that it did not make: what this kernel says is decoded to what is expected here, and what
 * `ip` and `bridge` send for a command is what our requests for it say.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { parseMac } from '../src/address/mac.ts'
import * as address from '../src/netlink/address.ts'
import * as link from '../src/netlink/link.ts'
import * as message from '../src/netlink/message.ts'
import * as neighbour from '../src/netlink/neighbour.ts'
import * as table from '../src/netlink/neighbour-table.ts'
import * as nexthop from '../src/netlink/nexthop.ts'
import * as route from '../src/netlink/route.ts'
import {
  AF_BRIDGE,
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  RTM_GETNEIGH,
  RTM_NEWLINK,
} from '../src/netlink/rtnetlink.ts'
import { readVector } from './vectors/netlink.ts'

const { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_APPEND, NLM_F_ACK } = message
const ADD = NLM_F_CREATE | NLM_F_EXCL
const REPLACE = NLM_F_CREATE | NLM_F_REPLACE

const ETH0 = 10
const ETH1 = 11
const DOCKER0 = 12
const FLANNEL = 20
const VXLAN7 = 21

const VTEP = parseMac('02:00:00:00:01:11')
const VXLAN = {
  vni: 1,
  link: ETH0,
  local: parseIp('192.168.1.10'),
  learning: false,
  port: 8472,
}
const VXLAN_ALL = {
  vni: 7,
  link: ETH0,
  group: parseIp('ff05::7'),
  local: parseIp('fd00:1::10'),
  ttl: 9,
  tos: 4,
  learning: true,
  ageing: 60,
  limit: 100,
  portRange: { low: 10000, high: 20000 },
  proxy: true,
  rsc: true,
  l2miss: true,
  l3miss: true,
  port: 4789,
  udpCsum: true,
  udpZeroCsum6Tx: true,
  udpZeroCsum6Rx: true,
  gbp: true,
}

describe('what the kernel says', () => {
  const answers = (name: string) =>
    readVector(name).received.filter(({ type }) => type !== message.NLMSG_DONE)
  const decoded = <T extends object>(name: string, decode: (payload: Uint8Array) => T) =>
    answers(name).map(({ payload }) => known(decode(payload)))

  test('a vxlan link', () => {
    const [flannel] = decoded('link-show-vxlan', link.decodeLink)
    assert.deepEqual(flannel, {
      family: AF_UNSPEC,
      hardwareType: link.ARPHRD_ETHER,
      index: FLANNEL,
      flags: link.IFF_UP | link.IFF_BROADCAST | link.IFF_MULTICAST | link.IFF_RUNNING | link.IFF_LOWER_UP,
      change: 0,
      name: 'flannel.1',
      mac: '02:00:00:00:01:10',
      mtu: 1450,
      txqlen: 0,
      operstate: 0,
      kind: 'vxlan',
      vxlan: {
        ...VXLAN,
        ttl: 0,
        tos: 0,
        ageing: 300,
        limit: 0,
        portRange: { low: 0, high: 0 },
        proxy: false,
        rsc: false,
        l2miss: false,
        l3miss: false,
        udpCsum: true,
        udpZeroCsum6Tx: false,
        udpZeroCsum6Rx: false,
      },
    })
  })

  test('a vxlan link with all that can be set, over IPv6', () => {
    const [vxlan7] = decoded('link-show-vxlan-all', link.decodeLink)
    assert.deepEqual(vxlan7?.vxlan, VXLAN_ALL)
  })

  test('a bridge, a veth that is its port, the loopback', () => {
    const [bridge] = decoded('link-show-bridge', link.decodeLink)
    assert.equal(bridge?.kind, 'bridge')
    assert.deepEqual(bridge?.bridge, {
      forwardDelay: 200,
      ageingTime: 6000,
      stpState: 0,
      vlanFiltering: false,
      multicastSnooping: false,
    })
    const links = decoded('link-show', link.decodeLink)
    const port = links.find(({ name }) => name === 'eth1')
    assert.deepEqual([port?.kind, port?.index, port?.link, port?.master], ['veth', ETH1, ETH0, DOCKER0])
    const loopback = links.find(({ index }) => index === 1)
    assert.deepEqual([loopback?.name, loopback?.kind, loopback?.mtu], ['lo', undefined, 65536])
    assert.equal(links.length, 6)
  })

  test('what a port says of its bridge is kept', () => {
    const [port] = answers('link-show-port').map(({ payload }) => link.decodeLink(payload))
    const IFLA_INFO_SLAVE_KIND = 4
    const slave = port?.unknownInfo.find(({ type }) => type === IFLA_INFO_SLAVE_KIND)
    assert.equal(Buffer.from(slave?.value ?? []).toString(), 'bridge\0')
  })

  test('addresses', () => {
    assert.deepEqual(decoded('address-show', address.decodeAddress), [
      {
        family: AF_INET,
        prefixLength: 24,
        flags: address.IFA_F_PERMANENT,
        scope: route.RT_SCOPE_UNIVERSE,
        ifindex: ETH0,
        address: '192.168.1.10',
        local: '192.168.1.10',
        broadcast: '192.168.1.255',
        label: 'eth0',
      },
    ])
    const [, linkLocal] = decoded('address-show-ipv6', address.decodeAddress)
    assert.deepEqual(linkLocal, {
      family: AF_INET6,
      prefixLength: 64,
      flags: address.IFA_F_PERMANENT | address.IFA_F_TENTATIVE,
      scope: route.RT_SCOPE_LINK,
      ifindex: ETH0,
      address: 'fe80::ff:fe00:1',
      protocol: 3,
    })
  })

  test('neighbours of both families', () => {
    const entries = decoded('neighbour-show', neighbour.decodeNeighbour)
    assert.deepEqual(
      entries.filter(({ mac }) => mac === VTEP),
      [
        {
          family: AF_INET,
          ifindex: FLANNEL,
          state: neighbour.NUD_PERMANENT,
          flags: 0,
          type: route.RTN_UNICAST,
          destination: '10.10.11.0',
          mac: VTEP,
          protocol: 84,
          probes: 0,
        },
        {
          family: AF_INET6,
          ifindex: FLANNEL,
          state: neighbour.NUD_REACHABLE,
          flags: neighbour.NTF_EXT_LEARNED | neighbour.NTF_ROUTER,
          type: route.RTN_UNICAST,
          destination: 'fd00:10::1',
          mac: VTEP,
          probes: 0,
        },
      ],
    )
  })

  test('FDB entries of a vxlan link', () => {
    const entry = {
      family: AF_BRIDGE,
      ifindex: FLANNEL,
      state: neighbour.NUD_PERMANENT | neighbour.NUD_NOARP,
      flags: neighbour.NTF_SELF,
      type: route.RTN_UNICAST,
    }
    assert.deepEqual(decoded('fdb-show', neighbour.decodeNeighbour).toSorted(byMac), [
      { ...entry, mac: '00:00:00:00:00:00', destination: '192.168.1.12', port: 4789, vni: 5, via: ETH0 },
      { ...entry, mac: VTEP, destination: '192.168.1.11' },
    ])
  })

  test('an L3 miss', () => {
    const [miss] = readVector('monitor-l3-miss').received
    assert.equal(miss?.type, RTM_GETNEIGH)
    const [entry] = decoded('monitor-l3-miss', neighbour.decodeNeighbour)
    assert.deepEqual(entry, {
      family: AF_INET,
      ifindex: FLANNEL,
      state: neighbour.NUD_INCOMPLETE,
      flags: 0,
      type: route.RTN_UNICAST,
      destination: '10.99.0.1',
      probes: 3,
    })
  })

  test('nexthops', () => {
    const link = { scope: route.RT_SCOPE_LINK, protocol: 0, flags: 0 }
    assert.deepEqual(decoded('nexthop-show', nexthop.decodeNexthop), [
      {
        family: AF_INET,
        scope: route.RT_SCOPE_LINK,
        protocol: 84,
        flags: route.RTNH_F_ONLINK,
        id: 100,
        gateway: '10.10.11.0',
        oif: FLANNEL,
      },
      { ...link, family: AF_INET6, id: 101, gateway: 'fd00:1::11', oif: ETH0 },
      { ...link, family: AF_INET, scope: 0, id: 102, blackhole: true },
      { ...link, family: AF_INET, id: 103, gateway: '192.168.1.11', fdb: true },
      { ...link, family: AF_INET, id: 104, gateway: '192.168.1.12', oif: ETH0 },
      {
        ...link,
        family: AF_UNSPEC,
        scope: 0,
        id: 105,
        groupType: 0,
        group: [
          { id: 100, weight: 3 },
          { id: 104, weight: 1 },
        ],
      },
    ])
  })

  test('routes', () => {
    const unicast = {
      family: AF_INET,
      sourceLength: 0,
      tos: 0,
      table: route.RT_TABLE_MAIN,
      protocol: route.RTPROT_BOOT,
      scope: route.RT_SCOPE_UNIVERSE,
      type: route.RTN_UNICAST,
      flags: 0,
    }
    const [byNexthop, byGateway, multipath] = decoded('route-show', route.decodeRoute)
    assert.deepEqual(byNexthop, {
      ...unicast,
      protocol: 84,
      flags: route.RTNH_F_ONLINK,
      destination: '10.10.11.0',
      destinationLength: 24,
      nexthop: 100,
      gateway: '10.10.11.0',
      oif: FLANNEL,
    })
    assert.deepEqual(byGateway, {
      ...unicast,
      flags: route.RTNH_F_ONLINK,
      destination: '10.10.12.0',
      destinationLength: 24,
      gateway: '10.10.12.0',
      oif: FLANNEL,
    })
    assert.deepEqual(multipath, { ...unicast, destination: '10.20.0.0', destinationLength: 16 })
    assert.deepEqual(decoded('route-show-table', route.decodeRoute), [
      {
        ...unicast,
        table: 1000,
        protocol: 84,
        destinationLength: 0,
        gateway: '192.168.1.1',
        preferredSource: '192.168.1.10',
        oif: ETH0,
        priority: 7,
      },
    ])
    const ipv6 = decoded('route-show-ipv6', route.decodeRoute)
    assert.deepEqual(
      ipv6.find(({ destination }) => destination === 'fd00:20::'),
      {
        ...unicast,
        family: AF_INET6,
        flags: route.RTNH_F_ONLINK,
        destination: 'fd00:20::',
        destinationLength: 64,
        gateway: 'fd00:1::11',
        oif: ETH0,
        priority: 30,
      },
    )
  })

  test('parameters of a neighbour table', () => {
    const tables = answers('neighbour-table-show').map(({ payload }) => table.decodeNeighbourTable(payload))
    const probes = tables
      .filter(({ name }) => name === 'arp_cache')
      .map(({ parameters }) => [parameters?.ifindex, parameters?.appProbes])
    assert.ok(probes.some(([ifindex, appProbes]) => ifindex === FLANNEL && appProbes === 3))
    assert.ok(probes.some(([ifindex, appProbes]) => ifindex === undefined && appProbes === 0))
  })

  test('errors, with the sentence of the kernel where it has one', () => {
    const [plain, extended] = ['error-exists', 'error-extended'].map((name) => {
      const [answer] = readVector(name).received
      assert.ok(answer)
      return message.decodeAck(answer)
    })
    assert.deepEqual([plain?.code, plain?.errno, plain?.operation], ['EEXIST', 17, 'RTM_NEWLINK'])
    assert.equal(plain?.kernelMessage, undefined)
    assert.equal(extended?.kernelMessage, 'A VXLAN device with the specified VNI already exists')
    assert.equal(
      extended?.message,
      'RTM_NEWLINK: EEXIST: A VXLAN device with the specified VNI already exists',
    )
    const [success] = readVector('link-delete').received
    assert.ok(success)
    assert.equal(message.decodeAck(success), undefined)
  })
})

describe('what ip and bridge send, we send', () => {
  const fdb = {
    family: AF_BRIDGE,
    state: neighbour.NUD_PERMANENT | neighbour.NUD_NOARP,
    flags: neighbour.NTF_SELF,
  }
  const unicast = { family: AF_INET, table: route.RT_TABLE_MAIN, type: route.RTN_UNICAST }
  const boot = { ...unicast, protocol: route.RTPROT_BOOT }
  const gateway = parseIp('10.10.12.0')

  const requests: Record<string, message.Request> = {
    'link-add-veth': link.newLink(
      {
        name: 'eth0',
        index: ETH0,
        mac: parseMac('02:00:00:00:00:01'),
        kind: 'veth',
        veth: { peer: { name: 'eth1', index: ETH1, mac: parseMac('02:00:00:00:00:02') } },
      },
      ADD,
    ),
    'link-add-bridge': link.newLink(
      {
        name: 'docker0',
        index: DOCKER0,
        kind: 'bridge',
        bridge: { forwardDelay: 200, ageingTime: 6000, stpState: 0, multicastSnooping: false },
      },
      ADD,
    ),
    'link-add-vxlan': link.newLink(
      {
        name: 'flannel.1',
        index: FLANNEL,
        mac: parseMac('02:00:00:00:01:10'),
        mtu: 1450,
        txqlen: 0,
        kind: 'vxlan',
        vxlan: VXLAN,
      },
      ADD,
    ),
    'link-add-vxlan-all': link.newLink(
      {
        name: 'vxlan7',
        index: VXLAN7,
        mac: parseMac('02:00:00:00:07:10'),
        kind: 'vxlan',
        vxlan: VXLAN_ALL,
      },
      ADD,
    ),
    'link-set-up': link.newLink({ index: ETH0, flags: link.IFF_UP, change: link.IFF_UP }, 0),
    'link-set-master': link.newLink({ index: ETH1, master: DOCKER0 }, 0),
    'link-delete': link.deleteLink(FLANNEL),
    'address-add': address.newAddress(
      {
        family: AF_INET,
        prefixLength: 24,
        ifindex: ETH0,
        local: parseIp('192.168.1.10'),
        address: parseIp('192.168.1.10'),
        broadcast: parseIp('192.168.1.255'),
      },
      ADD,
    ),
    'address-add-vxlan': address.newAddress(
      {
        family: AF_INET,
        prefixLength: 32,
        ifindex: FLANNEL,
        flags: address.IFA_F_NOPREFIXROUTE,
        local: parseIp('10.10.10.0'),
        address: parseIp('10.10.10.0'),
      },
      ADD,
    ),
    'address-delete': address.deleteAddress({
      family: AF_INET,
      prefixLength: 32,
      ifindex: FLANNEL,
      local: parseIp('10.10.10.0'),
      address: parseIp('10.10.10.0'),
    }),
    'address-show': address.getAddresses(AF_INET, ETH0),
    'neighbour-replace': neighbour.newNeighbour(
      {
        family: AF_INET,
        ifindex: FLANNEL,
        state: neighbour.NUD_PERMANENT,
        destination: parseIp('10.10.11.0'),
        mac: VTEP,
        protocol: 84,
      },
      REPLACE,
    ),
    'neighbour-replace-ipv6': neighbour.newNeighbour(
      {
        family: AF_INET6,
        ifindex: FLANNEL,
        state: neighbour.NUD_REACHABLE,
        flags: neighbour.NTF_EXT_LEARNED | neighbour.NTF_ROUTER,
        destination: parseIp('fd00:10::1'),
        mac: VTEP,
      },
      REPLACE,
    ),
    'neighbour-replace-managed': neighbour.newNeighbour(
      {
        family: AF_INET,
        ifindex: ETH0,
        destination: parseIp('192.168.1.11'),
        flagsExtended: neighbour.NTF_EXT_MANAGED,
      },
      REPLACE,
    ),
    'neighbour-delete': neighbour.deleteNeighbour({
      family: AF_INET,
      ifindex: FLANNEL,
      state: neighbour.NUD_PERMANENT,
      destination: parseIp('10.10.11.0'),
    }),
    'neighbour-show': neighbour.getNeighbours(AF_UNSPEC, FLANNEL),
    'fdb-replace': neighbour.newNeighbour(
      { ...fdb, ifindex: FLANNEL, mac: VTEP, destination: parseIp('192.168.1.11') },
      REPLACE,
    ),
    'fdb-append': neighbour.newNeighbour(
      {
        ...fdb,
        ifindex: FLANNEL,
        mac: parseMac('00:00:00:00:00:00'),
        destination: parseIp('192.168.1.12'),
        port: 4789,
        vni: 5,
        via: ETH0,
      },
      NLM_F_CREATE | NLM_F_APPEND,
    ),
    'fdb-add-ipv6': neighbour.newNeighbour(
      { ...fdb, ifindex: VXLAN7, mac: parseMac('02:00:00:00:07:11'), destination: parseIp('fd00:1::11') },
      ADD,
    ),
    'fdb-add-vlan': neighbour.newNeighbour(
      {
        family: AF_BRIDGE,
        ifindex: ETH1,
        state: neighbour.NUD_NOARP | neighbour.NUD_REACHABLE,
        flags: neighbour.NTF_MASTER,
        mac: parseMac('02:00:00:00:02:33'),
        vlan: 5,
      },
      ADD,
    ),
    'fdb-delete': neighbour.deleteNeighbour({
      ...fdb,
      ifindex: FLANNEL,
      mac: VTEP,
      destination: parseIp('192.168.1.11'),
    }),
    'fdb-show': neighbour.getFdb(FLANNEL),
    'nexthop-replace': nexthop.newNexthop(
      {
        family: AF_INET,
        protocol: 84,
        flags: route.RTNH_F_ONLINK,
        id: 100,
        gateway: parseIp('10.10.11.0'),
        oif: FLANNEL,
      },
      REPLACE,
    ),
    'nexthop-add-ipv6': nexthop.newNexthop(
      { family: AF_INET6, id: 101, gateway: parseIp('fd00:1::11'), oif: ETH0 },
      ADD,
    ),
    'nexthop-add-blackhole': nexthop.newNexthop({ family: AF_INET, id: 102, blackhole: true }, ADD),
    'nexthop-add-fdb': nexthop.newNexthop(
      { family: AF_INET, id: 103, gateway: parseIp('192.168.1.11'), fdb: true },
      ADD,
    ),
    'nexthop-add-group': nexthop.newNexthop(
      {
        id: 105,
        group: [
          { id: 100, weight: 3 },
          { id: 104, weight: 1 },
        ],
      },
      ADD,
    ),
    'nexthop-delete': nexthop.deleteNexthop(105),
    'nexthop-show': nexthop.getNexthops(),
    'nexthop-show-dev': nexthop.getNexthops({ oif: FLANNEL }),
    'route-replace-nexthop': route.newRoute(
      { ...unicast, protocol: 84, destination: parseIp('10.10.11.0'), destinationLength: 24, nexthop: 100 },
      REPLACE,
    ),
    'route-replace-gateway': route.newRoute(
      {
        ...boot,
        destination: gateway,
        destinationLength: 24,
        gateway,
        oif: FLANNEL,
        flags: route.RTNH_F_ONLINK,
      },
      REPLACE,
    ),
    'route-add-table': route.newRoute(
      {
        ...unicast,
        protocol: 84,
        table: 1000,
        gateway: parseIp('192.168.1.1'),
        preferredSource: parseIp('192.168.1.10'),
        oif: ETH0,
        priority: 7,
      },
      ADD,
    ),
    'route-add-blackhole': route.newRoute(
      {
        ...boot,
        type: route.RTN_BLACKHOLE,
        destination: parseIp('10.30.0.0'),
        destinationLength: 16,
        priority: 5,
      },
      ADD,
    ),
    'route-add-ipv6': route.newRoute(
      {
        ...boot,
        family: AF_INET6,
        destination: parseIp('fd00:20::'),
        destinationLength: 64,
        gateway: parseIp('fd00:1::11'),
        oif: ETH0,
        priority: 30,
        flags: route.RTNH_F_ONLINK,
      },
      ADD,
    ),
    'route-delete': route.deleteRoute({
      family: AF_INET,
      table: route.RT_TABLE_MAIN,
      scope: route.RT_SCOPE_NOWHERE,
      destination: gateway,
      destinationLength: 24,
      gateway,
      oif: FLANNEL,
      priority: 0,
    }),
    'route-show-table': route.getRoutes(AF_INET, { table: 1000 }),
  }

  for (const [vni, name, field] of [
    [31, 'proxy', 'proxy'],
    [32, 'rsc', 'rsc'],
    [33, 'l2miss', 'l2miss'],
    [34, 'l3miss', 'l3miss'],
    [35, 'udpcsum', 'udpCsum'],
    [36, 'zerocsum-tx', 'udpZeroCsum6Tx'],
    [37, 'zerocsum-rx', 'udpZeroCsum6Rx'],
  ] as const) {
    requests[`link-add-vxlan-${name}`] = link.newLink(
      { name: `vxlan${vni}`, kind: 'vxlan', vxlan: { vni, port: 4789, learning: true, [field]: true } },
      ADD,
    )
  }

  for (const [name, request] of Object.entries(requests)) {
    const { command, sent } = readVector(name)
    test(command, () => {
      const [expected] = sent
      assert.ok(expected)
      assert.equal(request.type, expected.type)
      assert.equal(request.flags, expected.flags & ~NLM_F_ACK)
      if (request.type === RTM_NEWLINK) {
        // `ip` leaves out the NUL behind IFLA_INFO_KIND, which changes the lengths of all that it is in.
        assert.deepEqual(link.decodeLink(request.payload), link.decodeLink(expected.payload))
      } else {
        assert.deepEqual(words(request.payload), words(expected.payload))
      }
    })
  }
})

test('ip link set dev eth0 netns twc: the number of an open file', () => {
  const [request] = readVector('link-set-namespace').sent
  assert.ok(request)
  const { index, namespaceFd, unknown } = link.decodeLink(request.payload)
  assert.deepEqual([index, typeof namespaceFd, unknown], [ETH0, 'number', []])
})

/** Without what the codec does not know or what differs from capture to capture. */
function known<T extends object>(value: T): Omit<T, 'unknown' | 'unknownInfo' | 'cache'> {
  const aside = new Set(['unknown', 'unknownInfo', 'cache'])
  return JSON.parse(JSON.stringify(value, (key, field: unknown) => (aside.has(key) ? undefined : field)))
}

function byMac(a: { readonly mac?: string | undefined }, b: { readonly mac?: string | undefined }): number {
  return (a.mac ?? '').localeCompare(b.mac ?? '')
}

/** The order of attributes is free: the 32-bit words of a payload, sorted, are the same whatever the order. */
function words(payload: Uint8Array): string[] {
  return (
    Buffer.from(payload)
      .toString('hex')
      .match(/.{1,8}/g) ?? []
  ).toSorted()
}
