/** The agent's life as a process: how it comes, what it says, how it goes, and what it leaves in place. */

import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { ip, run } from '../../src/lab/command.ts'
import type { LabHost } from '../../src/lab/topology.ts'
import { machineState, startTweed, tweed } from '../tweed.ts'
import type { Agent, Line } from './agent.ts'
import { fakePeer, Overlay, picture } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'
const SUBNET = '10.10.10.0/24'

let overlay: Overlay
let host: LabHost
let machine: string

before(async () => {
  machine = await machineState()
  overlay = await Overlay.build(1, CONFIG)
  host = overlay.host(0)
})

afterEach(() => overlay.killAgents())

after(async () => {
  await overlay[Symbol.asyncDispose]()
  assert.equal(await machineState(), machine)
})

/** An HTTP request from inside the host. */
async function fetchOn(
  { path: netns }: LabHost,
  path: string,
): Promise<{ readonly code: number; readonly body: string }> {
  const program = `fetch('http://127.0.0.1:8471${path}').then(async (response) =>
    console.log(JSON.stringify({ code: response.status, body: await response.text() })))`
  return JSON.parse(await run('nsenter', [`--net=${netns}`, process.execPath, '--eval', program]))
}

/** No line is there twice. */
function assertNothingRepeated(log: readonly Line[]): void {
  const lines = log.map(({ time: _time, ...rest }) => JSON.stringify(rest))
  assert.deepEqual(lines, [...new Set(lines)])
}

/** Time for a thing to be said, or done, again, which it must not be: several of the agent's intervals. */
const WHILE = 2500

async function startReady(): Promise<Agent> {
  const agent = overlay.start(host)
  await agent.untilReady()
  return agent
}

/** With an agent that runs and has one peer. */
async function withPeer(): Promise<Agent> {
  const agent = await startReady()
  const { key, subnet, value } = fakePeer(20)
  overlay.writeLease(key, value)
  await agent.untilPeer(subnet, 'in sync')
  return agent
}

test('it waits for a registry, for a config, for one that can be used, says each once, and goes on', async () => {
  await using fresh = await Overlay.build(1, undefined)
  const host = fresh.host(0)
  const registry = `--registry=sqlite:${fresh.lab.registryPath}`
  const agent = fresh.start(host, '--healthz-port=8471')
  const { msg } = await agent.untilSaid(/registry\.db does not exist/)
  assert.deepEqual(await fetchOn(host, '/healthz'), { code: 200, body: 'flanneld is running' })
  const notReady = await fetchOn(host, '/readyz')
  assert.equal(notReady.code, 503)
  assert.deepEqual(notReady.body.split('\n').slice(0, 2), ['flanneld is not ready yet', msg])
  assert.equal((await fetchOn(host, '/nonsense')).code, 404)
  await sleep(WHILE)

  const reserve = ['leases', 'reserve', registry, SUBNET, host.publicIp]
  assert.equal((await tweed(...reserve)).code, 0)
  await agent.untilSaid(/there is no network config in .*: write one with `tweed config put`/)
  await fresh.putConfig(CONFIG.replace('"vxlan"', '"vxlan", "VNI": 16777216'))
  await agent.untilSaid(/^Backend\.VNI is 16777216: .*1 to 16777215$/)
  await sleep(WHILE)
  assert.match((await agent.get('/readyz')).body, /Backend\.VNI is 16777216/)
  assert.equal((await agent.status()).ready, false)
  assert.equal(await ip(host.namespace, 'link show type vxlan'), '')

  const put = startTweed(['config', 'put', registry, '-'], CONFIG)
  assert.equal((await put.outcome).code, 0)
  await agent.untilReady()
  assert.deepEqual(await fetchOn(host, '/readyz'), { code: 200, body: 'flanneld is ready' })
  assertNothingRepeated(agent.log)
  assert.equal(agent.said(/./).filter(({ level }) => level === 'warn').length, 3, agent.stderr)
  assert.equal(await agent.end('SIGTERM'), 0)
})

test('subnet.env is as flannel writes it, and status says the same', async () => {
  const agent = await startReady()
  assert.equal(
    await readFile(host.subnetFile, 'utf8'),
    'FLANNEL_NETWORK=10.10.0.0/16\nFLANNEL_SUBNET=10.10.10.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n',
  )
  assert.equal((await stat(host.subnetFile)).mode & 0o777, 0o644)
  const { code, stdout } = await tweed('status', '--json', `--subnet-file=${host.subnetFile}`)
  assert.equal(code, 0, stdout)
  const { network, lease, publicIp, externalInterface, mtu, mac, link } = JSON.parse(stdout)
  assert.deepEqual(
    { network, lease, publicIp, externalInterface, mtu, link },
    {
      network: '10.10.0.0/16',
      lease: { subnet: SUBNET, ipv6Subnet: '', expires: null },
      publicIp: '192.168.1.10',
      externalInterface: 'eth0',
      mtu: 1450,
      link: 'flannel.1',
    },
  )
  assert.match(await ip(host.namespace, 'link show flannel.1'), new RegExp(`link/ether ${mac} `))
  await agent.end('SIGTERM')
})

