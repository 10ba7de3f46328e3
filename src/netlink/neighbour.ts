/**
 * Neighbours and FDB entries: `struct ndmsg` and NDA_* (linux/neighbour.h).
 *
 * One message, two tables. AF_INET and AF_INET6: IP → MAC. AF_BRIDGE, the FDB of a bridge or vxlan link: MAC → for
 * vxlan the outer IP, in the same NDA_DST.
 */

import type { Ip } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { type Attribute, type Mutable, POOL, Reader, type Writer } from './attribute.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { AF_BRIDGE, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from './rtnetlink.ts'

/** States; a set of bits. */
export const NUD_NONE = 0x00
export const NUD_INCOMPLETE = 0x01
export const NUD_REACHABLE = 0x02
export const NUD_STALE = 0x04
export const NUD_DELAY = 0x08
export const NUD_PROBE = 0x10
export const NUD_FAILED = 0x20
export const NUD_NOARP = 0x40
export const NUD_PERMANENT = 0x80

export const NTF_USE = 0x01
/** An FDB entry of the link itself (vxlan), not of its bridge (NTF_MASTER). */
export const NTF_SELF = 0x02
export const NTF_MASTER = 0x04
export const NTF_PROXY = 0x08
/** Set by a control plane: not aged, not garbage-collected. */
export const NTF_EXT_LEARNED = 0x10
export const NTF_OFFLOADED = 0x20
export const NTF_STICKY = 0x40
export const NTF_ROUTER = 0x80

/** In `flagsExtended`: the kernel keeps the entry REACHABLE by itself (Linux 5.16). */
export const NTF_EXT_MANAGED = 0x01

const NDA_DST = 1
const NDA_LLADDR = 2
const NDA_CACHEINFO = 3
const NDA_PROBES = 4
const NDA_VLAN = 5
const NDA_PORT = 6
const NDA_VNI = 7
const NDA_IFINDEX = 8
const NDA_MASTER = 9
const NDA_PROTOCOL = 12
const NDA_NH_ID = 13
const NDA_FLAGS_EXT = 15

const NDMSG = 12
const NDA_CACHEINFO_SIZE = 16

/** `struct nda_cacheinfo`: how long ago, in 1/100 s. */
export interface NeighbourCache {
  readonly confirmed: number
  readonly used: number
  readonly updated: number
  readonly references: number
}

