/** Labs on the real kernel, from outside: built, used, broken, and gone without a trace. */

import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Ip } from '../src/address/ip.ts'
import { ip, ipBatch, run } from '../src/lab/command.ts'
import { ping } from '../src/lab/ping.ts'
import { machineState, remains, startTweed, tweed } from './tweed.ts'

/** One lab at a time, for each test process its own. */
const LAB = `twl${process.pid}`
const NAME = `--name=${LAB}`

let machine: string

before(async () => {
  machine = await machineState()
})

after(async () => {
  await tweed('lab', 'down', NAME)
  assert.deepEqual(await remains(LAB), [])
  assert.equal(await machineState(), machine)
})

test('a lab is built, used and taken away', async () => {
  const up = await tweed('lab', 'up', NAME, '--hosts=3')
  assert.equal(up.code, 0, up.stderr)
  assert.equal(await machineState(), machine)

  const ping = await tweed('lab', 'ping', NAME, 'c1', 'c3', '-c', '5', '-i', '10')
  assert.equal(ping.code, 0, ping.stdout)
  assert.match(ping.stdout, /^64 bytes from 10\.10\.12\.2: icmp_seq=5 ttl=62 time=[\d.]+ ms$/m)
  assert.match(ping.stdout, /^5 packets transmitted, 5 received, 0% packet loss$/m)

  const status = await tweed('lab', 'status', NAME)
  assert.equal(status.code, 0, status.stdout)
  assert.match(status.stdout, /^host-B +192\.168\.1\.11 +10\.10\.11\.0\/24 +c2 +10\.10\.11\.2 +in sync$/m)

  const subnetFile = `--subnet-file=/run/tweed-lab/${LAB}/host-A/subnet.env`
  const agent = await tweed('status', subnetFile)
  assert.equal(agent.code, 0, agent.stdout)
  assert.match(agent.stdout, /^10\.10\.12\.0\/24 +192\.168\.1\.12 +in sync$/m)
  assert.equal(JSON.parse((await tweed('status', '--json', subnetFile)).stdout).publicIp, '192.168.1.10')

  assert.equal((await tweed('lab', 'exec', NAME, 'c2', '--', 'sh', '-c', 'exit 7')).code, 7)
  const exec = await tweed('lab', 'exec', NAME, 'host-A', 'ip', '-br', 'address', 'show', 'dev', 'docker0')
  assert.match(exec.stdout, /10\.10\.10\.1\/24/)

  const again = await tweed('lab', 'up', NAME)
  assert.equal(again.code, 1)
  assert.match(again.stderr, /^tweed: lab \w+ is up already: .*lab down/)
  assert.equal(
    (await tweed('lab', 'ping', NAME, 'c1', 'c3', '-c', '1')).code,
    0,
    'a second up leaves the first alone',
  )

  assert.equal((await tweed('lab', 'down', NAME)).code, 0)
  assert.deepEqual(await remains(LAB), [])
  assert.match((await tweed('lab', 'down', NAME)).stdout, /^there was no lab/)
})

test('a lab of both families, and one of IPv6 alone', async () => {
  for (const [family, flag, row] of [
    [
      'dual',
      '-6',
      /^host-B +192\.168\.1\.11 fd00:192::11 +10\.10\.11\.0\/24 fd00:10:10:11::\/64 +c2 +10\.10\.11\.2 fd00:10:10:11::2 +in sync$/m,
    ],
    ['inet6', '-c1', /^host-B +fd00:192::11 +fd00:10:10:11::\/64 +c2 +fd00:10:10:11::2 +in sync$/m],
  ] as const) {
    const up = await tweed('lab', 'up', NAME, `--family=${family}`)
    assert.equal(up.code, 0, up.stderr)
    const ping = await tweed('lab', 'ping', NAME, flag, 'c1', 'c2', '-c', '2', '-i', '10')
    assert.equal(ping.code, 0, ping.stdout)
    assert.match(ping.stdout, /^64 bytes from fd00:10:10:11::2: icmp_seq=2 time=[\d.]+ ms$/m)
    const hosts = await tweed('lab', 'ping', NAME, flag, 'host-A', 'host-B', '-c', '1')
    assert.match(hosts.stdout, /^64 bytes from fd00:192::11: /m)
    const status = await tweed('lab', 'status', NAME)
    assert.equal(status.code, 0, status.stdout)
    assert.match(status.stdout, row)
    assert.equal((await tweed('lab', 'down', NAME)).code, 0)
  }
  const wrong = await tweed('lab', 'up', NAME, '--family=ipx')
  assert.equal(wrong.code, 2)
  assert.match(wrong.stderr, /Allowed choices are inet, inet6, dual/)
})

