/** The wireguard backend on two hosts, with `wg`, `ip` and packets as the judges: the same for each maker of devices. */

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { parseIp } from '../src/address/ip.ts'
import { formatKey, publicKeyOf, Secret, type WireguardKey } from '../src/address/key.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import type { Backend } from '../src/backend/backend.ts'
import { wireguard } from '../src/backend/wireguard.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'
import { Reconciler } from '../src/kernel/reconcile.ts'
import type { WireguardOptions } from '../src/kernel/wireguard.ts'
import { type PingResult, ping } from '../src/lab/ping.ts'
import { formatLeaseKey, type Lease } from '../src/lease/lease.ts'
import { Host } from './kernel/namespace.ts'

const run = promisify(execFile)

export const LINK = 'flannel-wg'
export const LINK_V6 = 'flannel-wg-v6'

/** Who makes the devices. */
export type Maker = 'kernel' | 'wireguard-go'

/** Each number is a host: its key, subnet and public IP. */
export function privateKey(n: number): WireguardKey {
  return formatKey(Buffer.alloc(32, n))
}

export function publicKey(n: number): WireguardKey {
  return publicKeyOf(privateKey(n))
}

export interface LeaseChange {
  /** The number whose key the host has. */
  readonly key?: number
  readonly publicIp?: string
  readonly port?: number
}

export function lease(
  n: number,
  { key = n, publicIp = `192.168.1.${n}`, port = 51820 }: LeaseChange = {},
): Lease {
  const subnets = { inet: parsePrefix(`10.10.${n}.0/24`), inet6: parsePrefix(`fd10:0:0:${n}::/64`) }
  return {
    key: formatLeaseKey(subnets),
    subnets,
    publicIps: { inet: parseIp(publicIp), inet6: parseIp(`fd00::${n}`) },
    backendType: 'wireguard',
    backendData: {
      inet: { PublicKey: publicKey(key), Port: port },
      inet6: { PublicKey: publicKey(key), Port: port + 1 },
    },
    expires: undefined,
    created: n,
  }
}

export class WireguardHost implements AsyncDisposable {
  readonly host: Host
  readonly number: number
  readonly #maker: Maker
  /** Its own /run/wireguard, where two hosts may have a socket of the same name. */
  readonly #mounts: number | undefined
  readonly #stop: () => Promise<void>

  private constructor(
    host: Host,
    number: number,
    maker: Maker,
    mounts: number | undefined,
    stop: () => Promise<void>,
  ) {
    this.host = host
    this.number = number
    this.#maker = maker
    this.#mounts = mounts
    this.#stop = stop
  }

