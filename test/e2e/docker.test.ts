/** Docker over tweed: what the containers of two hosts can do, and what they do not notice. */

import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { ip, run } from '../../src/lab/command.ts'
import { startEtcd } from '../../src/lab/registry.ts'
import { UNDERLAY_IP } from '../../src/lab/topology.ts'
import { DockerHost, makeImage, serveImage, until } from './docker.ts'
import { Overlay } from './overlay.ts'

const BACKENDS = {
  'in the static mode': { Type: 'vxlan', VNI: 1 },
  'with L3 misses': { Type: 'vxlan', VNI: 1, L3Miss: true },
} as const

const FILE = randomBytes(16 << 20)

for (const [mode, backend] of Object.entries(BACKENDS)) {
  test(`Docker on two hosts ${mode}`, async (t) => {
    const config = JSON.stringify({ Network: '10.10.0.0/16', Backend: backend })
    await using overlay = await Overlay.build(2, config, 'etcd')
    const { underlay, directory } = overlay.lab
    const etcd = Number(await run('ip', ['netns', 'pids', underlay.namespace]))
    const image = join(directory, 'image')
    await makeImage(image, FILE)
    // For what is no part of the network.
    serveImage(image, underlay)
    const start = (index: number) => overlay.start(overlay.host(index), '--ip-masq', '--iptables-resync=1')
    start(0)
    start(1)
    await overlay.agent(0).untilPeer('10.10.11.0/24', 'in sync')
    await overlay.agent(1).untilPeer('10.10.10.0/24', 'in sync')
    await using a = await DockerHost.start(overlay.host(0), image)
    await using b = await DockerHost.start(overlay.host(1), image)

    await t.test('it has the subnet and the MTU of its host', async () => {
      for (const [docker, subnet] of [
        [a, '10.10.10'],
        [b, '10.10.11'],
      ] as const) {
        assert.match(
          await ip(docker.host.namespace, '-4 address show docker0'),
          new RegExp(` ${subnet}.1/24 `),
        )
        const container = await docker.exec('ip address show eth0')
        assert.match(container, new RegExp(` ${subnet}.2/24 `))
        assert.match(container, / mtu 1450 /)
      }
    })

    await t.test('containers ping each other', async () => {
      for (const [docker, other] of [
        [a, '10.10.11.2'],
        [b, '10.10.10.2'],
      ] as const) {
        assert.match(await docker.exec(`ping -c 5 -i 0.1 -W 2 ${other}`), / 0% packet loss/)
      }
      const answered = (await Promise.all(overlay.agents.map((agent) => agent.status()))).map(
        ({ counters }) => counters.missesAnswered > 0,
      )
      assert.deepEqual(answered, Array(2).fill('L3Miss' in backend))
    })

    await t.test('a file arrives as it was', async () => {
      await b.exec('wget -q -O /file http://10.10.10.2/file')
      const hash = createHash('sha256').update(FILE).digest('hex')
      assert.equal(await b.exec('sha256sum /file'), `${hash}  /file\n`)
    })

    await t.test('a server sees the host outside the network, and the container inside', async () => {
      assert.equal(await a.who(UNDERLAY_IP), '192.168.1.10')
      assert.equal(await b.who(UNDERLAY_IP), '192.168.1.11')
      assert.equal(await a.who('10.10.11.2'), '10.10.10.2')
      assert.equal(await b.who('10.10.10.2'), '10.10.11.2')
    })

    await t.test('a TCP connection outlives the agents', async () => {
      using connection = a.connect('10.10.11.2')
      await connection.exchange()
      for (const [index, agent] of overlay.agents.entries()) {
        await agent.end('SIGKILL')
        await connection.exchange()
        await start(index).untilReady()
        await connection.exchange()
      }
    })

    await t.test('a TCP connection outlives a restart of etcd', async () => {
      using connection = a.connect('10.10.11.2')
      await connection.exchange()
      process.kill(etcd, 'SIGKILL')
      for (const agent of overlay.agents) {
        await agent.untilStatus('without etcd', ({ registry }) => !registry.available)
      }
      await connection.exchange()
      await startEtcd(overlay.lab)
      for (const agent of overlay.agents) await agent.untilReady()
      await connection.exchange()
    })

    await t.test('a TCP connection outlives a flush of iptables, and the rules come back', async () => {
      using connection = a.connect('10.10.11.2')
      await connection.exchange()
      for (const { host } of [a, b]) {
        const flush = 'iptables -F && iptables -t nat -F'
        await run('nsenter', [`--net=${host.path}`, 'sh', '-c', flush])
      }
      await connection.exchange()
      for (const docker of [a, b]) {
        await until('masquerades again', async () => {
          assert.equal(await docker.who(UNDERLAY_IP), docker.host.publicIp)
        })
      }
      assert.equal(await a.who('10.10.11.2'), '10.10.10.2')
    })
  })
}

test('Docker masquerades where tweed does not', async () => {
  await using overlay = await Overlay.build(
    1,
    '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}',
    'etcd',
  )
  const image = join(overlay.lab.directory, 'image')
  await makeImage(image, FILE)
  serveImage(image, overlay.lab.underlay)
  await overlay.start(overlay.host(0)).untilReady()
  await using docker = await DockerHost.start(overlay.host(0), image)
  assert.equal(await docker.who(UNDERLAY_IP), '192.168.1.10')
})
