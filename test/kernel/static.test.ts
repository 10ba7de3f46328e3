/**
 * The static mode on the real kernel: a route, a neighbour and an FDB entry for each peer.
 *
 *     peers 10.10.n.0/24 at 192.168.1.n … ── eth0 192.168.1.10 ── flannel.1 10.10.10.0
 */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { parsePrefix } from '../../src/address/prefix.ts'
import type { LeaseKey } from '../../src/lease/lease.ts'
import { type Entry, MAIN_TABLE, PROTOCOL } from '../../src/state.ts'
import { lease, OWN_MAC, peerMac, reconcilerFor, SELF, vxlanBackend } from './fixture.ts'
import { Host } from './namespace.ts'

const PEERS = [lease(11), lease(12), lease(13)]

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
]

for (const nexthopObjects of [true, false]) {
  describe(`static, ${nexthopObjects ? 'nexthop objects' : 'gateway routes'}`, () => {
    let host: Host
    before(async () => {
      host = await Host.create('192.168.1.10')
      for (const words of FOREIGN) await host.ip(words)
    })
    after(() => host[Symbol.asyncDispose]())

    test('the first turn makes all of it, the second does nothing, what is foreign stays', async () => {
      const foreign = await host.picture()
      using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS, nexthopObjects)
      const report = await reconciler.turn()
      assert.deepEqual(report.failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])

      const [link] = await host.list('link show flannel.1')
      assert.equal(link?.['address'], OWN_MAC)
      assert.equal(link?.['mtu'], 1450)
      const picture = await host.picture()
      assert.deepEqual(
        foreign.filter((line) => !picture.includes(line)),
        [],
      )
      const routes = await host.list('route show dev flannel.1')
      assert.deepEqual(
        routes.map(({ dst, gateway, protocol, flags }) => ({ dst, gateway, protocol, flags })),
        [11, 12, 13].map((n) => ({
          dst: `10.10.${n}.0/24`,
          gateway: `10.10.${n}.0`,
          protocol: '84',
          flags: ['onlink'],
        })),
      )
      assert.equal(
        routes.every(({ nhid }) => (nhid !== undefined) === nexthopObjects),
        true,
      )
      const neighbours = await host.list('neigh show dev flannel.1')
      assert.deepEqual(
        new Set(neighbours.map(({ dst, lladdr, state }) => [dst, lladdr, state].join(' '))),
        new Set([11, 12, 13].map((n) => `10.10.${n}.0 ${peerMac(n)} PERMANENT`)),
      )
      assert.deepEqual(
        new Set((await host.fdb('flannel.1')).map(({ mac, dst }) => [mac, dst].join(' '))),
        new Set([11, 12, 13].map((n) => `${peerMac(n)} 192.168.1.${n}`)),
      )
    })

    test('a new reconciler on a kernel that is right does nothing', async () => {
      using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS, nexthopObjects)
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test('every drift is repaired by the next turn', async () => {
      using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS, nexthopObjects)
      await reconciler.turn()
      const right = withoutIndexes(await host.picture())
      const drifts = [
        'ip route del 10.10.11.0/24',
        'ip route replace 10.10.11.0/24 via 10.10.12.0 dev flannel.1 onlink',
        'ip route add 10.10.50.0/24 via 10.10.50.0 dev flannel.1 onlink',
        'ip neigh del 10.10.11.0 dev flannel.1',
        'ip neigh replace 10.10.11.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent',
        'ip neigh replace 10.10.11.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud reachable',
        'ip neigh add 10.10.50.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent',
        `bridge fdb del ${peerMac(11)} dev flannel.1`,
        `bridge fdb replace ${peerMac(11)} dev flannel.1 dst 192.168.1.99`,
        'bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 192.168.1.99',
        'ip addr del 10.10.10.0/32 dev flannel.1',
        'ip addr add 10.10.10.9/32 dev flannel.1',
        'ip link set flannel.1 mtu 1400',
        'ip link set flannel.1 address 02:00:00:00:00:99',
        'ip link set flannel.1 type vxlan learning',
        'ip link set flannel.1 type vxlan local 192.168.1.99',
        'ip link set flannel.1 down',
        'ip link del flannel.1',
        ...(nexthopObjects ? ['ip nexthop flush proto 84 dev flannel.1'] : []),
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
      const backend = await vxlanBackend(host)
      using reconciler = await reconcilerFor(host, backend, PEERS, nexthopObjects)
      await reconciler.turn()
      reconciler.exchange([backend.peer(lease(11))], [backend.peer(lease(11, peerMac(111), '192.168.1.111'))])
      const report = await reconciler.turn()
      assert.deepEqual(
        report.operations.map(({ verb, entry }) => `${verb} ${entry.kind}`),
        ['add fdb', 'change neighbour', 'delete fdb'],
      )
      assert.deepEqual(report.repaired, [])
      reconciler.exchange([backend.peer(lease(11, peerMac(111), '192.168.1.111'))], [backend.peer(lease(11))])
      await reconciler.turn()
    })

    test('a peer that leaves takes all of its entries with it and no other', async () => {
      const backend = await vxlanBackend(host)
      using reconciler = await reconcilerFor(host, backend, PEERS, nexthopObjects)
      await reconciler.turn()
      const before = withoutIndexes(await host.picture())
      reconciler.exchange([], [backend.peer(lease(20))])
      assert.equal((await reconciler.turn()).operations.length, nexthopObjects ? 4 : 3)
      reconciler.exchange([backend.peer(lease(20))], [])
      const report = await reconciler.turn()
      assert.deepEqual(report.failures, [])
      assert.deepEqual(withoutIndexes(await host.picture()), before)
    })

    test('peers that left while nobody looked are pruned by the first turn', async () => {
      using reconciler = await reconcilerFor(host, await vxlanBackend(host), [lease(11)], nexthopObjects)
      const report = await reconciler.turn()
      assert.equal(
        report.operations.every(({ verb }) => verb === 'delete'),
        true,
      )
      assert.deepEqual(
        (await host.list('route show dev flannel.1')).map(({ dst }) => dst),
        ['10.10.11.0/24'],
      )
      assert.equal((await host.fdb('flannel.1')).length, 1)
    })

    test('two leases of one host share its FDB entry until the last of them goes', async () => {
      const backend = await vxlanBackend(host)
      using reconciler = await reconcilerFor(host, backend, [lease(11)], nexthopObjects)
      const second = lease(21, peerMac(11), '192.168.1.11')
      reconciler.exchange([], [backend.peer(second)])
      await reconciler.turn()
      reconciler.exchange([backend.peer(lease(11))], [])
      await reconciler.turn()
      assert.deepEqual(
        (await host.fdb('flannel.1')).map(({ mac, dst }) => [mac, dst].join(' ')),
        [`${peerMac(11)} 192.168.1.11`],
      )
      assert.deepEqual(
        (await host.list('route show dev flannel.1')).map(({ dst }) => dst),
        ['10.10.21.0/24'],
      )
    })

    test('a foreign route in the way is reported, kept, and no longer in the way once it went', async () => {
      const backend = await vxlanBackend(host)
      using reconciler = await reconcilerFor(host, backend, [lease(11)], nexthopObjects)
      await reconciler.turn()
      await host.ip('route add 10.10.40.0/24 via 192.168.1.1')
      reconciler.exchange([], [backend.peer(lease(40))])
      const report = await reconciler.turn()
      assert.match(report.failures.map(({ error }) => error.message).join(), /^RTM_NEWROUTE: EEXIST/)
      assert.deepEqual(
        reconciler.failures.map(({ operation }) => operation.entry.kind),
        ['route'],
      )
      assert.match(await host.ip('route show 10.10.40.0/24'), /via 192.168.1.1 dev eth0/)
      await host.ip('route del 10.10.40.0/24')
      reconciler.exchange([backend.peer(lease(40))], [backend.peer(lease(40))])
      await reconciler.turn()
      assert.deepEqual(reconciler.failures, [])
      assert.match(await host.ip('route show 10.10.40.0/24'), /dev flannel.1 proto 84/)
    })

    test('an empty plan withdraws all that is ours and nothing else', async () => {
      const { scope } = await vxlanBackend(host)
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
      ]) {
        assert.ok(picture.includes(line), line)
      }
    })
  })
}

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
      await using host = await Host.create('192.168.1.10')
      await host.ip(`link add flannel.1 address ${OWN_MAC} mtu 1400 type ${link}`)
      const index = await host.index('flannel.1')
      using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS)
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
    await using host = await Host.create('192.168.1.10')
    const peers = Array.from({ length: 1100 }, (_, i) => {
      const n = 256 + i
      const subnet = parsePrefix(`10.10.${n >> 4}.${(n & 15) * 16}/28`)
      const key = subnet.replace('/', '-') as LeaseKey
      return { ...lease(11, `02:00:00:01:${hex(n >> 8)}:${hex(n & 255)}`), key, subnets: { inet: subnet } }
    })
    {
      using first = await reconcilerFor(host, await vxlanBackend(host), peers)
      assert.deepEqual((await first.turn()).failures, [])
    }
    using second = await reconcilerFor(host, await vxlanBackend(host, { Port: 4789 }), peers)
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

  test('the state that flanneld leaves is taken over without a moment without a route', async () => {
    await using host = await Host.create('192.168.1.10')
    await host.ip(
      `link add flannel.1 address ${OWN_MAC} mtu 1450 type vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472 nolearning`,
    )
    await host.ip('addr add 10.10.10.0/32 dev flannel.1')
    await host.ip('link set flannel.1 up')
    for (const n of [11, 12, 13]) {
      await host.ip(`neigh add 10.10.${n}.0 lladdr ${peerMac(n)} dev flannel.1 nud permanent`)
      await host.bridge(`fdb add ${peerMac(n)} dev flannel.1 dst 192.168.1.${n}`)
      await host.ip(`route add 10.10.${n}.0/24 via 10.10.${n}.0 dev flannel.1 onlink`)
    }
    using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS)
    const { operations, failures } = await reconciler.turn()
    assert.deepEqual(failures, [])
    assert.deepEqual(
      new Set(operations.map(({ verb, entry }) => `${verb} ${entry.kind}`)),
      new Set(['add nexthop', 'change route']),
    )
  })
})

