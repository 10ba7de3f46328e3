/**
 * One network of four kinds of hosts: tweed in static mode, tweed in L3-miss mode, and flanneld of both generations.
 *
 * The mode is in the network config, so the two tweeds have a registry each. What a host writes into one is copied into
 * the other, as between two clusters that are kept equal but for that word.
 */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'
import { parseMac } from '../../src/address/mac.ts'
import { attachContainer } from '../../src/lab/build.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { SqliteRegistry } from '../../src/lease/sqlite.ts'
import type { Agent } from './agent.ts'
import { Flanneld, flannelLease, type Peer, peerOf } from './flanneld.ts'
import { Overlay, sql } from './overlay.ts'

const STATIC = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'
const L3_MISS = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan", "L3Miss": true}}'

const INSERT = 'INSERT INTO leases (key, value) VALUES (?, ?)'

let overlay: Overlay
let agents: readonly Agent[]
const stack = new AsyncDisposableStack()

before(async () => {
  overlay = stack.use(await Overlay.build(4, undefined))
  const [a, b, c, d] = [overlay.host(0), overlay.host(1), overlay.host(2), overlay.host(3)]
  const first = overlay.lab.registryPath
  const second = join(overlay.lab.directory, 'l3-miss.db')
  await seed(first, STATIC, a, [flannelLease(peerOf(c), '0.9'), flannelLease(peerOf(d), '0.5')])
  await seed(second, L3_MISS, b, [flannelLease(peerOf(c), '0.9'), flannelLease(peerOf(d), '0.5')])
  agents = [overlay.start(a), overlay.start(b, `--registry=sqlite:${second}`)]

  const peers: Peer[] = [peerOf(c), peerOf(d)]
  for (const agent of agents) {
    const { mac } = await agent.untilReady()
    peers.push({ ...agent.host, mac: parseMac(mac) })
  }
  copyLease(first, second, a)
  copyLease(second, first, b)
  for (const agent of agents) {
    for (const { subnet } of peers) if (subnet !== agent.host.subnet) await agent.untilPeer(subnet, 'in sync')
  }
  const others = (host: LabHost): Peer[] => peers.filter(({ subnet }) => subnet !== host.subnet)
  stack.use(await Flanneld.start(c, '0.9', others(c)))
  stack.use(await Flanneld.start(d, '0.5', others(d)))
  for (const host of overlay.hosts) await attachContainer(host)
})

after(() => stack.disposeAsync())

/** A registry with a config, the reservation of the tweed that works on it, and the leases of the hosts with flanneld. */
async function seed(
  path: string,
  config: string,
  { subnet, publicIp }: LabHost,
  leases: readonly [string, string][],
): Promise<void> {
  const registry = new SqliteRegistry(path)
  try {
    await registry.putConfig(config)
    await registry.reserve({ inet: subnet }, { inet: publicIp })
  } finally {
    await registry.close()
  }
  for (const lease of leases) sql(path, INSERT, ...lease)
}

function copyLease(from: string, to: string, { subnet }: LabHost): void {
  const key = subnet.replace('/', '-')
  using database = new DatabaseSync(from, { readOnly: true })
  const row = database.prepare('SELECT value FROM leases WHERE key = ?').get(key)
  sql(to, INSERT, key, String(row?.['value']))
}

test('every host and every container reaches the containers of all others', async () => {
  const quiet = await overlay.pictures()
  const pairs = overlay.hosts.flatMap((from) =>
    overlay.hosts
      .filter((to) => to !== from)
      .flatMap((to) => [from, from.container].map((source) => ({ source, to }))),
  )
  assert.equal(pairs.length, 24)
  const lost = await Promise.all(
    pairs.map(async ({ source, to }) => {
      const { container: destination } = containerAddresses(to.subnet)
      const options = { netns: source.path, destination, count: 3, interval: 10, timeout: 3000 }
      const result = await ping(options)
      return result.lost.length === 0 ? [] : `${source.name} to ${to.container.name}`
    }),
  )
  assert.deepEqual(lost.flat(), [])
  await agents[1]?.untilStatus('has answered', ({ counters }) => counters.missesAnswered >= 3)

  const now = await overlay.pictures()
  // Nothing is asked in the static modes, and where it is, nothing comes but the answers.
  for (const i of [0, 2]) assert.equal(now[i], quiet[i])
  for (const i of [1, 3]) assert.deepEqual(withoutNeighbours(now[i]), withoutNeighbours(quiet[i]))
  for (const agent of agents) {
    const { failures, repaired, missesRefused, leasesRefused } = (await agent.status()).counters
    assert.deepEqual([failures, repaired, missesRefused, leasesRefused], [0, 0, 0, 0], agent.stderr)
  }
})

function withoutNeighbours(picture = ''): string[] {
  return picture.split('\n').filter((line) => line !== '' && !line.includes(' lladdr '))
}
