/** Addresses of links: `struct ifaddrmsg` and IFA_* (linux/if_addr.h). */

import type { Ip } from '../address/ip.ts'
import { type Attribute, type Mutable, POOL, Reader } from './attribute.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR } from './rtnetlink.ts'

export const IFA_F_SECONDARY = 0x01
export const IFA_F_NODAD = 0x02
export const IFA_F_DADFAILED = 0x08
export const IFA_F_DEPRECATED = 0x20
export const IFA_F_TENTATIVE = 0x40
export const IFA_F_PERMANENT = 0x80
export const IFA_F_NOPREFIXROUTE = 0x200

const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_LABEL = 3
const IFA_BROADCAST = 4
const IFA_FLAGS = 8
const IFA_RT_PRIORITY = 9
const IFA_PROTO = 11

const IFADDRMSG = 8

export interface Address {
  readonly family: number
  readonly prefixLength: number
  /** IFA_F_*: the 32 bits of IFA_FLAGS where they are told, else the 8 of the header. */
  readonly flags: number
  /** RT_SCOPE_* */
  readonly scope: number
  readonly ifindex: number
  /** The address of the prefix; the peer's on a point-to-point link, else the same as `local`. */
  readonly address?: Ip | undefined
  /** The link's own address. Always told for IPv4; for IPv6 only beside a peer's. */
  readonly local?: Ip | undefined
  /** IPv4 only. */
  readonly label?: string | undefined
  readonly broadcast?: Ip | undefined
  /** Metric of the prefix route that the kernel makes. */
  readonly priority?: number | undefined
  /** IFAPROT_* of who set it (Linux 5.18). */
  readonly protocol?: number | undefined
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeAddress(payload: Uint8Array): Address {
  const reader = new Reader(payload, IFADDRMSG)
  const unknown: Attribute[] = []
  const address: Mutable<Address> = {
    family: reader.u8(0),
    prefixLength: reader.u8(1),
    flags: reader.u8(2),
    scope: reader.u8(3),
    ifindex: reader.u32(4),
    unknown,
  }
  while (reader.next()) {
    if (!decodeAttribute(reader, address)) unknown.push(reader.attribute())
  }
  return address
}

function decodeAttribute(reader: Reader, address: Mutable<Address>): boolean {
  switch (reader.type) {
    case IFA_ADDRESS:
      address.address = reader.ip()
      return true
    case IFA_LOCAL:
      address.local = reader.ip()
      return true
    case IFA_LABEL:
      address.label = reader.text()
      return true
    case IFA_BROADCAST:
      address.broadcast = reader.ip()
      return true
    case IFA_FLAGS:
      address.flags = reader.u32()
      return true
    case IFA_RT_PRIORITY:
      address.priority = reader.u32()
      return true
    case IFA_PROTO:
      address.protocol = reader.u8()
      return true
    default:
      return false
  }
}

export function encodeAddress(address: Partial<Address>, writer = POOL): Uint8Array {
  const { flags = 0 } = address
  writer.start(IFADDRMSG)
  writer.u8(0, address.family ?? 0)
  writer.u8(1, address.prefixLength ?? 0)
  writer.u8(2, flags & 0xff)
  writer.u8(3, address.scope ?? 0)
  writer.u32(4, address.ifindex ?? 0)
  writer.putIp(IFA_LOCAL, address.local)
  writer.putIp(IFA_ADDRESS, address.address)
  writer.putIp(IFA_BROADCAST, address.broadcast)
  writer.putText(IFA_LABEL, address.label)
  writer.putU32(IFA_FLAGS, flags > 0xff ? flags : undefined)
  writer.putU32(IFA_RT_PRIORITY, address.priority)
  writer.putU8(IFA_PROTO, address.protocol)
  writer.putAll(address.unknown)
  return writer.finish()
}

/** @param flags NLM_F_CREATE | NLM_F_REPLACE … */
export function newAddress(address: Partial<Address>, flags: number): Request {
  return { type: RTM_NEWADDR, flags: NLM_F_REQUEST | flags, payload: encodeAddress(address) }
}

export function deleteAddress(address: Partial<Address>): Request {
  return { type: RTM_DELADDR, flags: NLM_F_REQUEST, payload: encodeAddress(address) }
}

/**
 * A dump of the addresses of a family, or of both (AF_UNSPEC); of one link or, with ifindex 0, of all. Without
 * strict checking (Linux 4.20) the kernel gives those of all links.
 */
export function getAddresses(family: number, ifindex = 0): Request {
  const payload = encodeAddress({ family, ifindex })
  return { type: RTM_GETADDR, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
}
