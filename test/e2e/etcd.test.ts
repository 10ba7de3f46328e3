/** A real etcd goes and comes back under running agents and running traffic, with its data and without. */

import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { run } from '../../src/lab/command.ts'
import { etcdDirectory, startEtcd } from '../../src/lab/registry.ts'
import { TWEED } from './agent.ts'
import { Overlay } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

let overlay: Overlay

before(async () => {
  overlay = await Overlay.connect(CONFIG, 'etcd')
})

after(() => overlay[Symbol.asyncDispose]())

let etcd: ChildProcess | undefined

/** The etcd of the lab was started by the lab: the first stop finds it where it is. */
async function stopEtcd(): Promise<void> {
  if (etcd === undefined) {
    const pids = await run('ip', ['netns', 'pids', overlay.lab.underlay.namespace])
    for (const pid of pids.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL')
    return
  }
  etcd.ref()
  etcd.kill('SIGKILL')
  await once(etcd, 'exit')
}

function etcdctl(...args: string[]): Promise<string> {
  const words = [`--net=${overlay.lab.underlay.path}`, 'env', 'ETCDCTL_API=3', 'etcdctl']
  return run('nsenter', [...words, '--endpoints=http://192.168.1.1:2379', ...args])
}

const subnets = async (): Promise<string[]> =>
  (await etcdctl('get', '--prefix', '/flannel/network/subnets', '--keys-only')).split('\n').filter(Boolean)

async function untilUnavailable(): Promise<void> {
  for (const agent of overlay.agents) {
    await agent.untilStatus('without a registry', ({ ready, registry }) => !ready && !registry.available)
  }
}

async function untilReady(): Promise<void> {
  for (const agent of overlay.agents) await agent.untilReady()
}

test('killed and started again with its data: traffic goes on, nothing changes', async () => {
  const pictures = await overlay.pictures()
  await overlay.undisturbed(async () => {
    await stopEtcd()
    await untilUnavailable()
    assert.deepEqual(await overlay.pictures(), pictures)
    etcd = await startEtcd(overlay.lab)
    await untilReady()
  })
  assert.deepEqual(await overlay.pictures(), pictures)
  for (const agent of overlay.agents) assert.equal(agent.said(/^registry .* is available again$/).length, 1)
})

test('a peer that came during the outage is picked up', async () => {
  await overlay.undisturbed(async () => {
    await etcdctl(
      'put',
      '/flannel/network/subnets/10.10.77.0-24',
      '{"PublicIP":"192.168.1.77","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:77"}}',
    )
    for (const agent of overlay.agents) await agent.untilPeer('10.10.77.0/24', 'in sync')
    await etcdctl('del', '/flannel/network/subnets/10.10.77.0-24')
    for (const agent of overlay.agents) await agent.untilPeerGone('10.10.77.0/24')
  })
})

test('started again without its data: leases come back from their owners, and nobody is pruned', async () => {
  const pictures = await overlay.pictures()
  const before = await subnets()
  const [a, b] = [overlay.agent(0), overlay.agent(1)]
  await overlay.undisturbed(async () => {
    // Its lease cannot come back before it does.
    await b.end('SIGKILL')
    await stopEtcd()
    await a.untilStatus('without a registry', ({ ready, registry }) => !ready && !registry.available)
    await rm(etcdDirectory(overlay.lab), { recursive: true })
    etcd = await startEtcd(overlay.lab)
    await a.untilSaid(/^[12] leases are missing after an outage of the registry: they are kept for 300 s/)
    // An empty etcd has no config: the agent goes on with its own and says so, until the operator writes it again.
    await a.untilStatus('without a config', ({ problems }) =>
      problems.some((text) => text.includes('no network config')),
    )
    // The words of many a guide to flannel.
    const config = '{ "Network": "10.10.0.0/16", "Backend": { "Type": "vxlan", "VNI": 1 } }'
    await etcdctl('put', '/flannel/network/config', config)
    await a.untilReady()
    await overlay.start(b.host).untilReady()
    assert.deepEqual(await subnets(), before)
  })
  assert.deepEqual(await overlay.pictures(), pictures)
})

test('the story of the demo is the same over etcd', async () => {
  const words = ['demo', '--registry', 'etcd', '--name', `twe${process.pid}etcd`]
  assert.match(await run(TWEED, words), /PASSED: all \d+ checks hold/)
})
