/**
 * The ipsec backend on a kernel that has ESP: two hosts on one wire, each with a charon and a container, packets between
 * them, and what of those is seen on the wire.
 */

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { parseIp } from '../../src/address/ip.ts'
import { parsePrefix } from '../../src/address/prefix.ts'
import type { Companion } from '../../src/backend/backend.ts'
import { openIpsec } from '../../src/backend/ipsec-charon.ts'
import { parseNetworkConfig } from '../../src/config/network-config.ts'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { ping } from '../../src/lab/ping.ts'
import { formatLeaseKey, type Lease } from '../../src/lease/lease.ts'
import { ViciClient } from '../../src/vici/client.ts'
import { Host } from '../kernel/namespace.ts'

/** A translated processor, and key exchanges of 4096 bits. Milliseconds. */
const PATIENCE = 180_000
const PSK = 'not a secret, but long enough for a test: '.repeat(3)

function lease(n: number): Lease {
  const subnets = { inet: parsePrefix(`10.10.${n}.0/24`) }
  return {
    key: formatLeaseKey(subnets),
    subnets,
    publicIps: { inet: parseIp(`192.168.1.${n}`) },
    backendType: 'ipsec',
    backendData: {},
    expires: undefined,
    created: n,
  }
}

/** A host with its companion, as an agent drives it. */
class IpsecHost {
  readonly number: number
  readonly host: Host
  readonly container: Host
  readonly #folder: string
  #companion: Companion | undefined
  #stop = new AbortController()
  #running: Promise<void> = Promise.resolve()

  constructor(number: number, host: Host, container: Host, folder: string) {
    this.number = number
    this.host = host
    this.container = container
    this.#folder = folder
  }

