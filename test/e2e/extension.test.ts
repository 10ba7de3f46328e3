/** Agents whose data plane is made by commands: small scripts that set routes by hand. */

import assert from 'node:assert/strict'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { ip } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { Overlay } from './overlay.ts'

let overlay: Overlay
let folder: string

/** In the folder: `PUBLIC_IP.log` gets a line for each call, `fail` makes SubnetAddCommand fail. */
const SCRIPT = `#!/bin/sh
# $1: its folder. $2: what it is called for. Then its arguments.
folder=$1 what=$2
shift 2
self=$(ip -4 -o address show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')
note() { echo "$what $*" >>"$folder/$self.log"; }
case $what in
  pre) echo "data of $self '; touch $folder/pwned; \\$(touch $folder/pwned)" ;;
  post) note "$NETWORK $SUBNET [$IPV6SUBNET] $PUBLIC_IP [$PUBLIC_IPV6]" ;;
  add)
    read -r data
    note "$SUBNET $PUBLIC_IP $*: $data"
    if [ -e "$folder/fail" ]; then echo 'told to fail' >&2; exit 7; fi
    ip route replace "$1" via "$2"
    ;;
  remove)
    read -r data
    note "$SUBNET $PUBLIC_IP $*: $data"
    ip route del "$1" via "$2"
    ;;
  shutdown) note "$NETWORK $SUBNET" ;;
esac
`

function config(more: object = {}): string {
  const script = join(folder, 'script')
  const Backend = {
    Type: 'extension',
    PreStartupCommand: `${script} ${folder} pre`,
    PostStartupCommand: `${script} ${folder} post`,
    SubnetAddCommand: `${script} ${folder} add $SUBNET \${PUBLIC_IP}`,
    SubnetRemoveCommand: `${script} ${folder} remove $SUBNET $PUBLIC_IP`,
    ShutdownCommand: `${script} ${folder} shutdown`,
    ...more,
  }
  return JSON.stringify({ Network: '10.10.0.0/16', Backend })
}

before(async () => {
  folder = `/run/tweed-extension-${process.pid}`
  await mkdir(folder)
  await writeFile(join(folder, 'script'), SCRIPT, { mode: 0o755 })
  overlay = await Overlay.connect(config())
})

after(async () => {
  await overlay?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true })
})

/** What the commands were called with on a host. */
async function calls({ publicIp }: LabHost, what: string): Promise<string[]> {
  const text = await readFile(join(folder, `${publicIp}.log`), 'utf8').catch(() => '')
  return text.split('\n').filter((line) => line.startsWith(`${what} `))
}

async function until(what: string, matches: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await matches())) {
    const logs = overlay.agents.map(({ stderr }) => stderr).join('\n')
    assert.ok(performance.now() < deadline, `not ${what}: ${logs}`)
    await sleep(20)
  }
}

const routes = ({ namespace }: LabHost): Promise<string> => ip(namespace, 'route show dev eth0')

async function reaches(): Promise<boolean> {
  const { container: destination } = containerAddresses(overlay.host(1).subnet)
  const netns = overlay.host(0).container.path
  const { lost, sent } = await ping({ netns, destination, count: 1, interval: 1, timeout: 300 })
  return sent === 1 && lost.length === 0
}

/** A peer that is nothing but its lease. */
function peer(n: number, data: unknown): [key: string, value: string] {
  const value = { PublicIP: `192.168.1.${n}`, BackendType: 'extension', BackendData: data }
  return [`10.10.${n}.0-24`, JSON.stringify(value)]
}

test('packets go where the commands lead, and the data of peers reached no shell', async () => {
  await until('connected', reaches)
  const [a, b] = [overlay.host(0), overlay.host(1)]
  assert.deepEqual(await calls(a, 'post'), [`post 10.10.0.0/16 ${a.subnet} [] ${a.publicIp} []`])
  const data = `data of ${b.publicIp} '; touch ${folder}/pwned; $(touch ${folder}/pwned)`
  const told = `${b.subnet} ${b.publicIp} ${b.subnet} ${b.publicIp}: ${data}`
  await until('told', async () => (await calls(a, 'add')).length > 0)
  assert.deepEqual(await calls(a, 'add'), [`add ${told}`])
  await assert.rejects(readFile(join(folder, 'pwned')), { code: 'ENOENT' })
})

