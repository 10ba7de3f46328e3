/**
 * The kernel state that tweed speaks of: what a plan desires, what the mirror has read, what a diff compares.
 *
 * Both sides are one map from key to entry. The key is the kernel's own identity of the object, so "changed" and
 * "another one" are never confused: a new MAC on the same IP is a change of one neighbour, not a delete and an add.
 */

import type { Family, Ip, PerFamily } from './address/ip.ts'
import type { Secret, WireguardKey } from './address/key.ts'
import type { Mac } from './address/mac.ts'
import type { Prefix } from './address/prefix.ts'

/** The routing protocol number of our routes and nexthops (rtnetlink.h, RTPROT_*; 84 is nobody else's). */
export const PROTOCOL = 84

/** RT_TABLE_MAIN */
export const MAIN_TABLE = 254

/** The metric of a route for which none is said. The kernel takes 0 for IPv6 as this one. */
export const DEFAULT_METRIC: Readonly<Record<Family, number>> = { inet: 0, inet6: 1024 }

/** What is particular to one kind of link. */
export type Tunnel = Vxlan | Ipip | Wireguard

/** Booleans and numbers are the kernel's IFLA_VXLAN_* attributes. */
export interface Vxlan {
  readonly type: 'vxlan'
  readonly vni: number
  /** UDP destination port. */
  readonly port: number
  /** Outer source address. */
  readonly local: Ip
  /** Index of the external interface that carries the outer packets. */
  readonly lower: number
  /** Multicast group for unknown destinations; undefined: none are sent anywhere. */
  readonly group: Ip | undefined
  readonly learning: boolean
  /** Whether the kernel tells of a MAC that has no FDB entry. */
  readonly l2Miss: boolean
  /** Group Based Policy extension. */
  readonly gbp: boolean
}

/** IP in IP, both of them IPv4. */
export interface Ipip {
  readonly type: 'ipip'
  /** Outer source address. */
  readonly local: Ip
  /** Undefined: any, each packet goes to the gateway of its route. */
  readonly remote: Ip | undefined
}

/** A WireGuard device. Whether the kernel has it or a process (wireguard-go, whose link is a TUN) makes no difference. */
export interface Wireguard {
  readonly type: 'wireguard'
  /** Undefined before the device has a private key. */
  readonly publicKey: WireguardKey | undefined
  /** What gives it that public key. Undefined on one that was read: the public key says as much. */
  readonly privateKey: Secret | undefined
  /** UDP. */
  readonly listenPort: number
}

export interface Link {
  readonly kind: 'link'
  readonly name: string
  /** Undefined for a link that is not Ethernet. */
  readonly mac: Mac | undefined
  readonly mtu: number
  readonly up: boolean
  /**
   * `net.ipv4.neigh.<name>.app_solicit`, and the same for IPv6: how many L3 misses the kernel tells for one address
   * before it gives up. A family for which nothing is desired is left as it is.
   */
  readonly appProbes: PerFamily<number>
  /** Whether the link computes the checksums of what it sends. Undefined where nothing is desired, and not looked at. */
  readonly txChecksum?: boolean | undefined
  /** Undefined for a link that has our name and is of none of these kinds. */
  readonly tunnel: Tunnel | undefined
}

export interface Address {
  readonly kind: 'address'
  readonly link: string
  readonly ip: Ip
  readonly length: number
}

/** A nexthop object (`ip nexthop`, Linux 5.3): one for each remote host, so that routes do not each carry a gateway. */
export interface Nexthop {
  readonly kind: 'nexthop'
  readonly id: number
  readonly link: string
  readonly gateway: Ip
}

/**
 * A route through one of our links: through a gateway that is "onlink", or without one (the whole network in
 * L3-miss mode). Or one through the underlay, to a gateway on it. Or one that leads nowhere, a blackhole. `nexthop` is the id of the nexthop object that carries it, where the kernel has such objects;
 * plans never name one, `kernel/nexthops.ts` does.
 */
export interface Route {
  readonly kind: 'route'
  readonly destination: Prefix
  readonly table: number
  readonly metric: number
  /** Undefined: a blackhole. */
  readonly link: string | undefined
  readonly gateway: Ip | undefined
  readonly nexthop: number | undefined
  /** RTPROT_*: `PROTOCOL` on ours; flanneld's are RTPROT_BOOT. */
  readonly protocol: number
}

/** What the neighbour says of itself: set for good, being resolved (an L3 miss), or any other state of the kernel's. */
export type NeighbourState = 'permanent' | 'incomplete' | 'failed' | 'other'

/** Inner IP → inner MAC. */
export interface Neighbour {
  readonly kind: 'neighbour'
  readonly link: string
  readonly ip: Ip
  /** Undefined while the kernel resolves it. */
  readonly mac: Mac | undefined
  readonly state: NeighbourState
}

