/** Routes: `struct rtmsg` and RTA_* (linux/rtnetlink.h). */

import { type Ip, familyBits, ipFamily } from '../address/ip.ts'
import { type Attribute, type Mutable, POOL, Reader } from './attribute.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { AF_INET, AF_INET6, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE } from './rtnetlink.ts'

export const RT_TABLE_UNSPEC = 0
export const RT_TABLE_MAIN = 254
export const RT_TABLE_LOCAL = 255

export const RTN_UNSPEC = 0
export const RTN_UNICAST = 1
export const RTN_LOCAL = 2
export const RTN_BROADCAST = 3
export const RTN_ANYCAST = 4
export const RTN_MULTICAST = 5
export const RTN_BLACKHOLE = 6
export const RTN_UNREACHABLE = 7
export const RTN_PROHIBIT = 8
export const RTN_THROW = 9

export const RTPROT_UNSPEC = 0
export const RTPROT_KERNEL = 2
export const RTPROT_BOOT = 3
export const RTPROT_STATIC = 4

export const RT_SCOPE_UNIVERSE = 0
export const RT_SCOPE_LINK = 253
export const RT_SCOPE_HOST = 254
export const RT_SCOPE_NOWHERE = 255

/** The gateway is on the link, whatever the link's addresses say. */
export const RTNH_F_DEAD = 0x01
export const RTNH_F_ONLINK = 0x04
export const RTNH_F_LINKDOWN = 0x10

const RTA_DST = 1
const RTA_SRC = 2
const RTA_IIF = 3
const RTA_OIF = 4
const RTA_GATEWAY = 5
const RTA_PRIORITY = 6
const RTA_PREFSRC = 7
const RTA_TABLE = 15
/** A gateway of another family than the route. */
export const RTA_VIA = 18
const RTA_NH_ID = 30

const RTMSG = 12

export interface Route {
  readonly family: number
  /** Bits of `destination`; 0, and no `destination`, for a default route. */
  readonly destinationLength: number
  readonly sourceLength: number
  readonly tos: number
  /** The 32 bits of RTA_TABLE where the route has it; the 8 of the header cannot name every table. */
  readonly table: number
  /** RTPROT_* */
  readonly protocol: number
  /** RT_SCOPE_* */
  readonly scope: number
  /** RTN_* */
  readonly type: number
  /** RTM_F_* and RTNH_F_* */
  readonly flags: number
  readonly destination?: Ip | undefined
  readonly source?: Ip | undefined
  readonly gateway?: Ip | undefined
  readonly preferredSource?: Ip | undefined
  /** Index of the incoming link. */
  readonly iif?: number | undefined
  /** Index of the outgoing link. */
  readonly oif?: number | undefined
  /** The metric; absent is 0 for IPv4 and, in a request, 1024 for IPv6. */
  readonly priority?: number | undefined
  /**
   * Id of the nexthop object. The kernel also tells that object's gateway and link; a request that names it must
   * name neither.
   */
  readonly nexthop?: number | undefined
  /** RTA_MULTIPATH, RTA_VIA, RTA_METRICS, RTA_ENCAP … */
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeRoute(payload: Uint8Array): Route {
  const reader = new Reader(payload, RTMSG)
  const unknown: Attribute[] = []
  const route: Mutable<Route> = {
    family: reader.u8(0),
    destinationLength: reader.u8(1),
    sourceLength: reader.u8(2),
    tos: reader.u8(3),
    table: reader.u8(4),
    protocol: reader.u8(5),
    scope: reader.u8(6),
    type: reader.u8(7),
    flags: reader.u32(8),
    unknown,
  }
  while (reader.next()) {
    if (!decodeAttribute(reader, route)) unknown.push(reader.attribute())
  }
  return route
}

/** RTPROT_* of a route, without reading the rest. @throws {DecodeError} */
export function decodeRouteProtocol(payload: Uint8Array): number {
  return new Reader(payload, RTMSG).u8(5)
}

function decodeAttribute(reader: Reader, route: Mutable<Route>): boolean {
  // Addresses of other families (MPLS labels) have other lengths.
  if (route.family !== AF_INET && route.family !== AF_INET6) return false
  switch (reader.type) {
    case RTA_DST:
      route.destination = reader.ip()
      return true
    case RTA_SRC:
      route.source = reader.ip()
      return true
    case RTA_IIF:
      route.iif = reader.u32()
      return true
    case RTA_OIF:
      route.oif = reader.u32()
      return true
    case RTA_GATEWAY:
      route.gateway = reader.ip()
      return true
    case RTA_PRIORITY:
      route.priority = reader.u32()
      return true
    case RTA_PREFSRC:
      route.preferredSource = reader.ip()
      return true
    case RTA_TABLE:
      route.table = reader.u32()
      return true
    case RTA_NH_ID:
      route.nexthop = reader.u32()
      return true
    default:
      return false
  }
}

export function encodeRoute(route: Partial<Route>, writer = POOL): Uint8Array {
  const { table = RT_TABLE_UNSPEC } = route
  writer.start(RTMSG)
  writer.u8(0, route.family ?? 0)
  writer.u8(1, route.destinationLength ?? 0)
  writer.u8(2, route.sourceLength ?? 0)
  writer.u8(3, route.tos ?? 0)
  writer.u8(4, table < 256 ? table : RT_TABLE_UNSPEC)
  writer.u8(5, route.protocol ?? 0)
  writer.u8(6, route.scope ?? 0)
  writer.u8(7, route.type ?? 0)
  writer.u32(8, route.flags ?? 0)
  writer.putIp(RTA_DST, route.destination)
  writer.putIp(RTA_SRC, route.source)
  writer.putIp(RTA_GATEWAY, route.gateway)
  writer.putIp(RTA_PREFSRC, route.preferredSource)
  writer.putU32(RTA_IIF, route.iif)
  writer.putU32(RTA_OIF, route.oif)
  writer.putU32(RTA_PRIORITY, route.priority)
  writer.putU32(RTA_NH_ID, route.nexthop)
  writer.putU32(RTA_TABLE, table < 256 ? undefined : table)
  writer.putAll(route.unknown)
  return writer.finish()
}

/** @param flags NLM_F_CREATE | NLM_F_REPLACE … */
export function newRoute(route: Partial<Route>, flags: number): Request {
  return { type: RTM_NEWROUTE, flags: NLM_F_REQUEST | flags, payload: encodeRoute(route) }
}

/** Deletes the first route that has all that is said; scope RT_SCOPE_NOWHERE and absent attributes match any. */
export function deleteRoute(route: Partial<Route>): Request {
  return { type: RTM_DELROUTE, flags: NLM_F_REQUEST, payload: encodeRoute(route) }
}

/** What may narrow a dump of routes with strict checking (Linux 4.20); without it, the kernel gives all. */
export interface RouteFilter {
  /** A table that does not exist is ENOENT. */
  readonly table?: number
  readonly oif?: number
  readonly protocol?: number
  /** RTN_* */
  readonly type?: number
}

/** @param family AF_INET, AF_INET6. */
export function getRoutes(family: number, filter: RouteFilter = {}): Request {
  const payload = encodeRoute({ family, ...filter })
  return { type: RTM_GETROUTE, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
}

/** The route that a packet of this host to `destination` takes (`ip route get`). */
export function getRoute(destination: Ip): Request {
  const family = ipFamily(destination) === 'inet' ? AF_INET : AF_INET6
  const destinationLength = familyBits(ipFamily(destination))
  const payload = encodeRoute({ family, destination, destinationLength })
  return { type: RTM_GETROUTE, flags: NLM_F_REQUEST, payload }
}
