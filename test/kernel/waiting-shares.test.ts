/** Peers that the reconciler plans while the kernel works: whatever happens meanwhile, it ends as if they had been there. */

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { parseIp } from '../../src/address/ip.ts'
import { parsePrefix } from '../../src/address/prefix.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import type { Lease } from '../../src/lease/lease.ts'
import { AnswerLost, Connection } from '../../src/netlink/connection.ts'
import type { NetlinkError, Request } from '../../src/netlink/message.ts'
import { createHost, Overlay, OWN_MAC } from './fixture.ts'
import type { Host } from './namespace.ts'

/** More than are planned at once. */
const COUNT = 600

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)
  const peers = Array.from({ length: COUNT }, (_, i) => {
    const subnet = family === 'inet' ? `10.10.${128 + (i >> 4)}.${(i & 15) << 4}` : `fd10:0:0:${1000 + i}::`
    const mac = `02:00:00:01:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}`
    const publicIp = family === 'inet' ? `192.168.${2 + (i >> 8)}.${i & 255}` : `fd00:1::${i + 1}`
    return net.lease(i, mac, publicIp, parsePrefix(`${subnet}/${family === 'inet' ? 28 : 64}`))
  })

  describe(`shares that wait, ${family}`, () => {
    let host: Host
    let backend: Backend
    before(async () => {
      host = await createHost()
      backend = await net.backend(host)
    })
    after(() => host[Symbol.asyncDispose]())
    beforeEach(async () => {
      using reconciler = await open([])
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.equal((await net.routes(host)).length, 0)
    })

    const share = (lease: Lease) => backend.peer(lease)

    async function open(leases: readonly Lease[], shareOf = share): Promise<Reconciler> {
      const reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path })
      reconciler.exchange([], [backend.own(net.self)])
      reconciler.add(leases, shareOf)
      return reconciler
    }

    /** The kernel holds what these leases need, as one who has them from the beginning sees it. */
    async function assertHolds(leases: readonly Lease[]): Promise<void> {
      assert.equal((await net.routes(host)).length, leases.length)
      using whole = await net.reconciler(host, backend, leases)
      assert.deepEqual((await whole.turn()).operations, [])
    }

    test('one turn makes all of them, and who comes next does nothing', async () => {
      {
        using reconciler = await open(peers)
        const { failures, operations, repaired } = await reconciler.turn()
        assert.deepEqual([failures, repaired], [[], []])
        assert.equal(operations.length, 4 * COUNT)
        assert.deepEqual((await reconciler.turn()).operations, [])
      }
      await assertHolds(peers)
      using next = await open(peers)
      assert.deepEqual((await next.turn()).operations, [])
    })

    test('what the kernel takes and does not keep is a failure after one try', async () => {
      using reconciler = await open([])
      const ip = parseIp(net.address(200, 1))
      // What is set is permanent.
      const entry = { kind: 'neighbour', link: net.link, ip, mac: OWN_MAC, state: 'failed' } as const
      reconciler.exchange([], [{ entries: [entry], answers: [] }])
      reconciler.add(peers, share)
      const { failures, operations } = await reconciler.turn()
      assert.deepEqual(
        failures.map(({ operation, error }) => [operation.entry, error.message]),
        [[entry, 'the kernel accepted it, and it does not hold']],
      )
      const tries = operations.filter((each) => each.entry === entry).map(({ verb }) => verb)
      assert.deepEqual(tries, ['add', 'change'])
      assert.equal(operations.length, 4 * COUNT + tries.length)
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test('what nobody needs is taken away when all of them are there', async () => {
      const [gone, ...rest] = peers
      {
        using first = await open(peers.slice(0, 1))
        await first.turn()
      }
      using reconciler = await open(rest)
      const { failures, operations } = await reconciler.turn()
      assert.deepEqual(failures, [])
      const firstRemoval = operations.findIndex(({ verb }) => verb === 'delete')
      assert.equal(firstRemoval, 4 * rest.length, gone?.key)
      await assertHolds(rest)
    })

    test('while their link cannot be made they are planned all the same, and made with it', async () => {
      const own = backend.own(net.self)
      const impossible = own.entries.map((entry) =>
        entry.kind === 'link' && entry.tunnel?.type === 'vxlan'
          ? { ...entry, tunnel: { ...entry.tunnel, vni: 1 << 24 } }
          : entry,
      )
      const wrong = { entries: impossible, answers: own.answers }
      let planned = 0
      using reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path })
      reconciler.exchange([], [wrong])
      reconciler.add(peers, (lease) => {
        planned++
        return share(lease)
      })
      const { failures } = await reconciler.turn()
      assert.deepEqual([failures.length, planned], [1, COUNT])
      reconciler.exchange([wrong], [own])
      assert.deepEqual((await reconciler.turn()).failures, [])
      await assertHolds(peers)
    })

    test('one that goes before it was planned is not there', async () => {
      const [gone, ...rest] = peers
      assert.ok(gone !== undefined)
      using reconciler = await open(peers)
      reconciler.exchange([share(gone)], [])
      assert.deepEqual((await reconciler.turn()).failures, [])
      await assertHolds(rest)
    })

    test('those that come while the kernel works are not forgotten', async () => {
      const late = peers.slice(400)
      let told = false
      using reconciler = await open(peers.slice(0, 400), (lease) => {
        if (!told) reconciler.add(late, share)
        told = true
        return share(lease)
      })
      assert.deepEqual((await reconciler.turn()).failures, [])
      await assertHolds(peers)
    })

    test('when an answer of the kernel is lost, the next turn goes on with them', async (t) => {
      using reconciler = await open(peers)
      const batch = Reflect.get<Connection, 'batch'>(Connection.prototype, 'batch')
      let taken = 0
      t.mock.method(
        Connection.prototype,
        'batch',
        async function (
          this: Connection,
          requests: Iterable<Request>,
        ): Promise<ReadonlyMap<number, NetlinkError>> {
          const some: Request[] = []
          for (const request of requests) {
            some.push(request)
            if (++taken === 1500) break
          }
          const errors = await batch.call(this, some)
          if (taken === 1500) throw new AnswerLost('of one datagram')
          return errors
        },
      )
      const { error } = await reconciler.turn()
      assert.ok(error instanceof AnswerLost)
      t.mock.restoreAll()
      const { failures, operations } = await reconciler.turn()
      assert.deepEqual(failures, [])
      assert.ok(operations.every(({ verb }) => verb === 'add'))
      await assertHolds(peers)
    })

    test('one that cannot be made holds up the others, and nothing is taken away', async () => {
      {
        using first = await open(peers)
        await first.turn()
      }
      let broken = true
      using reconciler = await open(peers, (lease) => {
        if (broken && lease === peers[300]) throw new Error('no share')
        return share(lease)
      })
      const { error } = await reconciler.turn()
      assert.equal(error?.message, 'no share')
      assert.equal((await net.routes(host)).length, COUNT)
      broken = false
      assert.deepEqual((await reconciler.turn()).operations, [])
      await assertHolds(peers)
    })
  })
}
