/** Nexthop objects (Linux 5.3): `struct nhmsg` and NHA_* (linux/nexthop.h). Their ids are one space a namespace. */

import type { Ip } from '../address/ip.ts'
import { type Attribute, type Mutable, POOL, Reader, type Writer } from './attribute.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { RTM_DELNEXTHOP, RTM_GETNEXTHOP, RTM_NEWNEXTHOP } from './rtnetlink.ts'

const NHA_ID = 1
const NHA_GROUP = 2
const NHA_GROUP_TYPE = 3
const NHA_BLACKHOLE = 4
const NHA_OIF = 5
const NHA_GATEWAY = 6
const NHA_FDB = 11

const NHMSG = 8
const NEXTHOP_GRP = 8

/** A member of a group (`struct nexthop_grp`). */
export interface NexthopMember {
  readonly id: number
  /** From 1; the kernel counts it from 0. */
  readonly weight: number
}

export interface Nexthop {
  /** AF_INET or AF_INET6 of the gateway; AF_UNSPEC for a group. */
  readonly family: number
  /** RT_SCOPE_*, told by the kernel. */
  readonly scope: number
  /** RTPROT_* */
  readonly protocol: number
  /** RTNH_F_* */
  readonly flags: number
  /** 0 in a request: the kernel chooses. */
  readonly id?: number | undefined
  readonly gateway?: Ip | undefined
  /** Index of the outgoing link. */
  readonly oif?: number | undefined
  readonly blackhole?: boolean | undefined
  /** For FDB entries: an outer IP, without a link. */
  readonly fdb?: boolean | undefined
  readonly group?: readonly NexthopMember[] | undefined
  /** NEXTHOP_GRP_TYPE_*, told for every group. */
  readonly groupType?: number | undefined
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeNexthop(payload: Uint8Array): Nexthop {
  const reader = new Reader(payload, NHMSG)
  const unknown: Attribute[] = []
  const nexthop: Mutable<Nexthop> = {
    family: reader.u8(0),
    scope: reader.u8(1),
    protocol: reader.u8(2),
    flags: reader.u32(4),
    unknown,
  }
  while (reader.next()) {
    if (!decodeAttribute(reader, nexthop)) unknown.push(reader.attribute())
  }
  return nexthop
}

function decodeAttribute(reader: Reader, nexthop: Mutable<Nexthop>): boolean {
  switch (reader.type) {
    case NHA_ID:
      nexthop.id = reader.u32()
      return true
    case NHA_GROUP:
      nexthop.group = decodeGroup(reader)
      return true
    case NHA_GROUP_TYPE:
      nexthop.groupType = reader.u16()
      return true
    case NHA_BLACKHOLE:
      nexthop.blackhole = true
      return true
    case NHA_OIF:
      nexthop.oif = reader.u32()
      return true
    case NHA_GATEWAY:
      nexthop.gateway = reader.ip()
      return true
    case NHA_FDB:
      nexthop.fdb = true
      return true
    default:
      return false
  }
}

/** A weight has 8 bits and, since Linux 6.12, 8 more in the byte after them. */
function decodeGroup(reader: Reader): NexthopMember[] {
  const members: NexthopMember[] = []
  for (let at = 0; at < reader.length; at += NEXTHOP_GRP) {
    members.push({ id: reader.u32(at), weight: (reader.u8(at + 4) | (reader.u8(at + 5) << 8)) + 1 })
  }
  return members
}

export function encodeNexthop(nexthop: Partial<Nexthop>, writer = POOL): Uint8Array {
  writer.start(NHMSG)
  writer.u8(0, nexthop.family ?? 0)
  writer.u8(1, nexthop.scope ?? 0)
  writer.u8(2, nexthop.protocol ?? 0)
  writer.u32(4, nexthop.flags ?? 0)
  writer.putU32(NHA_ID, nexthop.id)
  writer.putIp(NHA_GATEWAY, nexthop.gateway)
  writer.putU32(NHA_OIF, nexthop.oif)
  writer.putFlag(NHA_BLACKHOLE, nexthop.blackhole)
  writer.putFlag(NHA_FDB, nexthop.fdb)
  encodeGroup(writer, nexthop.group)
  writer.putU16(NHA_GROUP_TYPE, nexthop.groupType)
  writer.putAll(nexthop.unknown)
  return writer.finish()
}

function encodeGroup(writer: Writer, group: readonly NexthopMember[] | undefined): void {
  if (group === undefined) return
  const start = writer.put(NHA_GROUP, group.length * NEXTHOP_GRP)
  for (const [i, { id, weight }] of group.entries()) {
    const at = start + i * NEXTHOP_GRP
    writer.u32(at, id)
    writer.u8(at + 4, (weight - 1) & 0xff)
    writer.u8(at + 5, (weight - 1) >> 8)
  }
}

/** @param flags NLM_F_CREATE | NLM_F_REPLACE …; a replacement moves every route that uses the id at once. */
export function newNexthop(nexthop: Partial<Nexthop>, flags: number): Request {
  return { type: RTM_NEWNEXTHOP, flags: NLM_F_REQUEST | flags, payload: encodeNexthop(nexthop) }
}

/** Deletes the object and the routes that use it. */
export function deleteNexthop(id: number): Request {
  return { type: RTM_DELNEXTHOP, flags: NLM_F_REQUEST, payload: encodeNexthop({ id }) }
}

/** A dump of all nexthops or of those through one link; EOPNOTSUPP from a kernel without them. */
export function getNexthops(filter: { readonly oif?: number } = {}): Request {
  return { type: RTM_GETNEXTHOP, flags: NLM_F_REQUEST | NLM_F_DUMP, payload: encodeNexthop(filter) }
}
