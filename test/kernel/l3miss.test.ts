/**
 * The L3-miss mode on the real kernel: the whole network is routed into the link, and neighbours come on demand.
 *
 * The misses are made by packets: `send` puts one UDP datagram to each address into the namespace's stack.
 */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, describe, test } from 'node:test'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import type { Report } from '../../src/state.ts'
import { createHost, Overlay, peerMac } from './fixture.ts'
import type { Host } from './namespace.ts'

/** Sends a datagram to each address from inside the namespace, each from a socket of its own, so that none waits. */
async function send(host: Host, addresses: readonly string[]): Promise<void> {
  const script = `
    const { createSocket } = require('node:dgram')
    const { once } = require('node:events')
    ;(async () => {
      let text = ''
      for await (const part of process.stdin) text += part
      const addresses = JSON.parse(text)
      for (let i = 0; i < addresses.length; i += 100) {
        await Promise.all(addresses.slice(i, i + 100).map((address) => new Promise((resolve) => {
          const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
          socket.send('x', 9, address, () => { socket.close(resolve) })
        })))
      }
    })()`
  const child = spawn('nsenter', [`--net=${host.path}`, process.execPath, '-e', script], {
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  child.stdin.end(JSON.stringify(addresses))
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
}

/** Takes turns until the neighbours are as many as wanted, as the agent does. */
async function follow(
  reconciler: Reconciler,
  until: (reports: readonly Report[]) => boolean | Promise<boolean>,
): Promise<Report[]> {
  const reports: Report[] = []
  const signal = AbortSignal.timeout(20_000)
  for await (const report of reconciler.run(signal)) {
    assert.deepEqual(report.failures, [])
    reports.push(report)
    if (await until(reports)) return reports
  }
  throw new Error(
    `after 20 s: ${reports.length} turns, ${answered(reports)} answered, ${refused(reports)} refused`,
  )
}

const answered = (reports: readonly Report[]) => reports.reduce((sum, { misses }) => sum + misses.answered, 0)
const refused = (reports: readonly Report[]) => reports.reduce((sum, { misses }) => sum + misses.refused, 0)

async function neighbours(host: Host, { flag, link }: Overlay, state: string): Promise<string[]> {
  const rows = await host.list(`${flag} neigh show dev ${link} nud ${state}`)
  return rows.map(({ dst, lladdr }) => [dst, lladdr].join(' ').trim()).toSorted()
}

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)
  const { link } = net
  const peers = [net.lease(11), net.lease(12)]
  const appSolicit = `/proc/sys/net/${family === 'inet' ? 'ipv4' : 'ipv6'}/neigh/${link}/app_solicit`

  describe(`L3 misses, ${family}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
      await host.ip('neigh add 192.168.1.77 lladdr 02:77:00:00:00:00 dev eth0 nud permanent')
    })
    after(() => host[Symbol.asyncDispose]())

    test('the plan is one route and an FDB entry for each peer; nothing is asked before traffic', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      const routes = await net.routes(host)
      assert.deepEqual(
        routes.map(({ dst, gateway }) => ({ dst, gateway })),
        [{ dst: net.network, gateway: undefined }],
      )
      assert.equal((await host.fdb(link)).length, 2)
      assert.deepEqual(await neighbours(host, net, 'incomplete'), [])
      assert.equal(await host.exec('cat', appSolicit), '3\n')
    })

    test('a miss is answered with the MAC of the VTEP behind which the address lives', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
      const [reports] = await Promise.all([
        follow(reconciler, (turns) => answered(turns) === 2),
        send(host, [net.address(11, 2), net.address(12, 200)]),
      ])
      assert.equal(refused(reports), 0)
      assert.deepEqual(await neighbours(host, net, 'permanent'), [
        `${net.address(11, 2)} ${peerMac(11)}`,
        `${net.address(12, 200)} ${peerMac(12)}`,
      ])
    })

    test('an answer outlives the agent and is kept by the next one, which does nothing', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.equal((await neighbours(host, net, 'permanent')).length, 2)
    })

    test('a peer with a new MAC changes its answers, a peer that left takes them with it', async () => {
      const backend = await net.backend(host, { L3Miss: true })
      using reconciler = await net.reconciler(host, backend, peers)
      await reconciler.turn()
      const moved = net.lease(11, peerMac(111))
      reconciler.exchange([backend.peer(net.lease(11)), backend.peer(net.lease(12))], [backend.peer(moved)])
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual(await neighbours(host, net, 'permanent'), [`${net.address(11, 2)} ${peerMac(111)}`])
    })

    test('an answer that somebody deletes or falsifies is put right', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
      await reconciler.turn()
      await host.ip(`neigh replace ${net.address(11, 2)} lladdr 02:00:00:00:00:99 dev ${link} nud permanent`)
      await reconciler.turn()
      assert.deepEqual(await neighbours(host, net, 'permanent'), [`${net.address(11, 2)} ${peerMac(11)}`])
      await host.ip(`neigh replace ${net.address(11, 2)} lladdr 02:00:00:00:00:99 dev ${link} nud stale`)
      await reconciler.turn()
      assert.deepEqual(await neighbours(host, net, 'permanent'), [`${net.address(11, 2)} ${peerMac(11)}`])
    })

    test('a miss that came before its lease is answered when the lease comes', async () => {
      const backend = await net.backend(host, { L3Miss: true })
      using reconciler = await net.reconciler(host, backend, [])
      await reconciler.turn()
      await send(host, [net.address(30, 3)])
      const report = await reconciler.turn()
      assert.equal(report.misses.refused, 1)
      reconciler.exchange([], [backend.peer(net.lease(30))])
      assert.equal((await reconciler.turn()).misses.answered, 1)
      assert.deepEqual(await neighbours(host, net, 'permanent'), [`${net.address(30, 3)} ${peerMac(30)}`])
    })

    test('misses for unknown addresses get no answer and do not starve the known', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
      // More than the neighbour table takes (gc_thresh3 is 1024); among them, as a sender tries again, one that is known.
      const addresses = Array.from({ length: 3000 }, (_, i) =>
        i % 300 === 299 ? net.address(12, 7) : net.address(100 + Math.floor(i / 250), 1 + (i % 250)),
      )
      const [reports] = await Promise.all([
        follow(reconciler, (turns) => refused(turns) > 1024 && answered(turns) === 1),
        send(host, addresses),
      ])
      assert.equal(answered(reports), 1)
      const resolved = await neighbours(host, net, 'permanent')
      assert.ok(resolved.includes(`${net.address(12, 7)} ${peerMac(12)}`))
      assert.equal(
        resolved.every((row) => row.endsWith(peerMac(11)) || row.endsWith(peerMac(12))),
        true,
      )
    })

    test('no miss is lost when the socket overruns', async () => {
      const backend = await net.backend(host, { L3Miss: true })
      using reconciler = await Reconciler.open({
        scope: backend.scope,
        netns: host.path,
        receiveBuffer: 4096,
      })
      reconciler.exchange(
        [],
        [backend.own(net.self), backend.peer(net.lease(13)), backend.peer(net.lease(14))],
      )
      await reconciler.turn()
      const addresses = [13, 14].flatMap((n) => Array.from({ length: 250 }, (_, i) => net.address(n, i + 1)))
      await send(host, addresses)
      await sleep(200)
      const reports = await follow(reconciler, (turns) => answered(turns) === 500)
      assert.ok(reconciler.overruns > 0, 'the buffer was meant to be too small')
      assert.equal(refused(reports), 0)
      assert.equal((await neighbours(host, net, 'permanent')).length, 500)
    })

    test('changing to the static mode withdraws the answers and the network route', async () => {
      using reconciler = await net.reconciler(host, await net.backend(host), peers)
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.deepEqual((await reconciler.turn()).operations, [])
      assert.deepEqual(await neighbours(host, net, 'permanent'), [
        `${net.base(11)} ${peerMac(11)}`,
        `${net.base(12)} ${peerMac(12)}`,
      ])
      assert.deepEqual(
        (await net.routes(host)).map(({ dst }) => dst),
        [net.subnet(11), net.subnet(12)],
      )
      assert.equal(await host.exec('cat', appSolicit), '0\n')
      assert.equal((await host.list('neigh show dev eth0 nud permanent')).length, 1)
    })
  })
}

test('PERMANENT is the state that stays: REACHABLE and EXT_LEARNED age away without an agent', async () => {
  const net = new Overlay('inet')
  const peers = [net.lease(11), net.lease(12)]
  await using host = await createHost()
  using reconciler = await net.reconciler(host, await net.backend(host, { L3Miss: true }), peers)
  await reconciler.turn()
  // What 30 s and 5 s are by default: how long a neighbour is believed, and how long it waits before it is asked again.
  const settings = [
    'base_reachable_time_ms 200',
    'delay_first_probe_time 1',
    'retrans_time_ms 50',
    'app_solicit 0',
  ]
  for (const setting of settings) {
    const [name, value] = setting.split(' ')
    await host.exec('sh', '-c', `echo ${value} > /proc/sys/net/ipv4/neigh/flannel.1/${name}`)
  }
  for (const [last, nud] of [
    [1, 'permanent'],
    [2, 'reachable'],
    [3, 'stale extern_learn'],
  ] as const) {
    await host.ip(`neigh add 10.10.11.${last} lladdr ${peerMac(11)} dev flannel.1 nud ${nud}`)
  }
  const deadline = Date.now() + 15_000
  const resolved = async () => (await neighbours(host, net, 'all')).filter((row) => row.endsWith(peerMac(11)))
  while ((await resolved()).length > 1) {
    assert.ok(Date.now() < deadline, `probed and still there: ${(await resolved()).join()}`)
    await send(host, ['10.10.11.1', '10.10.11.2', '10.10.11.3'])
    await sleep(200)
  }
  assert.deepEqual(await resolved(), [`10.10.11.1 ${peerMac(11)}`])
})
