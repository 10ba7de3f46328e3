/**
 * Backends without flannel's vxlan form, from outside: two hosts with tweed and one with what flanneld does there, every
 * container reaches every other; then flanneld's host goes over to tweed under traffic, and nothing is lost.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { attachContainer } from '../../src/lab/build.ts'
import { ip } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { configOf, leaseOf, type RoutingBackend, startRouting } from './flanneld-routes.ts'
import { Overlay } from './overlay.ts'

export function describeBackend(backend: RoutingBackend): void {
  describe(`${backend}, with a host as flanneld leaves it`, () => {
    test('every container reaches every other, and a change of agents loses nothing', async () => {
      await using overlay = await Overlay.build(3, configOf(backend))
      const [a, b, c] = [overlay.host(0), overlay.host(1), overlay.host(2)]
      const [key, value] = leaseOf(c, backend)
      overlay.sql('UPDATE leases SET value = ? WHERE key = ?', value, key)
      const agents = [overlay.start(a), overlay.start(b)]
      for (const agent of agents) {
        await agent.untilReady()
        for (const { subnet } of overlay.hosts) {
          if (subnet !== agent.host.subnet) await agent.untilPeer(subnet, 'in sync')
        }
      }
      await startRouting(c, backend, [a, b])
      for (const host of overlay.hosts) await attachContainer(host)
      await reachAll(overlay)

      const under = ping({
        netns: a.container.path,
        destination: containerAddresses(c.subnet).container,
        count: 300,
        interval: 10,
        timeout: 3000,
      })
      const swapped = overlay.start(c)
      await swapped.untilReady()
      for (const { subnet } of [a, b]) await swapped.untilPeer(subnet, 'in sync')
      assert.deepEqual((await under).lost, [])
      await reachAll(overlay)

      for (const { subnet } of [a, b]) {
        const [line, ...others] = (await ip(c.namespace, `route show ${subnet}`)).trim().split('\n')
        assert.match(line ?? '', /proto 84/, 'the route is ours now')
        assert.deepEqual(others, [], 'and there is one')
      }
      for (const agent of overlay.agents) {
        const { failures, repaired } = (await agent.status()).counters
        assert.deepEqual([failures, repaired], [0, 0], agent.stderr)
      }
    })
  })
}

async function reachAll(overlay: Overlay): Promise<void> {
  const pairs = overlay.hosts.flatMap((from) =>
    overlay.hosts.filter((to) => to !== from).map((to) => [from, to] as const),
  )
  const lost = await Promise.all(
    pairs.map(async ([from, to]: readonly [LabHost, LabHost]) => {
      const { container: destination } = containerAddresses(to.subnet)
      const options = { netns: from.container.path, destination, count: 3, interval: 10, timeout: 3000 }
      return (await ping(options)).lost.length === 0 ? [] : `${from.name} to ${to.name}`
    }),
  )
  assert.deepEqual(lost.flat(), [])
}