  static async create(number: number, maker: Maker): Promise<WireguardHost> {
    const host = await Host.create(`192.168.1.${number}`, `fd00::${number}`)
    if (maker === 'kernel') return new WireguardHost(host, number, maker, undefined, async () => undefined)
    // Namespaces that are made later would not be seen in it.
    const script =
      'mkdir -p /run/wireguard && mount -t tmpfs wg /run/wireguard && echo ready && exec sleep infinity'
    const holder = spawn('unshare', ['--mount', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(holder.stdout, 'data')
    return new WireguardHost(host, number, maker, holder.pid, async () => {
      const ended = once(holder, 'exit')
      holder.kill()
      await ended
    })
  }

  /** Two hosts on one wire. */
  static async pair(maker: Maker): Promise<[WireguardHost, WireguardHost]> {
    const [a, b] = [await WireguardHost.create(10, maker), await WireguardHost.create(11, maker)]
    await b.host.ip('link del eth0')
    await a.host.ip(`link set wire netns ${b.host.name}`)
    await b.host.ip('link set wire name eth0')
    await b.host.ip('addr add 192.168.1.11/24 dev eth0')
    await b.host.ip('addr add fd00::11/64 dev eth0 nodad')
    await b.host.ip('link set eth0 up')
    return [a, b]
  }

  /** What a plan of this host is applied with. */
  get options(): WireguardOptions {
    if (this.#mounts === undefined) return {}
    const folder = `/proc/${this.#mounts}/root/run/wireguard`
    return { folder, prefix: this.#prefix }
  }

  get #prefix(): string[] {
    return this.#mounts === undefined ? [] : ['nsenter', `--mount=/proc/${this.#mounts}/ns/mnt`]
  }

  async backend(settings: object = {}, key = this.number, network: object = {}): Promise<Backend> {
    const Backend = { Type: 'wireguard', ...settings }
    const config = parseNetworkConfig(
      JSON.stringify({
        Network: '10.10.0.0/16',
        EnableIPv6: true,
        IPv6Network: 'fd10::/48',
        ...network,
        Backend,
      }),
    )
    const addresses = { inet: parseIp(`192.168.1.${this.number}`), inet6: parseIp(`fd00::${this.number}`) }
    const index = await this.host.index('eth0')
    return wireguard(
      config,
      {
        external: { name: 'eth0', index, mtu: 1500, addresses },
        publicIps: addresses,
        links: new Map(
          [LINK, LINK_V6].map((name) => [
            name,
            { mac: undefined, addresses: [parseIp(`10.10.${this.number}.0`)] },
          ]),
        ),
        underlay: [],
      },
      new Secret(privateKey(key)),
    )
  }

  /** As a started agent: a reconciler with our own share and those of the peers. @param interval 0: each turn looks at them. */
  async open(backend: Backend, peers: readonly Lease[], interval?: number): Promise<Reconciler> {
    const { scope } = backend
    const reconciler = await Reconciler.open({
      scope,
      netns: this.host.path,
      wireguard: { ...this.options, interval },
    })
    reconciler.exchange([], [backend.own(lease(this.number)), ...peers.map((peer) => backend.peer(peer))])
    return reconciler
  }

  /** Ends the processes that have the devices, by force, and waits until their links are gone. */
  async killProcesses(): Promise<void> {
    const own = (await this.host.exec('readlink', '/proc/self/ns/net')).trim()
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const [name, namespace] = await Promise.all([
        readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''),
        readlink(`/proc/${pid}/ns/net`).catch(() => ''),
      ])
      if (name.trim() === 'wireguard-go' && namespace === own) process.kill(Number(pid), 'SIGKILL')
    }
    while ((await this.host.ip('link show')).includes(LINK)) await sleep(20)
  }

  async wg(...args: string[]): Promise<string> {
    const [command = '', ...rest] = [...this.#prefix, 'nsenter', `--net=${this.host.path}`, 'wg', ...args]
    return (await run(command, rest)).stdout
  }

  /** The peers as `wg` says them: key, preshared key, endpoint, allowed IPs, keepalive. Sorted by key. */
  async peers(link = LINK): Promise<string[]> {
    const [, ...lines] = (await this.wg('show', link, 'dump')).trimEnd().split('\n')
    return lines
      .map((line) => line.split('\t'))
      .map(([key, psk, endpoint, allowed = '', , , , keepalive]) =>
        [key, psk, endpoint, allowed.split(',').toSorted().join(), keepalive].join(' '),
      )
      .toSorted()
  }

  /** A device as flanneld makes it, without an agent. */
  async makeByHand(peers: readonly Lease[]): Promise<void> {
    const { number } = this
    if (this.#maker === 'kernel') await this.host.ip(`link add ${LINK} mtu 1420 type wireguard`)
    else {
      const [command, ...rest] = [...this.#prefix, 'nsenter', `--net=${this.host.path}`, 'wireguard-go', LINK]
      await run(command, rest)
      await this.host.ip(`link set ${LINK} mtu 1420`)
    }
    await this.withKey(number, (file) => this.wg('set', LINK, 'private-key', file, 'listen-port', '51820'))
    for (const peer of peers) {
      const allowed = String(peer.subnets.inet)
      const endpoint = `${peer.publicIps.inet}:51820`
      await this.wg(
        'set',
        LINK,
        'peer',
        publicKey(peer.created),
        'endpoint',
        endpoint,
        'allowed-ips',
        allowed,
      )
    }
    await this.host.ip(`addr add 10.10.${number}.0/32 dev ${LINK}`)
    await this.host.ip(`link set ${LINK} up`)
    await this.host.ip(`route replace 10.10.0.0/16 dev ${LINK} scope link`)
  }

  /** Runs something that reads the key of a number from a file. */
  async withKey(n: number, work: (file: string) => Promise<unknown>): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'wg-'))
    try {
      const file = join(folder, 'key')
      await writeFile(file, privateKey(n), { mode: 0o600 })
      await work(file)
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  /** Echo requests from this host's address in the tunnel to that of the other, one every 5 ms, until the signal. */
  async ping(to: number, count = 3, signal?: AbortSignal): Promise<PingResult> {
    const destination = parseIp(`10.10.${to}.0`)
    const limit = signal === undefined ? { count } : { signal }
    return await ping({ netns: this.host.path, destination, interval: 5, timeout: 2000, ...limit })
  }

  /** Whether the other host answers over IPv6. */
  async reachesV6(to: number): Promise<boolean> {
    const [source, target] = [this.number, to].map((n) => `fd10:0:0:${n}::`)
    const said = await this.host
      .exec('busybox', 'ping', '-6', '-c', '1', '-W', '2', '-I', `${source}`, `${target}`)
      .catch(() => '')
    return / 1 packets received/.test(said)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A process would keep its namespace.
    for (const link of [LINK, LINK_V6]) await this.host.ip(`link del ${link}`).catch(() => undefined)
    await this.#stop()
    await this.host[Symbol.asyncDispose]()
  }
}

/** All is as desired, and a second turn finds nothing to do. */
export async function settle(reconciler: Reconciler): Promise<void> {
  assert.deepEqual((await reconciler.turn()).failures, [])
  assert.deepEqual((await reconciler.turn()).operations, [])
}
