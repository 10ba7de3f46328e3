/**
 * A registry that is deleted, locked, read-only, damaged or replaced under running agents: what is known stays in
 * place, health says so, and when it is back the agents go on by themselves.
 */

import assert from 'node:assert/strict'
import { copyFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { run } from '../../src/lab/command.ts'
import { tweed } from '../tweed.ts'
import type { Agent } from './agent.ts'
import { fakePeer, Overlay, picture } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

let overlay: Overlay
let path: string

before(async () => {
  overlay = await Overlay.connect(CONFIG)
  path = overlay.lab.registryPath
})

after(() => overlay[Symbol.asyncDispose]())

/** For root, too: the directory is mounted over itself, read-only. */
async function mountReadOnly(): Promise<() => Promise<void>> {
  const { directory } = overlay.lab
  await run('mount', ['--bind', directory, directory])
  await run('mount', ['-o', 'remount,bind,ro', directory])
  return async () => void (await run('umount', ['--lazy', directory]))
}

/** Each gives how it is mended. */
const FAULTS: readonly {
  readonly name: string
  readonly reason: RegExp
  readonly cause: () => Promise<() => Promise<void>>
}[] = [
  {
    name: 'moved away',
    reason: /does not exist$/,
    cause: () => overlay.moveRegistryAway(),
  },
  { name: 'locked', reason: /is locked by another process$/, cause: () => overlay.lockRegistry() },
  { name: 'read-only', reason: /is read-only/, cause: mountReadOnly },
  {
    name: 'overwritten',
    reason: /is damaged/,
    cause: () => damage(() => writeFile(path, 'x'.repeat(8192), { flag: 'r+' })),
  },
  { name: 'truncated', reason: /is damaged/, cause: () => damage(() => truncate(path, 5000)) },
  { name: 'emptied', reason: /is not a tweed registry$/, cause: () => damage(() => truncate(path, 0)) },
]

async function damage(harm: () => Promise<void>): Promise<() => Promise<void>> {
  await copyFile(path, `${path}.backup`)
  await harm()
  return () => rename(`${path}.backup`, path)
}

/** Waits until an agent says that it is not ready, which is seen everywhere, and said once. */
async function assertUnavailable(agent: Agent, reason: RegExp, mark: number): Promise<void> {
  const status = await agent.untilStatus('cut off', ({ registry }) => !registry.available)
  assert.match(status.registry.why, reason)
  const { code, body } = await agent.get('/readyz')
  assert.equal(code, 503)
  assert.equal(body, `flanneld is not ready yet\nregistry: ${status.registry.why}`)
  assert.equal((await agent.get('/healthz')).code, 200)
  const cli = await tweed('status', '--json', `--subnet-file=${agent.host.subnetFile}`)
  assert.equal(cli.code, 1)
  assert.deepEqual(JSON.parse(cli.stdout).problems, [`registry: ${status.registry.why}`])
  assert.equal(agent.said(/ is unavailable: /, mark).length, 1, agent.stderr)
  assert.equal(
    status.peers.every(({ state }) => state === 'in sync'),
    true,
  )
}

async function assertRecovered(agent: Agent, mark: number): Promise<void> {
  await agent.untilReady()
  assert.deepEqual(await agent.get('/readyz'), { code: 200, body: 'flanneld is ready' })
  assert.equal(agent.said(/ is available again$/, mark).length, 1, agent.stderr)
  assert.equal(agent.said(/ is unavailable: /, mark).length, 1, agent.stderr)
}

for (const [i, { name, reason, cause }] of FAULTS.entries()) {
  test(`${name}: traffic goes on, health says why, and it mends itself`, async () => {
    for (const agent of overlay.agents) await agent.untilReady()
    const marks = overlay.agents.map((agent) => agent.log.length)
    const before = await overlay.pictures()
    const peer = fakePeer(100 + i)
    await overlay.undisturbed(async () => {
      const mend = await cause()
      try {
        for (const [j, agent] of overlay.agents.entries())
          await assertUnavailable(agent, reason, marks[j] ?? 0)
        assert.deepEqual(await overlay.pictures(), before)
      } finally {
        await mend()
      }
      for (const [j, agent] of overlay.agents.entries()) await assertRecovered(agent, marks[j] ?? 0)
      assert.deepEqual(await overlay.pictures(), before)

      overlay.writeLease(peer.key, peer.value)
      for (const agent of overlay.agents) {
        await agent.untilPeer(peer.subnet, 'in sync')
        assert.match(await picture(agent.host), new RegExp(`^${peer.subnet} `, 'm'))
      }
      assert.equal(
        overlay.agents.flatMap((agent, j) => agent.said(/left|gone|lost|repaired/, marks[j])).length,
        0,
      )
    })
  })
}

test('replaced by a new one: the hosts take their subnets again, and nobody is pruned meanwhile', async () => {
  const marks = overlay.agents.map((agent) => agent.log.length)
  const before = await overlay.pictures()
  const peers = overlay.agents.map(async (agent) => (await agent.status()).peers.map(({ subnet }) => subnet))
  const known = (await Promise.all(peers)).map((subnets) => subnets.toSorted())
  await overlay.undisturbed(async () => {
    await rm(path)
    for (const agent of overlay.agents) {
      await agent.untilStatus('cut off', ({ registry }) => !registry.available)
    }
    const config = `${path}.json`
    await writeFile(config, CONFIG)
    assert.equal((await tweed('config', 'put', `--registry=sqlite:${path}`, config)).code, 0)
    for (const [i, agent] of overlay.agents.entries()) {
      await agent.untilSaid(/^lease acquired again$/, marks[i])
      const { lease } = await agent.untilReady()
      assert.equal(lease.subnet, agent.host.subnet)
      await agent.untilSaid(
        /leases are missing after an outage of the registry: they are kept for 300 s/,
        marks[i],
      )
    }
    for (const [i, agent] of overlay.agents.entries()) {
      const { peers } = await agent.status()
      assert.deepEqual(peers.map(({ subnet }) => subnet).toSorted(), known[i], 'held for their owners')
      assert.equal(agent.said(/left/, marks[i]).length, 0)
    }
    assert.deepEqual(await overlay.pictures(), before)

    const list = await tweed('leases', 'list', '--json', `--registry=sqlite:${path}`)
    assert.deepEqual(
      JSON.parse(list.stdout).map(({ subnets, publicIps }: Row) => [subnets.inet, publicIps.inet]),
      overlay.hosts.map(({ subnet, publicIp }) => [subnet, publicIp]),
    )
    const { key, subnet, value } = fakePeer(150)
    overlay.writeLease(key, value)
    for (const agent of overlay.agents) await agent.untilPeer(subnet, 'in sync')
  })
})

interface Row {
  readonly subnets: { readonly inet: string }
  readonly publicIps: { readonly inet: string }
}