test('what a killed `up` left behind is taken away by the next', async () => {
  const killed = startTweed(['lab', 'up', NAME])
  await killed.said('an agent on each host')
  killed.kill('SIGKILL')
  assert.equal((await killed.outcome).code, null)
  assert.notDeepEqual(await remains(LAB), [])
  assert.match((await tweed('lab', 'status', NAME)).stderr, /is not up/)

  const up = await tweed('lab', 'up', NAME)
  assert.equal(up.code, 0, up.stderr)
  assert.match(up.stdout, /^took away what was left/)
  assert.equal((await tweed('lab', 'ping', NAME, 'c2', 'c1', '-c', '1')).code, 0)
  assert.equal((await tweed('lab', 'down', NAME)).code, 0)
  assert.deepEqual(await remains(LAB), [])
})

test('an interrupted `up` leaves nothing behind', async () => {
  const interrupted = startTweed(['lab', 'up', NAME])
  await interrupted.said('an agent on each host')
  interrupted.kill('SIGTERM')
  const { code, stderr } = await interrupted.outcome
  assert.deepEqual([code, stderr], [1, 'tweed: interrupted by SIGTERM\n'])
  assert.deepEqual(await remains(LAB), [])
})

test('an `up` that fails says why and leaves nothing behind', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tweed-lab-'))
  try {
    const config = join(directory, 'config.json')
    await writeFile(
      config,
      '{"Network": "10.10.0.0/16", "SubnetMax": "10.10.1.0", "Backend": {"Type": "vxlan"}}',
    )
    const { code, stderr } = await tweed('lab', 'up', NAME, `--config=${config}`)
    assert.equal(code, 1)
    assert.match(stderr, /^tweed: the agent of host-[AB] has ended; its log:\n.*out of subnets/s)
  } finally {
    await rm(directory, { recursive: true })
  }
  assert.deepEqual(await remains(LAB), [])
})

test('without root, one line says what is missing', async () => {
  const program = `
    const { checkMachine } = await import(${JSON.stringify(new URL('../src/lab/requirements.ts', import.meta.url))})
    process.setuid(65534)
    await checkMachine().catch(({ name, message }) => console.log(name, message))`
  const output = await run(process.execPath, ['--input-type=module', '--eval', program])
  assert.equal(output, 'LabError network namespaces need root: run this with sudo\n')
})

test('ping counts what is lost, and a command that fails is named with what it said', async () => {
  const namespace = `tweed-lab-${LAB}-alone`
  await run('ip', ['netns', 'add', namespace])
  try {
    await assert.rejects(ipBatch(namespace, ['link set lo up', 'link set nothing up', 'link set lo down']), {
      name: 'CommandError',
      message: `ip -n ${namespace} link set nothing up: Cannot find device "nothing"`,
    })
    const netns = `/run/netns/${namespace}`
    const options = { netns, interval: 1, timeout: 50 }
    const own = await ping({ ...options, destination: '127.0.0.1' as Ip, count: 20 })
    assert.deepEqual([own.sent, own.replies.length, own.lost], [20, 20, []])
    assert.deepEqual(
      own.replies.map(({ sequence }) => sequence).toSorted((a, b) => a - b),
      Array.from({ length: 20 }, (_, i) => i + 1),
    )

    await ip(namespace, 'route add 192.0.2.0/24 dev lo')
    const silent = await ping({ ...options, destination: '192.0.2.1' as Ip, count: 3 })
    assert.deepEqual([silent.sent, silent.replies, silent.lost], [3, [], [1, 2, 3]])
  } finally {
    await run('ip', ['netns', 'delete', namespace])
  }
})
