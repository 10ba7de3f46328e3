/** From the codec's objects to the entries of a state. Indexes of links become names here and nowhere else. */

import { type Ip, isLinkLocal, isMulticast } from '../address/ip.ts'
import { isGroupMac } from '../address/mac.ts'
import { prefixOf } from '../address/prefix.ts'
import type { Address as AddressMessage } from '../netlink/address.ts'
import { IFF_UP, type Link as LinkMessage } from '../netlink/link.ts'
import {
  type Neighbour as NeighbourMessage,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_NOARP,
  NUD_PERMANENT,
} from '../netlink/neighbour.ts'
import type { Nexthop as NexthopMessage } from '../netlink/nexthop.ts'
import { type Route as RouteMessage, RTN_BLACKHOLE, RTN_UNICAST, RTPROT_KERNEL } from '../netlink/route.ts'
import { AF_BRIDGE, AF_INET6 } from '../netlink/rtnetlink.ts'
import {
  type Address,
  type FdbEntry,
  type Link,
  MAIN_TABLE,
  type Neighbour,
  type NeighbourState,
  type Nexthop,
  PROTOCOL,
  type Route,
  type Tunnel,
} from '../state.ts'

/** The name of one of our links; undefined for any other. */
export type NameOf = (index: number | undefined) => string | undefined

const ANY_IP = '0.0.0.0' as Ip

/** @param known What the message does not say. */
export function readLink(
  message: LinkMessage,
  { appProbes = {}, txChecksum }: Partial<Pick<Link, 'appProbes' | 'txChecksum'>>,
): Link | undefined {
  const { name, mac, mtu } = message
  if (name === undefined || mtu === undefined) return undefined
  return {
    kind: 'link',
    name,
    mac,
    mtu,
    up: (message.flags & IFF_UP) !== 0,
    appProbes,
    txChecksum,
    tunnel: readTunnel(message),
  }
}

function readTunnel({ vxlan, ipip }: LinkMessage): Tunnel | undefined {
  if (vxlan !== undefined) {
    return {
      type: 'vxlan',
      vni: vxlan.vni ?? 0,
      port: vxlan.port ?? 0,
      local: vxlan.local ?? ANY_IP,
      lower: vxlan.link ?? 0,
      group: vxlan.group,
      learning: vxlan.learning ?? false,
      l2Miss: vxlan.l2miss ?? false,
      gbp: vxlan.gbp ?? false,
    }
  }
  if (ipip !== undefined) {
    return {
      type: 'ipip',
      local: ipip.local ?? ANY_IP,
      remote: ipip.remote === ANY_IP ? undefined : ipip.remote,
    }
  }
  return undefined
}

/** Link-local addresses are the kernel's own. */
export function readAddress(message: AddressMessage, nameOf: NameOf): Address | undefined {
  const link = nameOf(message.ifindex)
  const ip = message.local ?? message.address
  if (link === undefined || ip === undefined || isLinkLocal(ip)) return undefined
  return { kind: 'address', link, ip, length: message.prefixLength }
}

/** Ours are those with our protocol number, on a link of ours: plain ones, not groups. */
export function readNexthop(message: NexthopMessage, nameOf: NameOf): Nexthop | undefined {
  const link = nameOf(message.oif)
  const { id, gateway, protocol } = message
  if (link === undefined || id === undefined || gateway === undefined || protocol !== PROTOCOL)
    return undefined
  return { kind: 'nexthop', id, link, gateway }
}

/**
 * Unicast routes of the main table through a link of ours, and blackholes with our protocol number. The kernel's own
 * (multicast, local) are none of them, nor those of IPv6 addresses, which every link has alike (fe80::/64).
 */
export function readRoute(
  message: RouteMessage,
  nameOf: NameOf,
  linkOf: (nexthop: number) => string | undefined,
): Route | undefined {
  const { destination, destinationLength, gateway, nexthop, protocol, table } = message
  if (message.family === AF_INET6 && protocol === RTPROT_KERNEL) return undefined
  const link = nameOf(message.oif) ?? (nexthop === undefined ? undefined : linkOf(nexthop))
  if (destination === undefined || table !== MAIN_TABLE || isMulticast(destination)) return undefined
  const isBlackhole = message.type === RTN_BLACKHOLE && protocol === PROTOCOL
  if (!isBlackhole && (link === undefined || message.type !== RTN_UNICAST)) return undefined
  return {
    kind: 'route',
    destination: prefixOf(destination, destinationLength),
    table,
    metric: message.priority ?? 0,
    // Those of IPv6 are the loopback's.
    link: isBlackhole ? undefined : link,
    gateway,
    nexthop,
    protocol,
  }
}

/**
 * NOARP neighbours are multicast and broadcast addresses, which the kernel resolves by itself. Link-local ones of IPv6
 * come from any host that looks for routers, and are no part of a network.
 */
export function readNeighbour(message: NeighbourMessage, nameOf: NameOf): Neighbour | undefined {
  const link = nameOf(message.ifindex)
  const { destination: ip, mac, state } = message
  if (link === undefined || ip === undefined || (state & NUD_NOARP) !== 0) return undefined
  if (message.family === AF_INET6 && (isLinkLocal(ip) || isMulticast(ip))) return undefined
  return { kind: 'neighbour', link, ip, mac, state: neighbourState(state) }
}

/** Only what was set for good: learned entries age by themselves. */
export function readFdb(message: NeighbourMessage, nameOf: NameOf): FdbEntry | undefined {
  const link = nameOf(message.ifindex)
  const { destination, mac, family, state } = message
  if (link === undefined || destination === undefined || mac === undefined) return undefined
  if (family !== AF_BRIDGE || (state & NUD_PERMANENT) === 0) return undefined
  return { kind: 'fdb', link, mac, destination }
}

/** An L2 miss: what the kernel floods (multicast, broadcast) is none. */
export function readL2Miss(message: NeighbourMessage, nameOf: NameOf): FdbEntry | undefined {
  const link = nameOf(message.ifindex)
  const { mac } = message
  if (link === undefined || mac === undefined || isGroupMac(mac)) return undefined
  return { kind: 'fdb', link, mac, destination: undefined }
}

function neighbourState(state: number): NeighbourState {
  if ((state & NUD_PERMANENT) !== 0) return 'permanent'
  if ((state & NUD_INCOMPLETE) !== 0) return 'incomplete'
  return (state & NUD_FAILED) !== 0 ? 'failed' : 'other'
}
