/** What the wireguard backend promises, on each maker of devices: test/kernel has wireguard-go's, test/vm the kernel's. */

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import type { Reconciler } from '../src/kernel/reconcile.ts'
import type { Lease } from '../src/lease/lease.ts'
import {
  type Maker,
  LINK,
  lease,
  privateKey,
  publicKey,
  settle,
  WireguardHost,
} from './wireguard-scenario.ts'

const A = 10
const B = 11
const DUAL_OFF = { EnableIPv6: false }

export function describeWireguardBackend(maker: Maker): void {
  describe(`wireguard of ${maker}`, { timeout: 600_000 }, () => {
    let a: WireguardHost
    let b: WireguardHost
    before(async () => {
      ;[a, b] = await WireguardHost.pair(maker)
    })
    after(async () => {
      await a[Symbol.asyncDispose]()
      await b[Symbol.asyncDispose]()
    })

    async function open(
      host: WireguardHost,
      peers: readonly Lease[],
      settings: object = {},
    ): Promise<Reconciler> {
      return await host.open(await host.backend(settings), peers)
    }

    /** Turns of agents that come and go. */
    async function both(settings: object = {}): Promise<void> {
      using atA = await open(a, [lease(B)], settings)
      using atB = await open(b, [lease(A)], settings)
      await settle(atA)
      await settle(atB)
    }

    /** A handshake that came too early for the other side is tried again after 5 s. */
    async function assertReaches(): Promise<void> {
      for (let i = 0; i < 10 && (await a.ping(B)).replies.length === 0; i++);
      assert.deepEqual((await a.ping(B)).lost, [])
      assert.deepEqual((await b.ping(A)).lost, [])
    }

    beforeEach(() => both())

    test('packets pass in both families, each in its own device; wg and ip say what shall be', async () => {
      await assertReaches()
      assert.ok(await a.reachesV6(B))
      const key = publicKey(B)
      assert.deepEqual(await a.peers(), [`${key} (none) 192.168.1.11:51820 10.10.11.0/24 off`])
      assert.deepEqual(await a.peers('flannel-wg-v6'), [
        `${key} (none) [fd00::11]:51821 fd10:0:0:11::/64 off`,
      ])
      assert.match(await a.wg('show', LINK, 'dump'), new RegExp(`^${privateKey(A)}|${publicKey(A)}\t51820`))
      const [link] = await a.host.list(`link show ${LINK}`)
      assert.deepEqual([link?.['mtu'], link?.['operstate']], [1420, 'UNKNOWN'])
      assert.match(await a.host.ip(`addr show ${LINK}`), /inet 10\.10\.10\.0\/32 scope global/)
      assert.match(await a.host.ip('route show'), /^10\.10\.0\.0\/16 dev flannel-wg proto 84 scope link/m)
      assert.match(await a.host.ip('-6 route show'), /^fd10::\/48 dev flannel-wg-v6 proto 84 /m)
    })

    test('an agent that starts again does nothing, and no packet is lost', async () => {
      const stop = new AbortController()
      const pinging = a.ping(B, Number.POSITIVE_INFINITY, stop.signal)
      for (let i = 0; i < 5; i++) {
        for (const [host, peer] of [
          [a, B],
          [b, A],
        ] as const) {
          using reconciler = await open(host, [lease(peer)])
          assert.deepEqual((await reconciler.turn()).operations, [])
        }
      }
      stop.abort()
      const { sent, lost } = await pinging
      assert.ok(sent > 5, `${sent} packets`)
      assert.deepEqual(lost, [])
    })

    test('every drift is repaired by the next turn', async () => {
      using reconciler = await a.open(await a.backend(), [lease(B)], 0)
      await settle(reconciler)
      const right = { peers: await a.peers(), picture: stripIndexes(await a.host.picture()) }
      const peer = ['set', LINK, 'peer', publicKey(B)]
      for (const drift of [
        () => a.wg(...peer, 'remove'),
        () => a.wg(...peer, 'allowed-ips', '10.10.99.0/24'),
        () => a.wg(...peer, 'allowed-ips', ''),
        () => a.wg(...peer, 'persistent-keepalive', '7'),
        () => a.withKey(99, (file) => a.wg(...peer, 'preshared-key', file)),
        () => a.wg('set', LINK, 'peer', publicKey(99), 'allowed-ips', '10.10.11.0/24'),
        () => a.wg('set', LINK, 'listen-port', '51999'),
        () => a.wg('set', LINK, 'private-key', '/dev/null'),
        () => a.host.ip(`addr del 10.10.10.0/32 dev ${LINK}`),
        () => a.host.ip(`route del 10.10.0.0/16 dev ${LINK}`),
        () => a.host.ip(`link set ${LINK} mtu 1300`),
        () => a.host.ip(`link set ${LINK} down`),
        () => a.host.ip(`link del ${LINK}`),
      ]) {
        await drift()
        const { failures, repaired } = await reconciler.turn()
        const what = drift.toString()
        assert.deepEqual([failures, repaired.length > 0], [[], true], what)
        assert.deepEqual((await reconciler.turn()).operations, [], what)
        const now = { peers: await a.peers(), picture: stripIndexes(await a.host.picture()) }
        assert.deepEqual(now, right, what)
      }
      await assertReaches()
    })

    test('a peer with another key leaves nothing behind, and its subnet is at the new one', async () => {
      using atA = await open(a, [lease(B)])
      await settle(atA)
      const changed = lease(B, { key: 42 })
      const plan = await a.backend()
      atA.exchange([plan.peer(lease(B))], [plan.peer(changed)])
      await settle(atA)
      assert.deepEqual(await a.peers(), [`${publicKey(42)} (none) 192.168.1.11:51820 10.10.11.0/24 off`])
      using atB = await b.open(await b.backend({}, 42), [lease(A)])
      await settle(atB)
      await assertReaches()
    })

    test('two peers that exchange their subnets have each what is theirs', async () => {
      const swapped = [
        { ...lease(B), subnets: lease(12).subnets },
        { ...lease(12), subnets: lease(B).subnets },
      ]
      using reconciler = await open(a, [lease(B), lease(12)])
      await settle(reconciler)
      const plan = await a.backend()
      reconciler.exchange(
        [plan.peer(lease(B)), plan.peer(lease(12))],
        swapped.map((one) => plan.peer(one)),
      )
      await settle(reconciler)
      const right = [
        `${publicKey(B)} (none) 192.168.1.11:51820 10.10.12.0/24 off`,
        `${publicKey(12)} (none) 192.168.1.12:51820 10.10.11.0/24 off`,
      ]
      assert.deepEqual(await a.peers(), right.toSorted())
    })

    test('a host with two leases is one peer with both subnets, until one of them goes', async () => {
      const second = { ...lease(B), key: lease(12).key, subnets: lease(12).subnets }
      using reconciler = await open(a, [second, lease(B)])
      await settle(reconciler)
      const at = (allowed: string): string => `${publicKey(B)} (none) 192.168.1.11:51820 ${allowed} off`
      assert.deepEqual(await a.peers(), [at('10.10.11.0/24,10.10.12.0/24')])
      const plan = await a.backend()
      reconciler.exchange([plan.peer(second)], [])
      await settle(reconciler)
      assert.deepEqual(await a.peers(), [at('10.10.11.0/24')])
    })

    test('a peer that is gone is removed, and so is what an earlier agent left', async () => {
      {
        using reconciler = await open(a, [lease(B), lease(12)])
        await settle(reconciler)
        const plan = await a.backend()
        reconciler.exchange([plan.peer(lease(12))], [])
        await settle(reconciler)
        assert.equal((await a.peers()).length, 1)
      }
      using reconciler = await open(a, [])
      await settle(reconciler)
      assert.deepEqual(await a.peers(), [])
      assert.deepEqual(await a.peers('flannel-wg-v6'), [])
    })

    test('an endpoint that roamed stays, until the lease says another', async () => {
      using atA = await a.open(await a.backend(), [lease(B)], 0)
      await settle(atA)
      await assertReaches()
      await b.wg('set', LINK, 'listen-port', '51999')
      await b.ping(A)
      assert.match((await a.peers()).join(), / 192\.168\.1\.11:51999 /)
      assert.deepEqual((await atA.turn()).operations, [])
      {
        using again = await open(a, [lease(B)])
        assert.deepEqual((await again.turn()).operations, [])
      }
      const plan = await a.backend()
      atA.exchange([plan.peer(lease(B))], [plan.peer(lease(B, { port: 52000 }))])
      assert.deepEqual((await atA.turn()).failures, [])
      assert.match((await a.peers()).join(), / 192\.168\.1\.11:52000 /)
      assert.deepEqual((await atA.turn()).operations, [])
    })

    test('an endpoint that nobody proved is put right', async () => {
      using reconciler = await a.open(await a.backend(), [lease(12)], 0)
      await settle(reconciler)
      await a.wg('set', LINK, 'peer', publicKey(12), 'endpoint', '192.168.1.99:1')
      assert.equal((await reconciler.turn()).repaired.length, 1)
      assert.match((await a.peers()).join(), / 192\.168\.1\.12:51820 /)
    })

    test('preshared key, keepalive and ports are as the config says, and shown nowhere', async () => {
      const psk = Buffer.alloc(32, 9).toString('base64')
      const settings = { PSK: psk, PersistentKeepaliveInterval: 25, ListenPort: 51900 }
      using atA = await open(a, [lease(B, { port: 51900 })], settings)
      const report = await atA.turn()
      assert.deepEqual(report.failures, [])
      assert.ok(!JSON.stringify(report).includes(psk) && !JSON.stringify(report).includes(privateKey(A)))
      assert.deepEqual(await a.peers(), [`${publicKey(B)} ${psk} 192.168.1.11:51900 10.10.11.0/24 25`])
      using atB = await open(b, [lease(A, { port: 51900 })], settings)
      await settle(atB)
      await assertReaches()
    })

    test('with Mode auto one device carries both families, and the other one goes', async () => {
      await both({ Mode: 'auto' })
      assert.deepEqual(await a.peers(), [
        `${publicKey(B)} (none) 192.168.1.11:51820 10.10.11.0/24,fd10:0:0:11::/64 off`,
      ])
      assert.doesNotMatch(await a.host.ip('link show'), /flannel-wg-v6/)
      await assertReaches()
      assert.ok(await a.reachesV6(B))
    })
  })

  testLooks(maker)

  test(`flanneld's device and peers, ${maker}: packets both ways, then they are adopted as they are`, async () => {
    const [a, b] = await WireguardHost.pair(maker)
    try {
      await b.makeByHand([lease(A)])
      using atA = await a.open(await a.backend({}, A, DUAL_OFF), [lease(B)])
      await settle(atA)
      assert.deepEqual((await a.ping(B)).lost, [])
      assert.deepEqual((await b.ping(A)).lost, [])
      const stop = new AbortController()
      const pinging = a.ping(B, Number.POSITIVE_INFINITY, stop.signal)
      using atB = await b.open(await b.backend({}, B, DUAL_OFF), [lease(A)])
      const { operations, failures } = await atB.turn()
      assert.deepEqual(failures, [])
      assert.deepEqual(
        operations.map(({ verb, entry, why }) => `${verb} ${entry.kind}: ${why}`),
        ['change route: protocol 3, not 84'],
      )
      stop.abort()
      assert.deepEqual((await pinging).lost, [])
    } finally {
      await a[Symbol.asyncDispose]()
      await b[Symbol.asyncDispose]()
    }
  })
}

function testLooks(maker: Maker): void {
  test(`of ${maker}: what nobody tells is found by looking from time to time`, async () => {
    // Without packets, and after what our own changes bring, nothing else is told that would wake the agent.
    await using host = await WireguardHost.create(A, maker)
    using reconciler = await host.open(await host.backend(), [lease(B)], 4000)
    await settle(reconciler)
    const right = await host.peers()
    let drift: Promise<unknown> | undefined
    for await (const { repaired } of reconciler.run(AbortSignal.timeout(20_000))) {
      if (repaired.length > 0) break
      await (drift ??= host.wg('set', LINK, 'peer', publicKey(B), 'remove'))
    }
    assert.deepEqual(await host.peers(), right)
  })
}

/** A link that was made anew has another index, and the neighbours on the underlay come and go by themselves. */
function stripIndexes(picture: readonly string[]): string[] {
  return picture
    .filter((line) => !/ lladdr | FAILED$/.test(line))
    .map((line) => line.replaceAll(/^\d+: |\bif\d+\b/g, ''))
    .toSorted()
}