  /** The container behind the host, at 10.10.N.2. */
  async connect(): Promise<void> {
    const gateway = `10.10.${this.number}.1`
    await this.container.ip(`link set wire netns ${this.host.name} name c1`)
    await this.host.ip(`addr add ${gateway}/24 dev c1`)
    await this.host.ip('link set c1 up')
    await this.container.ip(`route add default via ${gateway}`)
    await this.host.exec('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    // charon has one file with its pid on a machine, and one socket: each host has a /run of its own.
    await mkdir(join(this.#folder, 'run'), { recursive: true })
    const socket = `charon { plugins { vici { socket = unix://${this.#folder}/vici } } }\n`
    const conf = `include /etc/strongswan.conf\n${socket}`
    await writeFile(join(this.#folder, 'strongswan.conf'), conf)
  }

  /** An agent starts: one join, one snapshot. */
  async start(peers: readonly Lease[], settings: object = {}): Promise<void> {
    const backend = { Type: 'ipsec', PSK, ...settings }
    const config = parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', Backend: backend }))
    const address = { inet: parseIp(`192.168.1.${this.number}`) }
    const external = { name: 'eth0', index: await this.host.index('eth0'), mtu: 1500, addresses: address }
    const facts = { external, publicIps: address, links: new Map(), underlay: [] }
    const mount = 'mount --bind "$1/run" /run && exec env STRONGSWAN_CONF="$1/strongswan.conf" "$2"'
    const inside = ['unshare', '--mount', 'sh', '-c', mount, 'sh', this.#folder, '/usr/lib/ipsec/charon']
    const place = {
      socket: join(this.#folder, 'vici'),
      command: ['nsenter', `--net=${this.host.path}`, ...inside],
    }
    const plan = await openIpsec(config, facts, place)
    const { companion, scope } = plan
    await companion.started(lease(this.number))
    companion.exchange([], peers)
    const reconciler = await Reconciler.open({ scope, netns: this.host.path })
    reconciler.exchange(
      [],
      peers.map((peer) => plan.peer(peer)),
    )
    assert.deepEqual((await reconciler.turn()).failures, [])
    reconciler.close()
    this.#companion = companion
    this.#stop = new AbortController()
    this.#running = this.#run(companion, this.#stop.signal)
  }

  exchange(removed: readonly Lease[], added: readonly Lease[]): void {
    this.#companion?.exchange(removed, added)
  }

  get failures(): unknown[] {
    return [...(this.#companion?.failures ?? [])]
  }

  /** @param keep As of `Companion.stopped`. */
  async stop(keep: boolean): Promise<void> {
    this.#stop.abort()
    await this.#running
    await this.#companion?.stopped(keep)
    this.#companion = undefined
  }

  /** A conversation with its charon, beside the companion's. */
  vici(): Promise<ViciClient> {
    return ViciClient.connect(join(this.#folder, 'vici'))
  }

  async charonPid(): Promise<number> {
    return Number(await readFile(join(this.#folder, 'run', 'charon.pid'), 'utf8'))
  }

  policies(): Promise<string> {
    return this.host.ip('xfrm policy')
  }

  async #run(companion: Companion, signal: AbortSignal): Promise<void> {
    for await (const _ of companion.run(signal));
  }
}

async function until(what: string, matches: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE
  while (!(await matches())) {
    assert.ok(performance.now() < deadline, `not ${what}; ${JSON.stringify([a.failures, b.failures])}`)
    await sleep(100)
  }
}

let folder: string
let a: IpsecHost
let b: IpsecHost

async function pings(destination: string, count: number): Promise<number> {
  const options = { netns: a.container.path, destination: parseIp(destination), interval: 100, timeout: 1000 }
  return (await ping({ ...options, count })).replies.length
}

const reaches = async (): Promise<boolean> => (await pings('10.10.11.2', 1)) === 1

/** What goes over the wire while work is done, as host A has it on its interface. */
async function seen(work: () => Promise<unknown>): Promise<string> {
  const words = [`--net=${a.host.path}`, 'tcpdump', '--immediate-mode', '-lni', 'eth0', 'ip']
  const dump = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'pipe'] })
  const lines = text(dump.stdout)
  await new Promise((resolve) => dump.stderr.once('data', resolve))
  try {
    await work()
    await sleep(1000)
  } finally {
    dump.kill('SIGTERM')
  }
  return lines
}

describe('ipsec', { timeout: 900_000 }, () => {
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tweed-ipsec-'))
    const [first, second] = await Host.createPair(['192.168.1.10', 'fd00::10'], ['192.168.1.11', 'fd00::11'])
    a = new IpsecHost(10, first, await Host.create('10.10.10.2'), join(folder, 'a'))
    b = new IpsecHost(11, second, await Host.create('10.10.11.2'), join(folder, 'b'))
    for (const one of [a, b]) await one.connect()
    // From a disk that is another machine's: else charon takes longer to start than it is waited for.
    const files = '/usr/lib/ipsec/charon /usr/lib/ipsec/*.so* /usr/lib/ipsec/plugins/*.so'
    await promisify(execFile)('sh', ['-c', `cat ${files} >/dev/null`])
    await Promise.all([a.start([lease(11)]), b.start([lease(10)])])
  })

  after(async () => {
    for (const one of [a, b]) {
      await one.stop(false)
      await until('ended', async () => Number.isNaN(await one.charonPid().catch(() => Number.NaN)))
      for (const namespace of [one.host, one.container]) await namespace[Symbol.asyncDispose]()
    }
    await rm(folder, { recursive: true })
  })

  test('packets go from container to container, and are seen on the wire as ESP alone', async () => {
    await until('connected', reaches)
    const lines = await seen(async () => assert.equal(await pings('10.10.11.2', 5), 5))
    assert.ok((lines.match(/192\.168\.1\.10 > 192\.168\.1\.11: ESP\(spi=/g) ?? []).length >= 5, lines)
    // What comes in is captured once more when it is decrypted; nothing goes out like that.
    assert.doesNotMatch(lines, /10\.10\.10\.2 > 10\.10\.11\.2/)
    assert.deepEqual([a.failures, b.failures], [[], []])
    for (const dir of ['out', 'in', 'fwd'])
      assert.match(await a.policies(), new RegExp(`dir ${dir} priority`))
  })

  test('the tunnel outlives the agent, and the next agent finds it', async () => {
    const pid = await a.charonPid()
    const state = await a.host.ip('xfrm state')
    await a.stop(true)
    assert.equal(await pings('10.10.11.2', 3), 3)
    await a.start([lease(11)])
    assert.equal(await pings('10.10.11.2', 3), 3)
    assert.equal(await a.charonPid(), pid)
    const now = await a.host.ip('xfrm state')
    // Zero is that of a packet which waits for a tunnel.
    const spis = state.match(/spi 0x(?!0+ )\w+/g) ?? []
    assert.ok(spis.length >= 2)
    for (const spi of spis) assert.ok(now.includes(spi), `${spi} in ${now}`)
  })

  test('a peer that cannot be reached gets nothing in the clear; one that leaves leaves nothing', async () => {
    // Somebody on the wire would take the packets.
    await a.host.ip('route add 10.10.60.0/24 dev eth0')
    await a.host.ip('neigh add 10.10.60.2 lladdr 02:00:00:00:00:60 dev eth0')
    a.exchange([], [lease(60)])
    await until('told', async () => /dst 10\.10\.60\.0\/24/.test(await a.policies()))
    assert.doesNotMatch(await seen(() => pings('10.10.60.2', 3)), /> 10\.10\.60\.2/)
    a.exchange([lease(60)], [])
    await until('rid of it', async () => !/10\.10\.60\./.test(await a.policies()))
    assert.match(await seen(() => pings('10.10.60.2', 3)), /> 10\.10\.60\.2/)
    assert.ok(await reaches())
  })

  test('a peer that left while no agent ran is forgotten at the start', async () => {
    a.exchange([], [lease(61)])
    await until('told', async () => /dst 10\.10\.61\.0\/24/.test(await a.policies()))
    await a.stop(true)
    assert.match(await a.policies(), /dst 10\.10\.61\.0\/24/)
    await a.start([lease(11)])
    await until('rid of it', async () => !/10\.10\.61\./.test(await a.policies()))
    assert.ok(await reaches())
  })

  test('a charon that dies is started again, and told all of it again', async () => {
    const pid = await a.charonPid()
    process.kill(pid, 'SIGKILL')
    await until('another', async () => (await a.charonPid().catch(() => pid)) !== pid)
    await until('connected', reaches)
    assert.deepEqual(a.failures, [])
  })

  test('with UDPEncap it is ESP in UDP', async () => {
    for (const one of [a, b]) await one.stop(false)
    for (const one of [a, b]) assert.doesNotMatch(await one.policies(), /10\.10\./)
    await Promise.all([a.start([lease(11)], { UDPEncap: true }), b.start([lease(10)], { UDPEncap: true })])
    await until('connected', reaches)
    const lines = await seen(reaches)
    assert.match(lines, /192\.168\.1\.10\.4500 > 192\.168\.1\.11\.4500: UDP-encap: ESP\(spi=/)
    assert.doesNotMatch(lines, /192\.168\.1\.11: ESP\(spi=/)
  })

  test('policies that flannel left are taken over', async () => {
    for (const one of [a, b]) await one.stop(false)
    const [from, to] = ['192.168.1.10', '192.168.1.11']
    const selector = 'xfrm policy add src 10.10.10.0/24 dst 10.10.11.0/24 dir out'
    await a.host.ip(`${selector} tmpl src ${from} dst ${to} proto esp reqid 11 mode tunnel`)
    await Promise.all([a.start([lease(11)]), b.start([lease(10)])])
    await until('connected', reaches)
    assert.doesNotMatch(await a.policies(), /reqid 11 /)
  })

  test('a host with what flannel gives charon and the kernel is a peer like any other', async () => {
    for (const one of [a, b]) await one.stop(false)
    await a.start([lease(11)])
    await b.start([])
    const flannel = await b.vici()
    const [local, remote] = ['192.168.1.11', '192.168.1.10']
    const [ours, theirs] = ['10.10.11.0/24', '10.10.10.0/24']
    const child = {
      local_ts: [ours],
      remote_ts: [theirs],
      esp_proposals: ['aes128gcm16-sha256-prfsha256-ecp256'],
      start_action: 'start',
      close_action: 'trap',
      dpd_action: 'restart',
      mode: 'tunnel',
      reqid: '11',
      rekey_time: '1h',
      policies: 'no',
    }
    const connection = {
      version: '2',
      local_addrs: [local],
      remote_addrs: [remote],
      proposals: ['aes256-sha256-modp4096'],
      keyingtries: '0',
      encap: 'no',
      local: { auth: 'psk' },
      remote: { auth: 'psk' },
      children: { [`${ours}-${theirs}`]: child },
    }
    for (const owner of [local, remote])
      await flannel.request('load-shared', { type: 'IKE', data: PSK, owners: [owner] })
    await flannel.request('load-conn', { [`${local}-${ours}-${theirs}-${remote}`]: connection })
    for (const [src, dst, dir, ends] of [
      [ours, theirs, 'out', `src ${local} dst ${remote}`],
      [theirs, ours, 'in', `src ${remote} dst ${local}`],
      [theirs, ours, 'fwd', `src ${remote} dst ${local}`],
    ] as const) {
      const tunnel = `tmpl ${ends} proto esp reqid 11 mode tunnel`
      await b.host.ip(`xfrm policy add src ${src} dst ${dst} dir ${dir} ${tunnel}`)
    }
    await b.host.ip(`route add ${theirs} dev eth0`)
    await until('connected', reaches)
    assert.equal(await pings('10.10.11.2', 5), 5)
    flannel.close()
  })
})
