/** L2 misses on the real kernel: FDB entries come on demand too, with the neighbours that lead to them or by themselves. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { createHost, Overlay, peerMac } from './fixture.ts'
import type { Host } from './namespace.ts'

const SETTINGS = { L3Miss: true, L2Miss: true }

/** One datagram from inside the namespace. */
async function send(host: Host, address: string): Promise<void> {
  const script = `
    const socket = require('node:dgram').createSocket(process.argv[1].includes(':') ? 'udp6' : 'udp4')
    socket.send('x', 9, process.argv[1], () => socket.close())`
  const child = spawn('nsenter', [`--net=${host.path}`, process.execPath, '-e', script, address])
  assert.deepEqual(await once(child, 'close'), [0, null])
}

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)
  const { link } = net
  const peers = [net.lease(11), net.lease(12)]

  describe(`L2 misses, ${family}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
    })
    after(() => host[Symbol.asyncDispose]())

    const open = async (leases = peers) =>
      await net.reconciler(host, await net.backend(host, SETTINGS), leases)

    /** Of peers: `mac destination`. */
    async function fdb(): Promise<string[]> {
      const rows = await host.fdb(link)
      return rows
        .filter(({ mac }) => String(mac).startsWith('02:'))
        .map(({ mac, dst }) => [mac, dst].join(' '))
        .toSorted()
    }
    const entry = (n: number, publicIp = net.publicIp(n)) => `${peerMac(n)} ${publicIp}`

    test('nothing of a peer is there before traffic; the answer to a miss brings its FDB entry', async () => {
      using reconciler = await open()
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.deepEqual(await fdb(), [])
      await send(host, net.address(11, 2))
      const { operations, misses, failures, repaired } = await reconciler.turn()
      assert.deepEqual([failures, repaired], [[], []])
      assert.deepEqual(
        operations.map(({ verb, entry: { kind } }) => `${verb} ${kind}`),
        ['add fdb', 'change neighbour'],
      )
      assert.deepEqual(misses, { answered: 1, refused: 0 })
      assert.deepEqual(await fdb(), [entry(11)])
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test('it outlives the agent; one that was lost meanwhile is made good', async () => {
      {
        using next = await open()
        assert.deepEqual((await next.turn()).operations, [])
      }
      await host.bridge(`fdb del ${peerMac(11)} dev ${link}`)
      using reconciler = await open()
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual(await fdb(), [entry(11)])
    })

    test('one that somebody deletes or falsifies is put right', async () => {
      using reconciler = await open()
      await reconciler.turn()
      for (const drift of [
        `fdb del ${peerMac(11)} dev ${link}`,
        `fdb replace ${peerMac(11)} dev ${link} dst ${net.publicIp(99)}`,
        `fdb add 02:00:00:00:00:99 dev ${link} dst ${net.publicIp(99)}`,
      ]) {
        await host.bridge(drift)
        assert.deepEqual((await reconciler.turn()).failures, [], drift)
        assert.deepEqual(await fdb(), [entry(11)], drift)
        assert.deepEqual((await reconciler.turn()).operations, [], drift)
      }
    })

    test('an L2 miss by itself is answered, one for a MAC of nobody is not', async () => {
      using reconciler = await open()
      await reconciler.turn()
      const [network, near, far] =
        family === 'inet'
          ? ['172.30.0.0/24', '172.30.0.5', '172.30.0.6']
          : ['fd30::/64', 'fd30::5', 'fd30::6']
      await host.ip(`route add ${network} dev ${link}`)
      await host.ip(`neigh add ${near} lladdr ${peerMac(12)} dev ${link} nud noarp`)
      await host.ip(`neigh add ${far} lladdr 02:00:00:00:00:77 dev ${link} nud noarp`)
      await reconciler.turn()
      await send(host, near ?? '')
      await send(host, far ?? '')
      const { misses, failures } = await reconciler.turn()
      assert.deepEqual([failures, misses], [[], { answered: 1, refused: 0 }])
      assert.deepEqual(await fdb(), [entry(11), entry(12)])
      assert.deepEqual((await reconciler.turn()).operations, [])
      await host.ip(`route del ${network} dev ${link}`)
    })

    test('a peer with a new public IP changes it, one that left takes it along', async () => {
      const backend = await net.backend(host, SETTINGS)
      using reconciler = await open()
      await reconciler.turn()
      const moved = net.lease(11, undefined, net.publicIp(77))
      reconciler.exchange([backend.peer(net.lease(11)), backend.peer(net.lease(12))], [backend.peer(moved)])
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual(await fdb(), [entry(11, net.publicIp(77))])
      reconciler.exchange([backend.peer(moved)], [])
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual([await fdb(), await host.list(`neigh show dev ${link} nud permanent`)], [[], []])
    })

    test('no answer is lost when the socket overruns', async () => {
      const { Reconciler } = await import('../../src/kernel/reconcile.ts')
      const backend = await net.backend(host, SETTINGS)
      using reconciler = await Reconciler.open({
        scope: backend.scope,
        netns: host.path,
        receiveBuffer: 2048,
      })
      reconciler.exchange([], [backend.own(net.self), ...peers.map((peer) => backend.peer(peer))])
      await reconciler.turn()
      for (let i = 20; i < 30; i++) for (const n of [11, 12]) await send(host, net.address(n, i))
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.ok(reconciler.overruns > 0, 'the buffer was meant to be too small')
      assert.deepEqual(await fdb(), [entry(11), entry(12)])
    })
  })
}