for (const [signal, status] of [
  ['SIGTERM', 0],
  ['SIGKILL', null],
] as const) {
  test(`${signal} leaves the data plane as it is, and the next agent has nothing to do`, async () => {
    const first = await withPeer()
    const { mac, lease } = await first.status()
    const before = await picture(host)
    assert.match(before, /10\.10\.20\.0\/24/)
    assert.equal(await first.end(signal), status)
    assert.equal(await picture(host), before)

    const second = await startReady()
    assert.equal((await second.untilSaid(/^first turn$/))['operations'], 0)
    await sleep(WHILE)
    const now = await second.status()
    assert.deepEqual([now.mac, now.lease, now.counters.operations], [mac, lease, 0])
    assert.equal(await picture(host), before)
    assertNothingRepeated(second.log)
    await second.end('SIGTERM')
    overlay.removeLease(fakePeer(20).key)
  })
}

test('a second agent with the same subnet file ends with one line, and the first goes on', async () => {
  const first = await startReady()
  const second = overlay.start(host)
  assert.equal(await second.untilEnded(), 1)
  assert.equal(second.log.length, 1, second.stderr)
  assert.match(second.log[0]?.msg ?? '', /another agent is running: it answers on .*subnet\.sock$/)
  assert.equal((await first.get('/readyz')).code, 200)
  await first.end('SIGTERM')
})

test('a command line that cannot be right ends with 2 and one line', async () => {
  for (const [flag, message] of [
    ['--nonsense', 'there is no flag -nonsense; see -help'],
    ['--public-ip=192.168.1', 'flag -public-ip: "192.168.1" is not an IP address'],
    ['--public-ip=fd00::1', 'flag -public-ip is fd00::1: it must be an IPv4 address'],
    ['--public-ipv6=192.0.2.1', 'flag -public-ipv6 is 192.0.2.1: it must be an IPv6 address'],
    ['--healthz-port=65536', 'flag -healthz-port is 65536: it must be a whole number from 0 to 65535'],
    ['--subnet-lease-renew-margin=0', 'flag -subnet-lease-renew-margin is 0: it must be .* from 1 to 1439'],
    ['--registry=etc:x', '"etc:x" is not a registry: write sqlite:PATH'],
    ['now', '"now" is not a flag, and no other arguments are taken'],
  ] as const) {
    const agent = overlay.start(host, flag)
    assert.equal(await agent.untilEnded(), 2, flag)
    assert.match(agent.stderr, new RegExp(`^tweed agent: ${message}.*\n$`))
  }
})

test('what only an operator can mend ends with 1 and one line', async () => {
  const unknown = overlay.start(host, '--iface=eth7')
  assert.equal(await unknown.untilEnded(), 1)
  assert.match(
    unknown.log.at(-1)?.msg ?? '',
    /^failed to find interface to use that matches eth7 \(.*eth0:\[192\.168\.1\.10\]/,
  )
  assert.deepEqual(
    unknown.log.map(({ level }) => level).filter((level) => level !== 'info'),
    ['fatal'],
  )
  const first = overlay.start(host, '--healthz-port=8471')
  await first.untilReady()
  const other = `--subnet-file=${dirname(host.subnetFile)}/other.env`
  const second = overlay.start(host, '--healthz-port=8471', other)
  assert.equal(await second.untilEnded(), 1)
  assert.match(second.log.at(-1)?.msg ?? '', /^cannot listen on 0\.0\.0\.0:8471: .*EADDRINUSE/)
  await first.end('SIGTERM')
})

test('a subnet file that cannot be written is said once, keeps it from being ready, and is tried again', async () => {
  const directory = `${dirname(host.subnetFile)}/full`
  await mkdir(directory)
  // A file system with room for its root and the agent's socket.
  await run('mount', ['-t', 'tmpfs', '-o', 'nr_inodes=2', 'tweed', directory])
  try {
    const agent = overlay.start(host, `--subnet-file=${directory}/subnet.env`)
    await agent.untilSaid(/^failed to write subnet file .*full\/subnet\.env: ENOSPC/)
    await sleep(WHILE)
    assertNothingRepeated(agent.log)
    await run('mount', ['-o', 'remount,nr_inodes=10', directory])
    await agent.untilSaid(/^Wrote subnet file to .*full\/subnet\.env$/)
    assert.equal(await agent.end('SIGTERM'), 0)
    assert.deepEqual((await readdir(directory)).toSorted(), ['subnet.env'])
  } finally {
    await run('umount', ['--lazy', directory])
  }
})