test('a peer that goes is removed; one whose data changed is removed and added', async () => {
  const a = overlay.host(0)
  overlay.writeLease(...peer(60, 'first'))
  await until('routed', async () => /^10\.10\.60\.0\/24 via 192\.168\.1\.60/m.test(await routes(a)))
  const [key, value] = peer(60, 'second')
  overlay.sql('UPDATE leases SET value = ? WHERE key = ?', value, key)
  await until('told again', async () => (await calls(a, 'add')).some((line) => line.endsWith(': second')))
  overlay.removeLease(key)
  await until('unrouted', async () => !/10\.10\.60\./.test(await routes(a)))
  const of60 = async (what: string) => (await calls(a, what)).filter((line) => line.includes('10.10.60.0'))
  const told = '10.10.60.0/24 192.168.1.60 10.10.60.0/24 192.168.1.60'
  assert.deepEqual(await of60('add'), [`add ${told}: first`, `add ${told}: second`])
  assert.deepEqual(await of60('remove'), [`remove ${told}: first`, `remove ${told}: second`])
})

test('data that is not printable text is refused', async () => {
  const agent = overlay.agent(0)
  for (const [n, data, why] of [
    [61, { a: 1 }, /it is object, not a string$/],
    [62, 'a\u0000b', /U\+0000$/],
  ] as const) {
    const [key, value] = peer(n, data)
    overlay.writeLease(key, value)
    assert.match((await agent.untilPeer(`10.10.${n}.0/24`, 'refused')).why, why)
    overlay.removeLease(key)
    await agent.untilPeerGone(`10.10.${n}.0/24`)
  }
  assert.ok(!(await calls(agent.host, 'add')).some((line) => /10\.10\.6[12]\./.test(line)))
})

test('a command that fails is told, counted, and tried again', async () => {
  const agent = overlay.agent(0)
  await agent.untilReady()
  await overlay.undisturbed(async () => {
    await writeFile(join(folder, 'fail'), '')
    overlay.writeLease(...peer(63, 'x'))
    const { why } = await agent.untilPeer('10.10.63.0/24', 'failed')
    assert.match(why, /^failed to run command: .* add .* Err: exit status 7 Output: told to fail$/)
    assert.equal((await agent.status()).ready, false)
    await until('tried again', async () => (await calls(agent.host, 'add')).length >= 6)
    assert.equal(agent.said(/exit status 7/).length, 1)
    assert.match(
      (await agent.get('/metrics')).body,
      /^tweed_operation_failures_total\{kind="command",verb="add"\} \d/m,
    )
    assert.match((await agent.get('/metrics')).body, /^tweed_peers\{state="failed"\} 1$/m)

    await rm(join(folder, 'fail'))
    await agent.untilPeer('10.10.63.0/24', 'in sync')
    await agent.untilReady()
    assert.match(await routes(agent.host), /^10\.10\.63\.0\/24 via 192\.168\.1\.63/m)
  })
})

test('a restart adds the leases that are there again, and loses no packet', async () => {
  const { host } = overlay.agent(0)
  await overlay.undisturbed(async () => {
    const before = (await calls(host, 'add')).length
    await overlay.agent(0).end('SIGKILL')
    await overlay.start(host).untilReady()
    await until('added', async () => (await calls(host, 'add')).length >= before + 2)
  })
  assert.deepEqual(await calls(host, 'shutdown'), [])
})

test('PostStartupCommand that fails ends the join; mended, it goes on', async () => {
  const agent = overlay.agent(0)
  await overlay.putConfig(config({ PostStartupCommand: 'false' }))
  await agent.untilStatus('sorry', ({ problems }) =>
    problems.some((text) => text === 'failed to run command: false Err: exit status 1 Output: '),
  )
  await overlay.putConfig(config())
  for (const one of overlay.agents) await one.untilReady()
  await until('connected', reaches)
})

test('SIGTERM runs ShutdownCommand, and leaves the rest', async () => {
  const agent = overlay.agent(0)
  const before = await routes(agent.host)
  const { length } = await calls(agent.host, 'shutdown')
  assert.equal(await agent.end('SIGTERM'), 0)
  const { subnet } = agent.host
  assert.deepEqual((await calls(agent.host, 'shutdown')).slice(length), [`shutdown 10.10.0.0/16 ${subnet}`])
  assert.equal(await routes(agent.host), before)
})
