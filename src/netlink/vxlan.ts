/** What is particular to a vxlan link: IFLA_VXLAN_* (linux/if_link.h), inside IFLA_LINKINFO of a link. */

import { type Ip, ipFamily } from '../address/ip.ts'
import type { Attribute, Mutable, Reader, Writer } from './attribute.ts'

const IFLA_VXLAN_ID = 1
const IFLA_VXLAN_GROUP = 2
const IFLA_VXLAN_LINK = 3
const IFLA_VXLAN_LOCAL = 4
const IFLA_VXLAN_TTL = 5
const IFLA_VXLAN_TOS = 6
const IFLA_VXLAN_LEARNING = 7
const IFLA_VXLAN_AGEING = 8
const IFLA_VXLAN_LIMIT = 9
const IFLA_VXLAN_PORT_RANGE = 10
const IFLA_VXLAN_PROXY = 11
const IFLA_VXLAN_RSC = 12
const IFLA_VXLAN_L2MISS = 13
const IFLA_VXLAN_L3MISS = 14
const IFLA_VXLAN_PORT = 15
const IFLA_VXLAN_GROUP6 = 16
const IFLA_VXLAN_LOCAL6 = 17
const IFLA_VXLAN_UDP_CSUM = 18
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX = 19
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 20
const IFLA_VXLAN_GBP = 23