/** Inner MAC → outer IP. Only permanent entries: what the kernel learned by itself is not ours. */
export interface FdbEntry {
  readonly kind: 'fdb'
  readonly link: string
  readonly mac: Mac
  /** Undefined: an L2 miss, of which the kernel keeps no entry. */
  readonly destination: Ip | undefined
}

/** A peer of a WireGuard device. Of one device no two peers have the same allowed IP: who is given it takes it away. */
export interface Peer {
  readonly kind: 'peer'
  readonly link: string
  readonly publicKey: WireguardKey
  readonly presharedKey: Secret | undefined
  /** Where its datagrams go, until the peer is heard from elsewhere; undefined: not known. */
  readonly endpoint: Ip | undefined
  /** UDP, of the endpoint. */
  readonly port: number | undefined
  /** Seconds between two packets that keep the way open through NAT; 0: none. */
  readonly keepalive: number
  /** What is sent to it and taken from it. Sorted. */
  readonly allowedIps: readonly Prefix[]
}

export type Entry = Link | Address | Nexthop | Route | Neighbour | FdbEntry | Peer
export type Kind = Entry['kind']

declare const keyBrand: unique symbol
export type Key = string & { readonly [keyBrand]: true }

export type KernelState = ReadonlyMap<Key, Entry>

/** The kernel's identity of an entry. */
export function keyOf(entry: Entry): Key {
  switch (entry.kind) {
    case 'link':
      return join('link', entry.name)
    case 'address':
      return join('address', entry.link, `${entry.ip}/${entry.length}`)
    case 'nexthop':
      return join('nexthop', entry.id)
    case 'route':
      return join('route', entry.table, entry.destination, entry.metric)
    case 'neighbour':
      return join('neighbour', entry.link, entry.ip)
    case 'fdb':
      return fdbKey(entry.link, entry.mac)
    case 'peer':
      return join('peer', entry.link, entry.publicKey)
    default:
      return entry satisfies never
  }
}

export function fdbKey(link: string, mac: Mac): Key {
  return join('fdb', link, mac)
}

/** Joined, because what is put together with + or in a template is kept in its parts. */
function join(...parts: readonly (string | number)[]): Key {
  return parts.join(' ') as Key
}

/** Who holds an address on demand: an L3 miss for an address in `subnet` on `link` is answered with `mac`. */
export interface Answer {
  readonly link: string
  readonly subnet: Prefix
  readonly mac: Mac
  /** Where that MAC is reached, on a link whose FDB entries are on demand too; undefined on any other. */
  readonly destination: Ip | undefined
}

/**
 * A part of a plan that comes and goes as one: what our own lease needs, or what one peer's lease needs. The whole
 * desired state is the union of its shares, so that one lease event costs one share and not the network.
 */
export interface Share {
  readonly entries: readonly Entry[]
  readonly answers: readonly Answer[]
}

/** Where a plan is at home: what lies there and is not desired is ours to remove. */
export interface Scope {
  readonly links: ReadonlySet<string>
  /** Links whose neighbours are answered on demand. A subset of `links`. */
  readonly onDemand: ReadonlySet<string>
  /** Links whose FDB entries are answered on demand too. A subset of `onDemand`. */
  readonly fdbOnDemand: ReadonlySet<string>
  /** Links that are WireGuard devices, whose peers are ours. A subset of `links`; undefined: none. */
  readonly wireguard?: ReadonlySet<string>
  /**
   * The external interface, which is not ours: only routes to our networks are, with our protocol number. Undefined where
   * a plan has none.
   */
  readonly underlay: string | undefined
  readonly networks: readonly Prefix[]
  /** Whether `txChecksum` of our links is looked at. */
  readonly checksums?: boolean
}

/** One step from the actual state to the desired one. */
export interface Operation {
  readonly verb: 'add' | 'change' | 'delete'
  /** As it shall be; for `delete`, as it is. */
  readonly entry: Entry
  /** For `change`: as it is. */
  readonly actual?: Entry
  /** A removal without which the additions of the same turn would fail. */
  readonly first?: boolean
  /** What differed, for the log: `mtu 1400, not 1450`. */
  readonly why: string
}

export interface Failure {
  readonly operation: Operation
  readonly error: Error
}

/** What one turn of the reconciler did. */
export interface Report {
  /** Operations that were applied, the failed ones included. */
  readonly operations: readonly Operation[]
  readonly failures: readonly Failure[]
  /** Of the operations, those that put back what somebody else had changed. */
  readonly repaired: readonly Operation[]
  /** L3 misses; refused are those for addresses outside every lease. */
  readonly misses: { readonly answered: number; readonly refused: number }
  /** Why the kernel could not be read; the turn is then taken again. */
  readonly error: Error | undefined
  /** Milliseconds. */
  readonly duration: number
}
