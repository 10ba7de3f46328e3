/**
 * The static mode on the real kernel: a route, a neighbour and an FDB entry for each peer.
 *
 *     peers 10.10.n.0/24 at 192.168.1.n … ── eth0 192.168.1.10 ── flannel.1 10.10.10.0
 *     peers fd10:0:0:n::/64 at fd00::n … ── eth0 fd00::10 ── flannel-v6.1 fd10:0:0:a::
 */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { parsePrefix } from '../../src/address/prefix.ts'
import { type Entry, MAIN_TABLE, PROTOCOL } from '../../src/state.ts'
import { createHost, OWN_MAC, Overlay, peerMac } from './fixture.ts'
import type { Host } from './namespace.ts'

const NUMBERS = [11, 12, 13]

/** What an operator has on the same machine, near to ours in every way. */
const FOREIGN = [
  'route add 172.16.0.0/16 via 192.168.1.1',
  'route add 10.10.99.0/24 via 192.168.1.1 table 100',
  'route add 10.99.0.0/16 via 192.168.1.1 proto 84',
  'nexthop add id 7 via 192.168.1.1 dev eth0',
  'nexthop add id 1409286145 via 192.168.1.1 dev eth0 proto 84',
  'neigh add 192.168.1.77 lladdr 02:77:00:00:00:00 dev eth0 nud permanent',
  'link add cni0 type bridge',
  'addr add 10.10.10.1/24 dev cni0',
  'rule add from 10.10.0.0/16 lookup 100 pref 500',
  '-6 route add fd20::/64 via fd00::1',
  '-6 route add fd10:0:0:63::/64 via fd00::1 table 100',
  '-6 route add fd99::/64 via fd00::1 proto 84',
  'nexthop add id 8 via fd00::1 dev eth0',
  'neigh add fd00::77 lladdr 02:77:00:00:00:00 dev eth0 nud permanent',
  'addr add fd10:0:0:a::1/64 dev cni0 nodad',
]