/** Absent in a request is the kernel's default for a new link, and no change for one that exists. */
export interface Vxlan {
  readonly vni?: number | undefined
  /** Multicast group, or the one remote address. */
  readonly group?: Ip | undefined
  /** Index of the link that carries the outer packets. */
  readonly link?: number | undefined
  /** Outer source address. */
  readonly local?: Ip | undefined
  /** 0: the default of the underlay. */
  readonly ttl?: number | undefined
  /** 1: that of the inner packet. */
  readonly tos?: number | undefined
  readonly learning?: boolean | undefined
  /** Seconds that a learned FDB entry lives. */
  readonly ageing?: number | undefined
  /** How many FDB entries there may be; 0: any number. */
  readonly limit?: number | undefined
  /** UDP source ports. 0 to 0: those of the system. */
  readonly portRange?: { readonly low: number; readonly high: number } | undefined
  readonly proxy?: boolean | undefined
  readonly rsc?: boolean | undefined
  readonly l2miss?: boolean | undefined
  readonly l3miss?: boolean | undefined
  /** UDP destination port. */
  readonly port?: number | undefined
  readonly udpCsum?: boolean | undefined
  readonly udpZeroCsum6Tx?: boolean | undefined
  readonly udpZeroCsum6Rx?: boolean | undefined
  /** Group Based Policy: a flag, so absent is off. */
  readonly gbp?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

/** @param reader Of the attributes in IFLA_INFO_DATA. @throws {DecodeError} */
export function decodeVxlan(reader: Reader): Vxlan {
  const unknown: Attribute[] = []
  const vxlan: Mutable<Vxlan> = { unknown }
  while (reader.next()) {
    if (!decodeAddresses(reader, vxlan) && !decodeNumbers(reader, vxlan) && !decodeBooleans(reader, vxlan)) {
      unknown.push(reader.attribute())
    }
  }
  return vxlan
}

function decodeAddresses(reader: Reader, vxlan: Mutable<Vxlan>): boolean {
  switch (reader.type) {
    case IFLA_VXLAN_GROUP:
    case IFLA_VXLAN_GROUP6:
      vxlan.group = reader.ip()
      return true
    case IFLA_VXLAN_LOCAL:
    case IFLA_VXLAN_LOCAL6:
      vxlan.local = reader.ip()
      return true
    default:
      return false
  }
}

function decodeNumbers(reader: Reader, vxlan: Mutable<Vxlan>): boolean {
  switch (reader.type) {
    case IFLA_VXLAN_ID:
      vxlan.vni = reader.u32()
      return true
    case IFLA_VXLAN_LINK:
      vxlan.link = reader.u32()
      return true
    case IFLA_VXLAN_TTL:
      vxlan.ttl = reader.u8()
      return true
    case IFLA_VXLAN_TOS:
      vxlan.tos = reader.u8()
      return true
    case IFLA_VXLAN_AGEING:
      vxlan.ageing = reader.u32()
      return true
    case IFLA_VXLAN_LIMIT:
      vxlan.limit = reader.u32()
      return true
    case IFLA_VXLAN_PORT_RANGE:
      vxlan.portRange = { low: reader.u16BigEndian(0), high: reader.u16BigEndian(2) }
      return true
    case IFLA_VXLAN_PORT:
      vxlan.port = reader.u16BigEndian()
      return true
    default:
      return false
  }
}

function decodeBooleans(reader: Reader, vxlan: Mutable<Vxlan>): boolean {
  switch (reader.type) {
    case IFLA_VXLAN_LEARNING:
      vxlan.learning = reader.boolean()
      return true
    case IFLA_VXLAN_PROXY:
      vxlan.proxy = reader.boolean()
      return true
    case IFLA_VXLAN_RSC:
      vxlan.rsc = reader.boolean()
      return true
    case IFLA_VXLAN_L2MISS:
      vxlan.l2miss = reader.boolean()
      return true
    case IFLA_VXLAN_L3MISS:
      vxlan.l3miss = reader.boolean()
      return true
    case IFLA_VXLAN_UDP_CSUM:
      vxlan.udpCsum = reader.boolean()
      return true
    case IFLA_VXLAN_UDP_ZERO_CSUM6_TX:
      vxlan.udpZeroCsum6Tx = reader.boolean()
      return true
    case IFLA_VXLAN_UDP_ZERO_CSUM6_RX:
      vxlan.udpZeroCsum6Rx = reader.boolean()
      return true
    case IFLA_VXLAN_GBP:
      vxlan.gbp = true
      return true
    default:
      return false
  }
}

/** Puts the attributes of IFLA_INFO_DATA. */
export function encodeVxlan(vxlan: Vxlan, writer: Writer): void {
  const { group, local, portRange } = vxlan
  writer.putU32(IFLA_VXLAN_ID, vxlan.vni)
  if (group !== undefined) writer.putIp(isInet(group) ? IFLA_VXLAN_GROUP : IFLA_VXLAN_GROUP6, group)
  if (local !== undefined) writer.putIp(isInet(local) ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local)
  writer.putU32(IFLA_VXLAN_LINK, vxlan.link)
  writer.putU8(IFLA_VXLAN_TTL, vxlan.ttl)
  writer.putU8(IFLA_VXLAN_TOS, vxlan.tos)
  writer.putBoolean(IFLA_VXLAN_LEARNING, vxlan.learning)
  writer.putU32(IFLA_VXLAN_AGEING, vxlan.ageing)
  writer.putU32(IFLA_VXLAN_LIMIT, vxlan.limit)
  if (portRange !== undefined) {
    const at = writer.put(IFLA_VXLAN_PORT_RANGE, 4)
    writer.u16BigEndian(at, portRange.low)
    writer.u16BigEndian(at + 2, portRange.high)
  }
  writer.putBoolean(IFLA_VXLAN_PROXY, vxlan.proxy)
  writer.putBoolean(IFLA_VXLAN_RSC, vxlan.rsc)
  writer.putBoolean(IFLA_VXLAN_L2MISS, vxlan.l2miss)
  writer.putBoolean(IFLA_VXLAN_L3MISS, vxlan.l3miss)
  writer.putU16BigEndian(IFLA_VXLAN_PORT, vxlan.port)
  writer.putBoolean(IFLA_VXLAN_UDP_CSUM, vxlan.udpCsum)
  writer.putBoolean(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, vxlan.udpZeroCsum6Tx)
  writer.putBoolean(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, vxlan.udpZeroCsum6Rx)
  writer.putFlag(IFLA_VXLAN_GBP, vxlan.gbp)
  writer.putAll(vxlan.unknown)
}

function isInet(ip: Ip): boolean {
  return ipFamily(ip) === 'inet'
}