test('after a change of the VNI the old link goes, and its routes are moved', async () => {
  await using host = await Host.create('192.168.1.10')
  {
    using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS)
    await reconciler.turn()
  }
  using reconciler = await reconcilerFor(host, await vxlanBackend(host, { VNI: 42 }), PEERS)
  assert.deepEqual((await reconciler.turn()).failures, [])
  assert.deepEqual((await reconciler.turn()).operations, [])
  const links = (await host.list('link show type vxlan')).map(({ ifname }) => ifname)
  assert.deepEqual(links, ['flannel.42'])
  assert.equal((await host.list('route show dev flannel.42')).length, 3)
})

test('a blackhole for our own subnet stands behind the route of the containers, repaired, and goes with its share', async () => {
  await using host = await Host.create('192.168.1.10')
  await host.ip('link add docker0 type bridge')
  await host.ip('addr add 10.10.10.1/24 dev docker0')
  await host.ip('link set docker0 up')
  await host.ip('route add blackhole 10.10.98.0/24')
  await host.ip('route add blackhole 172.16.0.0/16 proto 84')
  using reconciler = await reconcilerFor(host, await vxlanBackend(host), PEERS)
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
  await using host = await Host.create('192.168.1.10')
  const backend = await vxlanBackend(host)
  const index = await host.index('eth0')
  await host.ip('link del eth0')
  using reconciler = await reconcilerFor(host, backend, PEERS)
  const { failures, operations } = await reconciler.turn()
  assert.equal(operations.length, 1)
  assert.equal(failures.length, 1)
  assert.match(failures[0]?.error.message ?? '', /RTM_NEWLINK: ENODEV/)
  await host.ip(`link add eth0 index ${index} type veth peer name wire`)
  await host.ip('link set eth0 up')
  reconciler.exchange([backend.own(SELF)], [backend.own(SELF)])
  assert.deepEqual((await reconciler.turn()).failures, [])
  assert.equal((await host.fdb('flannel.1')).length, 3)
})

/** A link that is made anew has another index, and a nexthop that is made anew may have another id: no difference. */
function withoutIndexes(picture: readonly string[]): string[] {
  return picture
    .map((line) =>
      line.replace(/^\d+: flannel/, 'flannel').replaceAll(/nhid \d+|^id 14\d+ via 10\.10/g, 'nexthop'),
    )
    .filter((line) => !line.startsWith('33:33:') && !line.startsWith('01:00:5e'))
    .toSorted()
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