for (const [family, nexthopObjects] of [
  ['inet', true],
  ['inet', false],
  ['inet6', true],
  ['inet6', false],
] as const) {
  const net = new Overlay(family)
  const { link } = net
  const peers = NUMBERS.map((n) => net.lease(n))

  describe(`static, ${family}, ${nexthopObjects ? 'nexthop objects' : 'gateway routes'}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
      for (const words of FOREIGN) await host.ip(words)
    })
    after(() => host[Symbol.asyncDispose]())

    test('the first turn makes all of it, the second does nothing, what is foreign stays', async () => {
      const foreign = await host.picture()
      using reconciler = await net.reconciler(host, await net.backend(host), peers, nexthopObjects)
      const report = await reconciler.turn()
      assert.deepEqual(report.failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])

      const [row] = await host.list(`link show ${link}`)
      assert.equal(row?.['address'], OWN_MAC)
      assert.equal(row?.['mtu'], net.mtu)
      const picture = await host.picture()
      assert.deepEqual(
        foreign.filter((line) => !picture.includes(line)),
        [],
      )
      const routes = await net.routes(host)
      assert.deepEqual(
        routes.map(({ dst, gateway, protocol, flags }) => ({ dst, gateway, protocol, flags })),
        NUMBERS.map((n) => ({
          dst: net.subnet(n),
          gateway: net.base(n),
          protocol: '84',
          flags: ['onlink'],
        })),
      )
      assert.equal(
        routes.every(({ nhid }) => (nhid !== undefined) === nexthopObjects),
        true,
      )
      const neighbours = await host.list(`neigh show dev ${link}`)
      assert.deepEqual(
        new Set(neighbours.map(({ dst, lladdr, state }) => [dst, lladdr, state].join(' '))),
        new Set(NUMBERS.map((n) => `${net.base(n)} ${peerMac(n)} PERMANENT`)),
      )
      assert.deepEqual(
        new Set((await host.fdb(link)).map(({ mac, dst }) => [mac, dst].join(' '))),
        new Set(NUMBERS.map((n) => `${peerMac(n)} ${net.publicIp(n)}`)),
      )
    })

    test('a new reconciler on a kernel that is right does nothing', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host), peers, nexthopObjects)
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test('every drift is repaired by the next turn', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host), peers, nexthopObjects)
      await reconciler.turn()
      const right = withoutIndexes(await host.picture())
      const drifts = [
        `ip route del ${net.subnet(11)}`,
        `ip route replace ${net.subnet(11)} via ${net.base(12)} dev ${link} onlink`,
        `ip route add ${net.subnet(50)} via ${net.base(50)} dev ${link} onlink`,
        `ip neigh del ${net.base(11)} dev ${link}`,
        `ip neigh replace ${net.base(11)} lladdr 02:00:00:00:00:99 dev ${link} nud permanent`,
        `ip neigh replace ${net.base(11)} lladdr 02:00:00:00:00:99 dev ${link} nud reachable`,
        `ip neigh add ${net.base(50)} lladdr 02:00:00:00:00:99 dev ${link} nud permanent`,
        `bridge fdb del ${peerMac(11)} dev ${link}`,
        `bridge fdb replace ${peerMac(11)} dev ${link} dst ${net.publicIp(99)}`,
        `bridge fdb add 02:00:00:00:00:99 dev ${link} dst ${net.publicIp(99)}`,
        `ip addr del ${net.vtep(10)} dev ${link}`,
        `ip addr add ${net.address(10, 9)}/${net.bits} dev ${link}`,
        `ip link set ${link} mtu 1400`,
        `ip link set ${link} address 02:00:00:00:00:99`,
        `ip link set ${link} type vxlan learning`,
        `ip link set ${link} type vxlan local ${net.publicIp(99)}`,
        `ip link set ${link} down`,
        `ip link del ${link}`,
        ...(nexthopObjects ? [`ip nexthop flush proto 84 dev ${link}`] : []),
      ]
      for (const drift of drifts) {
        const [tool, ...words] = drift.split(' ')
        await (tool === 'ip' ? host.ip(words.join(' ')) : host.bridge(words.join(' ')))
        assert.notDeepEqual(withoutIndexes(await host.picture()), right, `${drift} changes something`)
        const report = await reconciler.turn()
        assert.deepEqual(report.failures, [], drift)
        assert.equal(report.repaired.length, report.operations.length, drift)
        assert.deepEqual(withoutIndexes(await host.picture()), right, drift)
        assert.deepEqual((await reconciler.turn()).operations, [], drift)
      }
    })

    test('a peer that changes its MAC and its public IP is three changes, one at a time', async () => {
      const backend = await net.backend(host)
      using reconciler = await net.reconciler(host, backend, peers, nexthopObjects)
      await reconciler.turn()
      reconciler.exchange(
        [backend.peer(net.lease(11))],
        [backend.peer(net.lease(11, peerMac(111), net.publicIp(111)))],
      )
      const report = await reconciler.turn()
      assert.deepEqual(
        report.operations.map(({ verb, entry }) => `${verb} ${entry.kind}`),
        ['add fdb', 'change neighbour', 'delete fdb'],
      )
      assert.deepEqual(report.repaired, [])
      reconciler.exchange(
        [backend.peer(net.lease(11, peerMac(111), net.publicIp(111)))],
        [backend.peer(net.lease(11))],
      )
      await reconciler.turn()
    })

    test('a peer that leaves takes all of its entries with it and no other', async () => {
      const backend = await net.backend(host)
      using reconciler = await net.reconciler(host, backend, peers, nexthopObjects)
      await reconciler.turn()
      const before = withoutIndexes(await host.picture())
      reconciler.exchange([], [backend.peer(net.lease(20))])
      assert.equal((await reconciler.turn()).operations.length, nexthopObjects ? 4 : 3)
      reconciler.exchange([backend.peer(net.lease(20))], [])
      const report = await reconciler.turn()
      assert.deepEqual(report.failures, [])
      assert.deepEqual(withoutIndexes(await host.picture()), before)
    })

    test('peers that left while nobody looked are pruned by the first turn', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host), [net.lease(11)], nexthopObjects)
      const report = await reconciler.turn()
      assert.equal(
        report.operations.every(({ verb }) => verb === 'delete'),
        true,
      )
      assert.deepEqual(
        (await net.routes(host)).map(({ dst }) => dst),
        [net.subnet(11)],
      )
      assert.equal((await host.fdb(link)).length, 1)
    })

    test('two leases of one host share its FDB entry until the last of them goes', async () => {
      const backend = await net.backend(host)
      using reconciler = await net.reconciler(host, backend, [net.lease(11)], nexthopObjects)
      const second = net.lease(21, peerMac(11), net.publicIp(11))
      reconciler.exchange([], [backend.peer(second)])
      await reconciler.turn()
      reconciler.exchange([backend.peer(net.lease(11))], [])
      await reconciler.turn()
      assert.deepEqual(
        (await host.fdb(link)).map(({ mac, dst }) => [mac, dst].join(' ')),
        [`${peerMac(11)} ${net.publicIp(11)}`],
      )
      assert.deepEqual(
        (await net.routes(host)).map(({ dst }) => dst),
        [net.subnet(21)],
      )
    })

    test('a foreign route in the way is reported, kept, and no longer in the way once it went', async () => {
      const backend = await net.backend(host)
      using reconciler = await net.reconciler(host, backend, [net.lease(11)], nexthopObjects)
      await reconciler.turn()
      // An IPv6 route through a gateway elsewhere would be in the way of the gateway already.
      const foreign = family === 'inet' ? `${net.subnet(40)} via 192.168.1.1` : `blackhole ${net.subnet(40)}`
      await host.ip(`route add ${foreign}`)
      reconciler.exchange([], [backend.peer(net.lease(40))])
      const report = await reconciler.turn()
      assert.match(report.failures.map(({ error }) => error.message).join(), /^RTM_NEWROUTE: EEXIST/)
      assert.deepEqual(
        reconciler.failures.map(({ operation }) => operation.entry.kind),
        ['route'],
      )
      assert.match(
        await host.ip(`${net.flag} route show ${net.subnet(40)}`),
        / via 192.168.1.1 dev eth0|^blackhole /,
      )
      await host.ip(`route del ${net.subnet(40)}`)
      reconciler.exchange([backend.peer(net.lease(40))], [backend.peer(net.lease(40))])
      await reconciler.turn()
      assert.deepEqual(reconciler.failures, [])
      assert.match(await host.ip(`${net.flag} route show ${net.subnet(40)}`), / dev flannel\S* proto 84/)
    })

    test('an empty plan withdraws all that is ours and nothing else', async () => {
      const { scope } = await net.backend(host)
      const { Reconciler } = await import('../../src/kernel/reconcile.ts')
      using reconciler = await Reconciler.open({ scope, netns: host.path, nexthopObjects })
      const report = await reconciler.turn()
      assert.deepEqual(report.failures, [])
      const picture = await host.picture()
      assert.deepEqual(
        picture.filter((line) => line.includes('flannel')),
        [],
      )
      for (const line of [
        '172.16.0.0/16 via 192.168.1.1 dev eth0',
        '10.99.0.0/16 via 192.168.1.1 dev eth0 proto 84',
        'fd99::/64 via fd00::1 dev eth0 proto 84 metric 1024 pref medium',
      ]) {
        assert.ok(picture.includes(line), line)
      }
    })
  })
}

const inet = new Overlay('inet')
const PEERS = NUMBERS.map((n) => inet.lease(n))

describe('an existing flannel.1', () => {
  for (const { what, link, changed } of [
    {
      what: 'a compatible one is adopted, drift of its MTU repaired',
      link: 'vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472 nolearning',
      changed: 'change',
    },
    {
      what: 'another VNI is made anew',
      link: 'vxlan id 2 local 192.168.1.10 dev eth0 dstport 8472 nolearning',
      changed: 'delete',
    },
    {
      what: 'another port is made anew',
      link: 'vxlan id 1 local 192.168.1.10 dev eth0 dstport 4789 nolearning',
      changed: 'delete',
    },
    {
      what: 'a multicast group is made anew',
      link: 'vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472 group 239.1.1.1',
      changed: 'delete',
    },
    {
      what: 'GBP is made anew',
      link: 'vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472 nolearning gbp',
      changed: 'delete',
    },
    {
      what: 'another external interface is made anew',
      link: 'vxlan id 1 local 192.168.1.10 dev wire dstport 8472 nolearning',
      changed: 'delete',
    },
    { what: 'another kind of link is made anew', link: 'bridge', changed: 'delete' },
  ]) {
    test(what, async () => {
      await using host = await createHost()
      await host.ip(`link add flannel.1 address ${OWN_MAC} mtu 1400 type ${link}`)
      const index = await host.index('flannel.1')
      using reconciler = await inet.reconciler(host, await inet.backend(host), PEERS)
      const { operations, failures } = await reconciler.turn()
      assert.deepEqual(failures, [])
      const first = operations[0]
      assert.deepEqual([first?.entry.kind, first?.verb], ['link', changed])
      assert.equal((await host.index('flannel.1')) === index, changed === 'change')
      const [row] = await host.list('link show flannel.1')
      assert.equal(row?.['mtu'], 1450)
      assert.deepEqual((await reconciler.turn()).operations, [])
    })
  }

  test('with many routes is removed after them: the other way round, the kernel takes seconds', async () => {
    await using host = await createHost()
    const peers = Array.from({ length: 1100 }, (_, i) => {
      const n = 256 + i
      const subnet = parsePrefix(`10.10.${n >> 4}.${(n & 15) * 16}/28`)
      return inet.lease(11, `02:00:00:01:${hex(n >> 8)}:${hex(n & 255)}`, undefined, subnet)
    })
    {
      using first = await inet.reconciler(host, await inet.backend(host), peers)
      assert.deepEqual((await first.turn()).failures, [])
    }
    using second = await inet.reconciler(host, await inet.backend(host, { Port: 4789 }), peers)
    const { operations, failures } = await second.turn()
    assert.deepEqual(failures, [])
    const steps = operations.map(({ verb, entry }) => `${verb} ${entry.kind}`)
    assert.deepEqual(
      steps.filter((step, i) => step !== steps[i - 1]),
      [
        'delete route',
        'delete link',
        'add link',
        'add address',
        'add fdb',
        'add neighbour',
        'add nexthop',
        'add route',
      ],
    )
    assert.equal((await host.list('route show dev flannel.1')).length, 1100)
    assert.deepEqual((await second.turn()).operations, [])
  })
})

for (const family of ['inet', 'inet6'] as const) {
  test(`the state that flanneld leaves is taken over without a moment without a route, ${family}`, async () => {
    const net = new Overlay(family)
    const { link } = net
    await using host = await createHost()
    await host.ip(
      `link add ${link} address ${OWN_MAC} mtu ${net.mtu} type vxlan id 1 local ${net.publicIp(family === 'inet' ? 10 : 16)} dev eth0 dstport 8472 nolearning`,
    )
    await host.ip(`addr add ${net.vtep(10)} dev ${link} nodad`)
    await host.ip(`link set ${link} up`)
    for (const n of NUMBERS) {
      await host.ip(`neigh add ${net.base(n)} lladdr ${peerMac(n)} dev ${link} nud permanent`)
      await host.bridge(`fdb add ${peerMac(n)} dev ${link} dst ${net.publicIp(n)}`)
      await host.ip(`route add ${net.subnet(n)} via ${net.base(n)} dev ${link} onlink`)
    }
    const leases = NUMBERS.map((n) => net.lease(n))
    using reconciler = await net.reconciler(host, await net.backend(host), leases)
    const { operations, failures } = await reconciler.turn()
    assert.deepEqual(failures, [])
    assert.deepEqual(
      new Set(operations.map(({ verb, entry }) => `${verb} ${entry.kind}`)),
      new Set(['add nexthop', 'change route']),
    )
    assert.deepEqual((await reconciler.turn()).operations, [])
  })
}

test('after a change of the VNI the old link goes, and its routes are moved', async () => {
  await using host = await createHost()
  {
    using reconciler = await inet.reconciler(host, await inet.backend(host), PEERS)
    await reconciler.turn()
  }
  using reconciler = await inet.reconciler(host, await inet.backend(host, { VNI: 42 }), PEERS)
  assert.deepEqual((await reconciler.turn()).failures, [])
  assert.deepEqual((await reconciler.turn()).operations, [])
  const links = (await host.list('link show type vxlan')).map(({ ifname }) => ifname)
  assert.deepEqual(links, ['flannel.42'])
  assert.equal((await host.list('route show dev flannel.42')).length, 3)
})

test('a blackhole for our own subnet stands behind the route of the containers, repaired, and goes with its share', async () => {
  await using host = await createHost()
  await host.ip('link add docker0 type bridge')
  await host.ip('addr add 10.10.10.1/24 dev docker0')
  await host.ip('link set docker0 up')
  await host.ip('route add blackhole 10.10.98.0/24')
  await host.ip('route add blackhole 172.16.0.0/16 proto 84')
  using reconciler = await inet.reconciler(host, await inet.backend(host), PEERS)
  const entry: Entry = {
    kind: 'route',
    destination: parsePrefix('10.10.10.0/24'),
    table: MAIN_TABLE,
    metric: 2 ** 32 - 1,
    link: undefined,
    gateway: undefined,
    nexthop: undefined,
    protocol: PROTOCOL,
  }
  const share = { entries: [entry], answers: [] }
  reconciler.exchange([], [share])
  for (const deed of ['made', 'repaired']) {
    assert.deepEqual((await reconciler.turn()).failures, [])
    assert.deepEqual((await reconciler.turn()).operations, [], deed)
    assert.match(
      await host.ip('route show 10.10.10.0/24'),
      /^10\.10\.10\.0\/24 dev docker0 .*\nblackhole 10\.10\.10\.0\/24 proto 84 metric 4294967295/,
    )
    if (deed === 'made') await host.ip('route del blackhole 10.10.10.0/24 metric 4294967295')
  }
  reconciler.exchange([share], [])
  await reconciler.turn()
  const left = (await host.ip('route show type blackhole')).trim().split(/\s*\n/)
  assert.deepEqual(left, ['blackhole 10.10.98.0/24', 'blackhole 172.16.0.0/16 proto 84'])
})

test('a link that cannot be made blocks what is on it, and is one failure', async () => {
  await using host = await createHost()
  const backend = await inet.backend(host)
  const index = await host.index('eth0')
  await host.ip('link del eth0')
  using reconciler = await inet.reconciler(host, backend, PEERS)
  const { failures, operations } = await reconciler.turn()
  assert.equal(operations.length, 1)
  assert.equal(failures.length, 1)
  assert.match(failures[0]?.error.message ?? '', /RTM_NEWLINK: ENODEV/)
  await host.ip(`link add eth0 index ${index} type veth peer name wire`)
  await host.ip('link set eth0 up')
  reconciler.exchange([backend.own(inet.self)], [backend.own(inet.self)])
  assert.deepEqual((await reconciler.turn()).failures, [])
  assert.equal((await host.fdb('flannel.1')).length, 3)
})

/** A link that is made anew has another index, and a nexthop that is made anew may have another id: no difference. */
function withoutIndexes(picture: readonly string[]): string[] {
  return picture
    .map((line) =>
      line
        .replace(/^\d+: flannel/, 'flannel')
        .replaceAll(/nhid \d+|^id 14\d+ via (?=10\.10|fd10)/g, 'nexthop'),
    )
    .filter((line) => !line.startsWith('33:33:') && !line.startsWith('01:00:5e'))
    .toSorted()
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
