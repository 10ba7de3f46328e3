/** Routes over the underlay, on the real kernel: each peer is the gateway to its subnet, and the interface is not ours. */

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { createHost, Overlay } from './fixture.ts'
import type { Host } from './namespace.ts'

const HOST_GW = { Type: 'host-gw' }
const NUMBERS = [11, 12, 13]

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)
  const peers = NUMBERS.map((n) => net.lease(n))
  const right = NUMBERS.map((n) => `${net.subnet(n)} via ${net.publicIp(n)} proto 84`)

  describe(`host-gw, ${family}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
    })
    after(() => host[Symbol.asyncDispose]())

    /** Over the underlay, into our network. */
    async function routes(): Promise<string[]> {
      const rows = await host.list(`${net.flag} route show dev eth0`)
      return rows
        .filter(({ dst, type }) => type === 'unicast' && /^(10\.10|fd10)/.test(String(dst)))
        .map(({ dst, gateway, protocol, nhid, flags }) => {
          assert.deepEqual([nhid, flags], [undefined, []])
          return `${String(dst)} via ${String(gateway)} proto ${String(protocol)}`
        })
        .toSorted()
    }

    async function open(leases = peers) {
      return await net.reconciler(host, await net.backend(host, HOST_GW), leases)
    }

    beforeEach(async () => {
      using reconciler = await open()
      await reconciler.turn()
    })

    test('a route for each peer and no device, on the link and not "onlink"; who comes next does nothing', async () => {
      assert.deepEqual(await routes(), right)
      assert.deepEqual(await host.list('nexthop show'), [])
      assert.doesNotMatch(await host.ip('link show'), /flannel/)
      using reconciler = await open()
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test("flanneld's routes are adopted, a foreign gateway to a lease's subnet is replaced", async () => {
      await host.ip(`route replace ${net.subnet(11)} via ${net.publicIp(11)} dev eth0`)
      await host.ip(`route replace ${net.subnet(12)} via ${net.publicIp(99)} dev eth0`)
      using reconciler = await open()
      const { operations, failures } = await reconciler.turn()
      assert.deepEqual(failures, [])
      assert.deepEqual(
        operations.map(({ verb, why }) => `${verb}: ${why}`),
        [
          'change: protocol 3, not 84',
          `change: gateway ${net.publicIp(99)}, not ${net.publicIp(12)}, protocol 3, not 84`,
        ],
      )
      assert.deepEqual(await routes(), right)
    })

    test('what is foreign stays: other networks, other tables, subnets without a lease', async () => {
      const gateway = `via ${net.publicIp(99)} dev eth0`
      const foreign = [
        `${family === 'inet' ? '10.99.0.0/16' : 'fd99::/48'} ${gateway} proto 84`,
        `${net.subnet(98)} ${gateway}`,
        `${net.subnet(11)} ${gateway} table 100`,
        `${net.subnet(11)} ${gateway} metric 77`,
      ]
      for (const route of foreign) await host.ip(`route add ${route}`)
      const picture = await host.picture()
      {
        using reconciler = await open()
        assert.deepEqual((await reconciler.turn()).operations, [])
        assert.deepEqual(await host.picture(), picture)
      }
      using empty = await open([])
      assert.deepEqual((await empty.turn()).failures, [])
      assert.deepEqual(
        picture.filter((line) => / proto 84/.test(line) && !/^(10\.99|fd99)/.test(line)).length,
        NUMBERS.length,
      )
      assert.deepEqual(
        await host.picture(),
        picture.filter((line) => !/ proto 84/.test(line) || /^(10\.99|fd99)/.test(line)),
      )
      for (const route of foreign) await host.ip(`route del ${route}`)
    })

    test('every drift is repaired by the next turn', async () => {
      using reconciler = await open()
      await reconciler.turn()
      for (const drift of [
        `route del ${net.subnet(11)}`,
        `route replace ${net.subnet(11)} via ${net.publicIp(99)} dev eth0`,
        `route replace ${net.subnet(11)} via ${net.publicIp(11)} dev eth0 proto static`,
        `route add ${net.subnet(50)} via ${net.publicIp(50)} dev eth0 proto 84`,
      ]) {
        await host.ip(drift)
        assert.notDeepEqual(await routes(), right, drift)
        const { failures, repaired } = await reconciler.turn()
        assert.deepEqual([failures, repaired.length], [[], 1], drift)
        assert.deepEqual(await routes(), right, drift)
        assert.deepEqual((await reconciler.turn()).operations, [], drift)
      }
    })

    test('a route that somebody leads over another link is reported and kept', async () => {
      using reconciler = await open()
      await reconciler.turn()
      await host.ip(`route del ${net.subnet(11)}`)
      await host.ip(`route add ${net.subnet(11)} dev wire`)
      const { failures } = await reconciler.turn()
      assert.match(failures.map(({ error }) => error.message).join(), /^RTM_NEWROUTE: EEXIST/)
      assert.match(await host.ip(`${net.flag} route show ${net.subnet(11)}`), /dev wire/)
      await host.ip(`route del ${net.subnet(11)} dev wire`)
      await reconcilerSettles(reconciler)
      assert.deepEqual(await routes(), right)
    })

    test('what failed is tried again in another turn, however long this one takes', async (t) => {
      using reconciler = await open()
      await reconciler.turn()
      await host.ip(`route del ${net.subnet(11)}`)
      await host.ip(`route add ${net.subnet(11)} dev wire`)
      let time = performance.now()
      t.mock.method(performance, 'now', () => (time += 10_000))
      const { failures, operations } = await reconciler.turn()
      assert.deepEqual([failures.length, operations.length], [1, 1])
      assert.match(failures[0]?.error.message ?? '', /^RTM_NEWROUTE: EEXIST/)
      await host.ip(`route del ${net.subnet(11)} dev wire`)
    })

    test('one that replaces ours without a word is noticed', async () => {
      using reconciler = await open()
      await reconciler.turn()
      await host.ip(`route replace ${net.subnet(11)} dev wire`)
      const { failures, operations } = await reconciler.turn()
      // IPv6 holds both side by side, or has replaced ours as IPv4 does.
      const replaced = !(await routes()).includes(right[0] ?? '')
      assert.equal(failures.length > 0, replaced)
      assert.equal(operations.length, failures.length)
      await host.ip(`route del ${net.subnet(11)} dev wire`)
      await reconcilerSettles(reconciler)
      assert.deepEqual(await routes(), right)
    })

    test('what the kernel drops when the underlay goes down or loses its address is back with it', async () => {
      using reconciler = await open()
      await reconciler.turn()
      const address = family === 'inet' ? '192.168.1.10/24' : 'fd00::10/64'
      for (const [lose, ...regain] of [
        ['link set eth0 down', 'link set eth0 up', `addr replace ${address} dev eth0`],
        [`addr del ${address} dev eth0`, `addr add ${address} dev eth0`],
      ] as const) {
        await host.ip(lose)
        const lost = await reconciler.turn()
        await reconciler.turn()
        if (lost.failures.length > 0) assert.equal(reconciler.failures.length, NUMBERS.length, lose)
        for (const words of regain) await host.ip(words)
        assert.deepEqual((await reconciler.turn()).failures, [], lose)
        assert.deepEqual(reconciler.failures, [], lose)
        assert.deepEqual(await routes(), right, lose)
        assert.deepEqual((await reconciler.turn()).operations, [], lose)
      }
    })

    test('a peer that is not on the link is a failure that says so, and the others have their routes', async () => {
      const far = family === 'inet' ? '172.16.7.7' : 'fd77::7'
      using reconciler = await open([...peers, net.lease(20, undefined, far)])
      await reconciler.turn()
      const { failures } = reconciler
      assert.equal(failures.length, 1)
      assert.match(failures[0]?.error.message ?? '', /RTM_NEWROUTE: (?:ENETUNREACH|EHOSTUNREACH)/)
      assert.deepEqual(await routes(), right)
    })
  })

  test(`DirectRouting, ${family}: a peer on the link has a route alone, the others a tunnel; and the other way round`, async () => {
    await using host = await createHost()
    await host.ip(
      family === 'inet' ? 'route add 10.10.99.0/24 via 192.168.1.99' : 'route add fd77::/64 via fd00::99',
    )
    const [near, far] = [
      net.lease(11),
      net.lease(12, undefined, family === 'inet' ? '172.16.7.7' : 'fd77::7'),
    ]
    for (const [settings, own] of [
      [{}, 2],
      [{ DirectRouting: true }, 1],
      [{}, 2],
    ] as const) {
      using reconciler = await net.reconciler(host, await net.backend(host, settings), [near, far])
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.equal((await net.routes(host)).length, own)
      assert.equal((await host.fdb(net.link)).filter(({ dst }) => dst !== undefined).length, own)
      const direct = await host.ip(`${net.flag} route show dev eth0 proto 84`)
      assert.equal(direct.includes(`${net.subnet(11)} via ${net.publicIp(11)}`), own === 1)
    }
  })
}

/** Turns until nothing has failed any more: what failed is tried again after a pause. */
async function reconcilerSettles(reconciler: Awaited<ReturnType<Overlay['reconciler']>>): Promise<void> {
  for await (const _ of reconciler.run(AbortSignal.timeout(5000))) {
    if (reconciler.failures.length === 0) return
  }
  throw new Error('after 5 s there are failures still')
}
