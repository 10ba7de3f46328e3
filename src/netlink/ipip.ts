/** What is particular to an ipip tunnel: IFLA_IPTUN_* (linux/if_tunnel.h), inside IFLA_LINKINFO of a link. */

import type { Ip } from '../address/ip.ts'
import type { Attribute, Mutable, Reader, Writer } from './attribute.ts'

const IFLA_IPTUN_LINK = 1
const IFLA_IPTUN_LOCAL = 2
const IFLA_IPTUN_REMOTE = 3
const IFLA_IPTUN_TTL = 4
const IFLA_IPTUN_TOS = 5
const IFLA_IPTUN_PROTO = 9
const IFLA_IPTUN_PMTUDISC = 10

/** Absent in a request is the kernel's default for a new link; for one that exists too, so a change says all of it. */
export interface Ipip {
  /** Index of the link that carries the outer packets; 0: that of the route to the remote end. */
  readonly link?: number | undefined
  /** Outer source address. */
  readonly local?: Ip | undefined
  /** 0.0.0.0: the gateway of each packet's route. */
  readonly remote?: Ip | undefined
  /** 0: that of the inner packet. */
  readonly ttl?: number | undefined
  readonly tos?: number | undefined
  /** IPPROTO_*: 4 is IP in IP. */
  readonly protocol?: number | undefined
  /** Whether outer packets say "don't fragment". */
  readonly pathMtuDiscovery?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

/** @param reader Of the attributes in IFLA_INFO_DATA. @throws {DecodeError} */
export function decodeIpip(reader: Reader): Ipip {
  const unknown: Attribute[] = []
  const ipip: Mutable<Ipip> = { unknown }
  while (reader.next()) {
    switch (reader.type) {
      case IFLA_IPTUN_LINK:
        ipip.link = reader.u32()
        break
      case IFLA_IPTUN_LOCAL:
        ipip.local = reader.ip()
        break
      case IFLA_IPTUN_REMOTE:
        ipip.remote = reader.ip()
        break
      case IFLA_IPTUN_TTL:
        ipip.ttl = reader.u8()
        break
      case IFLA_IPTUN_TOS:
        ipip.tos = reader.u8()
        break
      case IFLA_IPTUN_PROTO:
        ipip.protocol = reader.u8()
        break
      case IFLA_IPTUN_PMTUDISC:
        ipip.pathMtuDiscovery = reader.boolean()
        break
      default:
        unknown.push(reader.attribute())
    }
  }
  return ipip
}

/** Puts the attributes of IFLA_INFO_DATA. */
export function encodeIpip(ipip: Ipip, writer: Writer): void {
  writer.putU32(IFLA_IPTUN_LINK, ipip.link)
  writer.putIp(IFLA_IPTUN_LOCAL, ipip.local)
  writer.putIp(IFLA_IPTUN_REMOTE, ipip.remote)
  writer.putU8(IFLA_IPTUN_TTL, ipip.ttl)
  writer.putU8(IFLA_IPTUN_TOS, ipip.tos)
  writer.putU8(IFLA_IPTUN_PROTO, ipip.protocol)
  writer.putBoolean(IFLA_IPTUN_PMTUDISC, ipip.pathMtuDiscovery)
  writer.putAll(ipip.unknown)
}