export interface Neighbour {
  /** AF_INET, AF_INET6, AF_BRIDGE. */
  readonly family: number
  readonly ifindex: number
  /** NUD_* */
  readonly state: number
  /** NTF_* */
  readonly flags: number
  /** RTN_* of the address, set by the kernel. */
  readonly type: number
  /** The neighbour's IP; for AF_BRIDGE the outer IP, the remote VTEP. */
  readonly destination?: Ip | undefined
  /** Absent while the kernel resolves it. */
  readonly mac?: Mac | undefined
  readonly vlan?: number | undefined
  /** UDP port of the remote VTEP, where it differs from the link's. */
  readonly port?: number | undefined
  /** VNI of the remote VTEP, where it differs from the link's. */
  readonly vni?: number | undefined
  /** Link through which the remote VTEP is reached, where it differs from the link's. */
  readonly via?: number | undefined
  /** Index of the bridge. */
  readonly master?: number | undefined
  /** NTF_EXT_* */
  readonly flagsExtended?: number | undefined
  /** RTPROT_* of who made it; the kernel keeps it for AF_INET and AF_INET6. */
  readonly protocol?: number | undefined
  /** Id of an FDB nexthop group, in place of `destination`. */
  readonly nexthop?: number | undefined
  /** Probes sent without an answer. */
  readonly probes?: number | undefined
  readonly cache?: NeighbourCache | undefined
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeNeighbour(payload: Uint8Array): Neighbour {
  const reader = new Reader(payload, NDMSG)
  const unknown: Attribute[] = []
  const neighbour: Mutable<Neighbour> = {
    family: reader.u8(0),
    ifindex: reader.i32(4),
    state: reader.u16(8),
    flags: reader.u8(10),
    type: reader.u8(11),
    unknown,
  }
  while (reader.next()) {
    if (!decodeAttribute(reader, neighbour)) unknown.push(reader.attribute())
  }
  return neighbour
}

function decodeAttribute(reader: Reader, neighbour: Mutable<Neighbour>): boolean {
  switch (reader.type) {
    case NDA_DST:
      neighbour.destination = reader.ip()
      return true
    case NDA_LLADDR:
      // Tunnels that are not Ethernet (ipip, gre) have link-layer addresses of other lengths.
      if (reader.length !== 6) return false
      neighbour.mac = reader.mac()
      return true
    case NDA_CACHEINFO:
      neighbour.cache = {
        confirmed: reader.u32(0),
        used: reader.u32(4),
        updated: reader.u32(8),
        references: reader.u32(12),
      }
      return true
    case NDA_PROBES:
      neighbour.probes = reader.u32()
      return true
    case NDA_VLAN:
      neighbour.vlan = reader.u16()
      return true
    case NDA_PORT:
      neighbour.port = reader.u16BigEndian()
      return true
    case NDA_VNI:
      neighbour.vni = reader.u32()
      return true
    case NDA_IFINDEX:
      neighbour.via = reader.u32()
      return true
    case NDA_MASTER:
      neighbour.master = reader.u32()
      return true
    case NDA_PROTOCOL:
      neighbour.protocol = reader.u8()
      return true
    case NDA_NH_ID:
      neighbour.nexthop = reader.u32()
      return true
    case NDA_FLAGS_EXT:
      neighbour.flagsExtended = reader.u32()
      return true
    default:
      return false
  }
}

export function encodeNeighbour(neighbour: Partial<Neighbour>, writer = POOL): Uint8Array {
  writer.start(NDMSG)
  writer.u8(0, neighbour.family ?? 0)
  writer.u32(4, neighbour.ifindex ?? 0)
  writer.u16(8, neighbour.state ?? 0)
  writer.u8(10, neighbour.flags ?? 0)
  writer.u8(11, neighbour.type ?? 0)
  writer.putIp(NDA_DST, neighbour.destination)
  writer.putMac(NDA_LLADDR, neighbour.mac)
  writer.putU16(NDA_VLAN, neighbour.vlan)
  writer.putU16BigEndian(NDA_PORT, neighbour.port)
  writer.putU32(NDA_VNI, neighbour.vni)
  writer.putU32(NDA_IFINDEX, neighbour.via)
  writer.putU32(NDA_MASTER, neighbour.master)
  writer.putU8(NDA_PROTOCOL, neighbour.protocol)
  writer.putU32(NDA_NH_ID, neighbour.nexthop)
  writer.putU32(NDA_FLAGS_EXT, neighbour.flagsExtended)
  writer.putU32(NDA_PROBES, neighbour.probes)
  encodeCache(writer, neighbour.cache)
  writer.putAll(neighbour.unknown)
  return writer.finish()
}

function encodeCache(writer: Writer, cache: NeighbourCache | undefined): void {
  if (cache === undefined) return
  const at = writer.put(NDA_CACHEINFO, NDA_CACHEINFO_SIZE)
  writer.u32(at, cache.confirmed)
  writer.u32(at + 4, cache.used)
  writer.u32(at + 8, cache.updated)
  writer.u32(at + 12, cache.references)
}

/** @param flags NLM_F_CREATE | NLM_F_REPLACE … */
export function newNeighbour(neighbour: Partial<Neighbour>, flags: number): Request {
  return { type: RTM_NEWNEIGH, flags: NLM_F_REQUEST | flags, payload: encodeNeighbour(neighbour) }
}

/**
 * Names the entry by family, link and IP, or for the FDB by link, MAC and outer IP.
 *
 * The MAC of an IP neighbour is no part of its name: the kernel deletes the entry whatever MAC is said.
 */
export function deleteNeighbour(neighbour: Partial<Neighbour>): Request {
  return { type: RTM_DELNEIGH, flags: NLM_F_REQUEST, payload: encodeNeighbour(neighbour) }
}

/**
 * A dump of AF_INET or AF_INET6 neighbours, or of both (AF_UNSPEC); of one link or, with ifindex 0, of all.
 * The filter is honoured since Linux 4.4, the answer says so with NLM_F_DUMP_FILTERED.
 */
export function getNeighbours(family: number, ifindex = 0): Request {
  const via = ifindex === 0 ? undefined : ifindex
  return { type: RTM_GETNEIGH, flags: NLM_F_REQUEST | NLM_F_DUMP, payload: encodeNeighbour({ family, via }) }
}

/**
 * A dump of the FDB of one link or, with ifindex 0, of all.
 *
 * The index is in the header, where `struct ndmsg` of strict checking (Linux 4.20) and `struct ifinfomsg` of before
 * have it at the same place; a kernel that does not know the filter gives the entries of all links.
 */
export function getFdb(ifindex = 0): Request {
  const payload = encodeNeighbour({ family: AF_BRIDGE, ifindex })
  return { type: RTM_GETNEIGH, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
}
