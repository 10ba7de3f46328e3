/** A vxlan network of many peers, in each family, for tests that reconcile against a real kernel. */

import { type Family, type Ip, type PerFamily, parseIp } from '../../src/address/ip.ts'
import { parseMac } from '../../src/address/mac.ts'
import { type Prefix, parsePrefix } from '../../src/address/prefix.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { openBackend } from '../../src/backend/table.ts'
import { parseNetworkConfig } from '../../src/config/network-config.ts'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { formatLeaseKey, type Lease } from '../../src/lease/lease.ts'
import { Host, type Row } from './namespace.ts'

export const OWN_MAC = parseMac('02:00:00:00:00:0a')

/** The host has both families; each network has one of them. */
export const ADDRESSES = { inet: '192.168.1.10', inet6: 'fd00::10' } as const

export async function createHost(): Promise<Host> {
  return await Host.create(ADDRESSES.inet, ADDRESSES.inet6)
}

export function peerMac(n: number): string {
  return `02:00:00:00:01:${n.toString(16).padStart(2, '0')}`
}

/** What the network is like in its family. */
const SHAPES = {
  inet: {
    network: '10.10.0.0/16',
    settings: { Network: '10.10.0.0/16' },
    link: 'flannel.1',
    mtu: 1450,
    flag: '-4',
    bits: 32,
    length: 24,
    subnet: (n: number) => `10.10.${n}.0`,
    host: (n: number) => `192.168.1.${n % 256}`,
    at: (n: number, i: number) => `10.10.${n}.${i}`,
  },
  inet6: {
    network: 'fd10::/48',
    settings: { EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd10::/48' },
    link: 'flannel-v6.1',
    mtu: 1430,
    flag: '-6',
    bits: 128,
    length: 64,
    subnet: (n: number) => `fd10:0:0:${n.toString(16)}::`,
    host: (n: number) => `fd00::${(n % 256).toString(16)}`,
    at: (n: number, i: number) => `fd10:0:0:${n.toString(16)}::${i.toString(16)}`,
  },
} as const satisfies Record<Family, unknown>

/** The network in one family: the peer with the number n has the subnet n and the public IP n, and we are 10. */
export class Overlay {
  readonly family: Family
  readonly link: string
  readonly network: Prefix
  readonly mtu: number
  /** For `ip`. */
  readonly flag: string
  /** Of an address. */
  readonly bits: number
  readonly self: Lease
  readonly #shape: (typeof SHAPES)[Family]

  constructor(family: Family) {
    this.family = family
    this.#shape = SHAPES[family]
    this.link = this.#shape.link
    this.network = parsePrefix(this.#shape.network)
    this.mtu = this.#shape.mtu
    this.flag = this.#shape.flag
    this.bits = this.#shape.bits
    this.self = this.lease(10, OWN_MAC)
  }

  /** The first address of the subnet, and the gateway to it. */
  base(n: number): string {
    return this.#shape.subnet(n)
  }

  subnet(n: number): Prefix {
    return parsePrefix(`${this.base(n)}/${this.#shape.length}`)
  }

  /** The base as the address of a VTEP: with the length of a host. */
  vtep(n: number): string {
    return `${this.base(n)}/${this.bits}`
  }

  /** The address with the number i in the subnet. */
  address(n: number, i: number): string {
    return this.#shape.at(n, i)
  }

  /** Where the host with the number n is reached. */
  publicIp(n: number): string {
    return this.#shape.host(n)
  }

  lease(n: number, mac = peerMac(n), publicIp = this.publicIp(n), subnet = this.subnet(n)): Lease {
    const subnets = this.#only(subnet)
    return {
      key: formatLeaseKey(subnets),
      subnets,
      publicIps: this.#only(parseIp(publicIp)),
      backendType: 'vxlan',
      backendData: this.#only({ VNI: 1, VtepMAC: mac }),
      expires: undefined,
      created: n,
    }
  }

  /** @param number Of the host: 10, or that of a peer which is a host of its own. */
  async backend(host: Host, settings: object = {}, number = 10): Promise<Backend> {
    const Backend = { Type: 'vxlan', ...settings }
    const config = parseNetworkConfig(JSON.stringify({ ...this.#shape.settings, Backend }))
    const index = await host.index('eth0')
    const addresses: PerFamily<Ip> = {
      inet: parseIp(`192.168.1.${number}`),
      inet6: parseIp(number === 10 ? ADDRESSES.inet6 : SHAPES.inet6.host(number)),
    }
    return await openBackend(config, {
      external: { name: 'eth0', index, mtu: 1500, addresses },
      publicIps: addresses,
      links: new Map([
        [
          this.link,
          {
            mac: number === 10 ? OWN_MAC : parseMac(peerMac(number)),
            addresses: [parseIp(this.base(number))],
          },
        ],
        ['flannel.ipip', { mac: undefined, addresses: [parseIp(this.base(number))] }],
      ]),
      underlay: [
        { prefix: parsePrefix('192.168.1.0/24'), direct: true },
        { prefix: parsePrefix('fd00::/64'), direct: true },
        { prefix: parsePrefix('0.0.0.0/0'), direct: false },
        { prefix: parsePrefix('::/0'), direct: false },
      ],
    })
  }

  /** A reconciler whose plan is our own share and that of the peers. */
  async reconciler(
    host: Host,
    backend: Backend,
    peers: readonly Lease[],
    nexthopObjects?: boolean,
  ): Promise<Reconciler> {
    const reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path, nexthopObjects })
    reconciler.exchange([], [backend.own(this.self), ...peers.map((peer) => backend.peer(peer))])
    return reconciler
  }

  /** The routes through the link, without those that the kernel makes for its addresses. */
  async routes(host: Host): Promise<Row[]> {
    const rows = await host.list(`${this.flag} route show dev ${this.link}`)
    return rows.filter(({ protocol }) => protocol !== 'kernel')
  }

  #only<T>(value: T): PerFamily<T> {
    return { [this.family]: value }
  }
}
