/** The ipsec backend in agents, on a kernel that has ESP: what they keep when they end, and what they take up. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, describe, test } from 'node:test'
import type { Ip } from '../../src/address/ip.ts'
import { attachContainer } from '../../src/lab/build.ts'
import { ip, run } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import type { Agent } from '../e2e/agent.ts'
import { Overlay } from '../e2e/overlay.ts'

/** This kernel runs in a translated processor: seconds are not what they are elsewhere. Milliseconds. */
const PATIENCE = 240_000
const PSK = 'not a secret, but long enough for a test: '.repeat(3)

function config(settings: object = {}): string {
  return JSON.stringify({ Network: '10.10.0.0/16', Backend: { Type: 'ipsec', PSK, ...settings } })
}

/** charon has one socket and one file with its pid on a machine, both in /run: each host gets a folder there. */
const INSIDE = `set -e
mount --rbind /run/tweed-lab "$1/tweed-lab"
mount --rbind "$1" /run
shift
exec "$@"`

let overlay: Overlay
const folder = `/run/tweed-ipsec-${process.pid}`

async function start(host: LabHost): Promise<Agent> {
  const own = join(folder, host.name)
  await mkdir(join(own, 'tweed-lab'), { recursive: true })
  const inside = ['unshare', '--mount', 'sh', '-c', INSIDE, 'sh', own]
  // The programs of the packet filter are dear here, and not what this is about.
  return overlay.startInside(host, inside, '--iptables-forward-rules=false')
}

async function until(what: string, matches: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE
  while (!(await matches())) {
    const logs = overlay.agents.map(({ stderr }) => stderr).join('\n')
    assert.ok(performance.now() < deadline, `not ${what}: ${logs}`)
    await sleep(100)
  }
}

async function pings(destination: Ip, count: number): Promise<{ lost: number; sent: number }> {
  const netns = overlay.host(0).container.path
  const { lost, sent } = await ping({ netns, destination, count, interval: 100, timeout: 1000 })
  return { lost: lost.length, sent }
}

async function reaches(): Promise<boolean> {
  const { lost, sent } = await pings(containerAddresses(overlay.host(1).subnet).container, 1)
  return sent === 1 && lost === 0
}

/** What goes over the external interface of a host while work is done. */
async function seen({ path }: LabHost, work: () => Promise<unknown>): Promise<string> {
  const words = [`--net=${path}`, 'tcpdump', '--immediate-mode', '-lni', 'eth0', 'ip']
  const dump = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'pipe'] })
  const lines = text(dump.stdout)
  await new Promise((resolve) => dump.stderr.once('data', resolve))
  try {
    await work()
    await sleep(500)
  } finally {
    dump.kill('SIGTERM')
  }
  return lines
}

const policies = ({ namespace }: LabHost): Promise<string> => ip(namespace, 'xfrm policy')
async function charonPid({ name }: LabHost): Promise<number> {
  return Number(await readFile(join(folder, name, 'charon.pid'), 'utf8'))
}

describe('ipsec', { timeout: 1_200_000 }, () => {
  before(async () => {
    // From a disk that is another machine's: else the first charon waits for it longer than an agent for charon.
    await run('sh', [
      '-c',
      'cat /usr/lib/ipsec/charon /usr/lib/ipsec/*.so* /usr/lib/ipsec/plugins/*.so >/dev/null',
    ])
    overlay = await Overlay.build(2, config())
    for (const host of overlay.hosts) {
      await start(host)
    }
    for (const agent of overlay.agents) {
      await until('ready', async () => (await agent.status().catch(() => undefined))?.ready === true)
      await attachContainer(agent.host)
    }
  })

  after(async () => {
    await overlay?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  test('packets go from container to container, and are seen on the underlay as ESP alone', async () => {
    await until('connected', reaches)
    const { container } = containerAddresses(overlay.host(1).subnet)
    const lines = await seen(overlay.host(1), async () => {
      assert.deepEqual(await pings(container, 5), { lost: 0, sent: 5 })
    })
    assert.ok(
      lines.split('\n').filter((line) => /> 192\.168\.1\.11: ESP\(spi=/.test(line)).length >= 5,
      lines,
    )
    // The inner packets are captured again once they are decrypted, on their way in; none of them goes out.
    assert.doesNotMatch(lines, /10\.10\.11\.\d+ > 10\.10\.10\.\d+: ICMP/)
    assert.equal((await overlay.agent(0).status()).mtu, 1423)
  })

  test('the tunnel outlives the agent, and the next agent finds it', async () => {
    const host = overlay.host(0)
    const pid = await charonPid(host)
    const before = await ip(host.namespace, 'xfrm state')
    await overlay.undisturbed(async () => {
      assert.equal(await overlay.agent(0).end('SIGTERM'), 0)
      await sleep(500)
      const agent = await start(host)
      await until('ready', async () => (await agent.status().catch(() => undefined))?.ready === true)
      await sleep(500)
    })
    assert.equal(await charonPid(host), pid)
    // Zero is that of a packet which waits for a tunnel.
    for (const spi of before.match(/spi 0x(?!0+ )\w+/g) ?? []) {
      assert.ok((await ip(host.namespace, 'xfrm state')).includes(spi), `${spi} of ${before}`)
    }
  })

  test('UDPEncap is taken up: ESP in UDP, and eight bytes less', async () => {
    await overlay.putConfig(config({ UDPEncap: true }))
    for (const agent of overlay.agents) {
      await until('at MTU 1415', async () => {
        const status = await agent.status()
        return status.ready && status.mtu === 1415
      })
    }
    await until('connected', reaches)
    const lines = await seen(overlay.host(1), reaches)
    assert.match(lines, /> 192\.168\.1\.11\.4500: UDP-encap: ESP\(spi=/)
    assert.doesNotMatch(lines, /: ESP\(spi=.*\n.*(?<!UDP-encap): ESP/)
  })

  test('another backend leaves no policy behind', async () => {
    await overlay.putConfig(JSON.stringify({ Network: '10.10.0.0/16', Backend: { Type: 'host-gw' } }))
    for (const agent of overlay.agents) {
      await until('host-gw', async () => {
        const status = await agent.status()
        return status.ready && status.backend === 'host-gw'
      })
      assert.doesNotMatch(await policies(agent.host), /10\.10\./)
    }
    await until('connected', reaches)
  })
})
