/** What an agent joined with changes under it: the network config, the external interface. It follows, live. */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { bridge, ip } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { Overlay } from './overlay.ts'

const STATIC = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

function config(settings: object, network = '10.10.0.0/16'): string {
  return JSON.stringify({ Network: network, Backend: { Type: 'vxlan', ...settings } })
}

let overlay: Overlay

before(async () => {
  overlay = await Overlay.connect(STATIC)
})

after(() => overlay[Symbol.asyncDispose]())

async function until(what: string, matches: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await matches())) {
    assert.ok(
      performance.now() < deadline,
      `not ${what}: ${overlay.agents.map(({ stderr }) => stderr).join('\n')}`,
    )
    await sleep(20)
  }
}

const says = (host: LabHost, words: string, pattern: RegExp) => async () =>
  pattern.test(await ip(host.namespace, words).catch(() => ''))

async function reaches(): Promise<boolean> {
  const { container: destination } = containerAddresses(overlay.host(1).subnet)
  const { lost, sent } = await ping({
    netns: overlay.host(0).container.path,
    destination,
    count: 1,
    interval: 1,
    timeout: 300,
  })
  return sent === 1 && lost.length === 0
}

test('from the static mode to L3 misses and back, no packet is lost', async () => {
  await overlay.undisturbed(async () => {
    await overlay.putConfig(config({ L3Miss: true }))
    for (const host of overlay.hosts) {
      await until('in L3-miss mode', says(host, 'route show dev flannel.1', /^10\.10\.0\.0\/16 /m))
      await until(
        'rid of its static route',
        async () => !/10\.10\.1[01]\.0\/24/.test(await ip(host.namespace, 'route show dev flannel.1')),
      )
    }
    await until('answering', says(overlay.host(0), 'neigh show dev flannel.1', /^10\.10\.11\.2 .*PERMANENT/m))
    for (const agent of overlay.agents) await agent.untilReady()

    await overlay.putConfig(STATIC)
    for (const host of overlay.hosts) {
      await until('in static mode', says(host, 'route show dev flannel.1', /^10\.10\.1[01]\.0\/24 /m))
      await until(
        'rid of the network route',
        async () => !/10\.10\.0\.0\/16/.test(await ip(host.namespace, 'route show dev flannel.1')),
      )
    }
  })
  for (const agent of overlay.agents) assert.equal(agent.said(/^lease acquired again$/).length, 2)
})

test('an MTU reaches the link and subnet.env', async () => {
  await overlay.undisturbed(async () => {
    await overlay.putConfig(config({ MTU: 1400 }))
    for (const host of overlay.hosts) {
      await until('at MTU 1350', says(host, 'link show flannel.1', / mtu 1350 /))
      await until('written', async () => /^FLANNEL_MTU=1350$/m.test(await readFile(host.subnetFile, 'utf8')))
    }
    await overlay.putConfig(STATIC)
    for (const host of overlay.hosts)
      await until('at MTU 1450', says(host, 'link show flannel.1', / mtu 1450 /))
  })
})

test('another VNI is another link; the old one goes', async () => {
  await overlay.putConfig(config({ VNI: 42 }))
  for (const host of overlay.hosts) {
    await until('on VNI 42', says(host, 'link show flannel.42', /UP/))
    await until(
      'off VNI 1',
      async () => !/flannel\.1:/.test(await ip(host.namespace, 'link show type vxlan')),
    )
  }
  await until('connected', reaches)
  await overlay.putConfig(STATIC)
  for (const host of overlay.hosts) await until('on VNI 1', says(host, 'link show flannel.1', /UP/))
  await until('connected', reaches)
})

test('a config that cannot be taken up is said, and harms nothing', async () => {
  for (const agent of overlay.agents) await agent.untilReady()
  const pictures = await overlay.pictures()
  await overlay.undisturbed(async () => {
    for (const [bad, why] of [
      [config({}, '10.20.0.0/16'), /our lease 10\.10\.1[01]\.0-24 does not fit it: restart/],
      [config({ MTU: 60 }), /cannot be used: Backend\.MTU is 60/],
      [config({ Type: 'wormhole' }), /cannot be used: Backend\.Type is "wormhole"/],
    ] as const) {
      await overlay.putConfig(bad)
      for (const agent of overlay.agents) {
        await agent.untilStatus(
          'sorry',
          ({ ready, problems }) => !ready && problems.some((text) => why.test(text)),
        )
      }
      await overlay.putConfig(STATIC)
      for (const agent of overlay.agents) await agent.untilReady()
    }
  })
  assert.deepEqual(await overlay.pictures(), pictures)
})

test('another address of the external interface: peers are told, the subnet stays', async () => {
  const [a, b] = [overlay.host(0), overlay.host(1)]
  await overlay.agent(0).end('SIGTERM')
  const agent = overlay.start(a, '--public-ip=', '--iface=eth0')
  await agent.untilReady()
  const { lease, mac } = await agent.status()

  await ip(a.namespace, 'address del 192.168.1.10/24 dev eth0')
  await agent.untilStatus('without an address', ({ problems }) =>
    problems.some((text) => text.includes('failed to find IPv4 address')),
  )
  await ip(a.namespace, 'address add 192.168.1.50/24 dev eth0')
  await agent.untilStatus('at its new address', ({ publicIp, ready }) => ready && publicIp === '192.168.1.50')
  assert.equal((await agent.status()).lease.subnet, lease.subnet)
  assert.equal((await agent.status()).mac, mac)
  await until('told', async () =>
    (await bridge(b.namespace, 'fdb show dev flannel.1')).includes(`${mac} dst 192.168.1.50 `),
  )
  await until('connected', reaches)
})

test('the external interface goes and comes back with another MTU', async () => {
  const a = overlay.host(0)
  const agent = overlay.agent(0)
  await ip(a.namespace, 'link del eth0')
  await agent.untilStatus('without eth0', ({ problems }) =>
    problems.some((text) => text.includes('that matches eth0')),
  )
  const peer = `${a.name} mtu 1400`
  await ip(
    a.namespace,
    `link add eth0 mtu 1400 type veth peer name ${peer} netns ${overlay.lab.underlay.namespace}`,
  )
  await ip(a.namespace, 'address add 192.168.1.50/24 dev eth0')
  await ip(overlay.lab.underlay.namespace, `link set ${a.name} master br0 up`)
  await ip(a.namespace, 'link set eth0 up')
  await agent.untilReady()
  await until('at MTU 1350', says(a, 'link show flannel.1', / mtu 1350 /))
  await until('written', async () => /^FLANNEL_MTU=1350$/m.test(await readFile(a.subnetFile, 'utf8')))
  await until('connected', reaches)
})
