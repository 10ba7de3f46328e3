/** vxlan over a multicast group, on the real kernel: the group's entry and routes are ours, what is learned is the kernel's. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createHost, Overlay, peerMac } from './fixture.ts'
import type { Host } from './namespace.ts'

for (const [family, settings, group] of [
  ['inet', { Group: '239.1.1.1' }, '239.1.1.1'],
  ['inet6', { GroupV6: 'ff05::1' }, 'ff05::1'],
] as const) {
  const net = new Overlay(family)
  const peers = [net.lease(11), net.lease(12)]
  const toAll = [`00:00:00:00:00:00 ${group} permanent`]

  describe(`a group, ${family}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
    })
    after(() => host[Symbol.asyncDispose]())

    const open = async (changes: object = settings) =>
      await net.reconciler(host, await net.backend(host, changes), peers)

    async function fdb(): Promise<string[]> {
      const rows = await host.fdb(net.link)
      return rows
        .filter(({ dst }) => dst !== undefined)
        .map(({ mac, dst, state }) => [mac, dst, state].join(' ').trim())
        .toSorted()
    }

    test('a peer is a route; the first turn makes all of it, the second does nothing', async () => {
      using reconciler = await open()
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.deepEqual(await fdb(), toAll)
      assert.deepEqual(await host.list(`neigh show dev ${net.link} nud permanent`), [])
      assert.deepEqual(
        (await net.routes(host)).map(({ dst, gateway }) => [dst, gateway]),
        [11, 12].map((n) => [net.subnet(n), net.base(n)]),
      )
      using next = await open()
      assert.deepEqual((await next.turn()).operations, [])
    })

    test('what the kernel learned stays; the entry of the group is put back, others for all that is unknown go', async () => {
      using reconciler = await open()
      await reconciler.turn()
      await host.bridge(`fdb add ${peerMac(11)} dev ${net.link} dst ${net.publicIp(11)} dynamic`)
      const learned = `${peerMac(11)} ${net.publicIp(11)}`
      assert.deepEqual((await reconciler.turn()).operations, [])
      await host.bridge(`fdb del 00:00:00:00:00:00 dev ${net.link}`)
      assert.deepEqual(await fdb(), [learned])
      const { failures, repaired } = await reconciler.turn()
      assert.deepEqual([failures, repaired.length], [[], 1])
      assert.deepEqual(await fdb(), [...toAll, learned])
      await host.bridge(`fdb add ${peerMac(12)} dev ${net.link} dst ${net.publicIp(12)} permanent`)
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual(await fdb(), [...toAll, learned])
    })

    test('without a group the link is made anew', async () => {
      using reconciler = await open({})
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual(
        await fdb(),
        [11, 12].map((n) => `${peerMac(n)} ${net.publicIp(n)} permanent`),
      )
    })
  })
}
