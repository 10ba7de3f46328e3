/** ipip on a kernel that has it: the link, routes through a public IP on it, packets between us and a host as flanneld leaves it. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { parseIp } from '../../src/address/ip.ts'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { ping, type PingResult } from '../../src/lab/ping.ts'
import { Overlay } from '../kernel/fixture.ts'
import { Host } from '../kernel/namespace.ts'

const IPIP = { Type: 'ipip' }
const net = new Overlay('inet')
const peers = [11, 12].map((n) => net.lease(n))

for (const nexthopObjects of [true, false]) {
  describe(`ipip, ${nexthopObjects ? 'nexthop objects' : 'gateway routes'}`, { timeout: 120_000 }, () => {
    let host: Host
    before(async () => {
      host = await Host.create('192.168.1.10', 'fd00::10')
    })
    after(() => host[Symbol.asyncDispose]())

    const open = async (settings: object = IPIP, leases = peers) =>
      await net.reconciler(host, await net.backend(host, settings), leases, nexthopObjects)

    async function routes(): Promise<string[]> {
      const rows = await host.list('route show dev flannel.ipip')
      return rows
        .map(({ dst, gateway, protocol, flags }) => [dst, gateway, protocol, flags].join(' '))
        .toSorted()
    }
    const right = ['10.10.11.0/24 192.168.1.11 84 onlink', '10.10.12.0/24 192.168.1.12 84 onlink']

    async function tunnel(): Promise<unknown> {
      const [row] = await host.list('link show flannel.ipip')
      const { local, remote } =
        (row?.['linkinfo'] as { info_data: Record<string, unknown> } | undefined)?.info_data ?? {}
      return [row?.['mtu'], local, remote]
    }

    test('the first turn makes all of it, the second does nothing, nor does who comes next', async () => {
      using reconciler = await open()
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.deepEqual(await routes(), right)
      assert.deepEqual(await tunnel(), [1480, '192.168.1.10', 'any'])
      assert.match(await host.ip('-o addr show flannel.ipip'), /inet 10\.10\.10\.0\/32 scope global/)
      using next = await open()
      assert.deepEqual((await next.turn()).operations, [])
    })

    test('every drift is repaired by the next turn', async () => {
      using reconciler = await open()
      await reconciler.turn()
      for (const drift of [
        'route del 10.10.11.0/24',
        'route replace 10.10.11.0/24 via 192.168.1.99 dev flannel.ipip onlink',
        'addr del 10.10.10.0/32 dev flannel.ipip',
        'link set flannel.ipip mtu 1400',
        'link set flannel.ipip type ipip local 192.168.1.99',
        'link set flannel.ipip down',
        'link del flannel.ipip',
      ]) {
        await host.ip(drift)
        const { failures, operations } = await reconciler.turn()
        assert.deepEqual(failures, [], drift)
        assert.ok(operations.length > 0, drift)
        assert.deepEqual([await routes(), await tunnel()], [right, [1480, '192.168.1.10', 'any']], drift)
        assert.deepEqual((await reconciler.turn()).operations, [], drift)
      }
    })

    test('DirectRouting moves the routes of peers on the link; host-gw takes the link away', async () => {
      {
        using direct = await open({ ...IPIP, DirectRouting: true })
        assert.deepEqual((await direct.turn()).failures, [])
        assert.deepEqual(await routes(), [])
        assert.match(await host.ip('route show dev eth0 proto 84'), /10\.10\.11\.0\/24 via 192\.168\.1\.11/)
      }
      {
        using through = await open()
        assert.deepEqual((await through.turn()).failures, [])
        assert.deepEqual(await routes(), right)
      }
      using other = await open({ Type: 'host-gw' })
      assert.deepEqual((await other.turn()).failures, [])
      assert.doesNotMatch(await host.ip('link show'), /flannel\.ipip/)
      assert.equal(
        await host.ip('route show dev eth0 proto 84').then((text) => text.trim().split('\n').length),
        2,
      )
    })

    for (const [what, link] of [
      ['of another kind', 'bridge'],
      ['to one remote end', 'ipip local 192.168.1.10 remote 192.168.1.77'],
    ] as const) {
      test(`an existing link ${what} is made anew`, async () => {
        await host.ip('link del flannel.ipip').catch(() => '')
        await host.ip(`link add flannel.ipip type ${link}`)
        using reconciler = await open()
        const { operations, failures } = await reconciler.turn()
        assert.deepEqual(failures, [])
        assert.deepEqual([operations[0]?.entry.kind, operations[0]?.verb], ['link', 'delete'])
        assert.deepEqual([await routes(), await tunnel()], [right, [1480, '192.168.1.10', 'any']])
      })
    }
  })
}

for (const [name, settings, tunnelled] of [
  ['through the tunnel', IPIP, true],
  ['with DirectRouting', { ...IPIP, DirectRouting: true }, false],
] as const) {
  describe(`ipip ${name}, beside a host as flanneld leaves it`, { timeout: 120_000 }, () => {
    const [OURS, THEIRS] = [10, 11]
    const container = parseIp(net.address(THEIRS, 5))
    let ours: Host
    let theirs: Host

    before(async () => {
      ;[ours, theirs] = await Host.createPair(['192.168.1.10', 'fd00::10'], ['192.168.1.11', 'fd00::11'])
      await theirs.ip('link add flannel.ipip mtu 1480 type ipip local 192.168.1.11 remote any')
      await theirs.ip('address add 10.10.11.0/32 dev flannel.ipip')
      await theirs.ip('link set flannel.ipip up')
      await route()
      await theirs.ip(`address add ${container}/32 dev lo`)
      using reconciler = await start(ours, OURS, THEIRS)
      assert.deepEqual((await reconciler.turn()).failures, [])
    })
    after(async () => {
      await ours[Symbol.asyncDispose]()
      await theirs[Symbol.asyncDispose]()
    })

    /** flanneld's own route to us. */
    const route = async (): Promise<string> =>
      await theirs.ip(
        `route replace 10.10.10.0/24 via 192.168.1.10 dev ${tunnelled ? 'flannel.ipip onlink' : 'eth0'}`,
      )

    /** A tweed that has told the kernel nothing yet. */
    async function start(host: Host, number: number, peer: number): Promise<Reconciler> {
      const backend = await net.backend(host, settings, number)
      const reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path })
      reconciler.exchange([], [backend.own(net.lease(number)), backend.peer(net.lease(peer))])
      return reconciler
    }

    /** Packets that have come through their tunnel. */
    async function received(): Promise<number> {
      const [row] = await theirs.list('-s link show flannel.ipip')
      return (row?.['stats64'] as { rx: { packets: number } } | undefined)?.rx.packets ?? Number.NaN
    }

    const pingContainer = (options: { count?: number; signal?: AbortSignal }): Promise<PingResult> =>
      ping({ netns: ours.path, destination: container, interval: 5, timeout: 5000, ...options })

    async function lostDuring(work: () => Promise<unknown>): Promise<number> {
      const stop = new AbortController()
      const pinging = pingContainer({ signal: stop.signal })
      await work().finally(() => stop.abort())
      const { replies, lost } = await pinging
      assert.ok(replies.length > 0)
      return lost.length
    }

    test('packets go there and back', async () => {
      const earlier = await received()
      const { lost } = await pingContainer({ count: 5 })
      assert.deepEqual(lost, [])
      assert.equal((await received()) - earlier, tunnelled ? 5 : 0)
    })

    test('tweed in its place, and flanneld again: not a packet is lost', async () => {
      const lost = await lostDuring(async () => {
        {
          using reconciler = await start(theirs, THEIRS, OURS)
          const { failures, operations } = await reconciler.turn()
          assert.deepEqual(failures, [])
          assert.ok(operations.every(({ entry, verb }) => entry.kind !== 'link' && verb !== 'delete'))
          assert.deepEqual((await reconciler.turn()).operations, [])
        }
        assert.match(await theirs.ip('route show 10.10.10.0/24'), / proto 84/)
        await route()
      })
      assert.equal(lost, 0)
      assert.doesNotMatch(await theirs.ip('route show 10.10.10.0/24'), / proto 84/)
    })
  })
}
