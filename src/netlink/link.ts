/** Links: `struct ifinfomsg` and IFLA_* (linux/rtnetlink.h, linux/if_link.h, linux/veth.h). */

import type { Mac } from '../address/mac.ts'
import { type Attribute, type Mutable, POOL, Reader, type Writer } from './attribute.ts'
import { type Bridge, decodeBridge, encodeBridge } from './bridge.ts'
import { decodeIpip, encodeIpip, type Ipip } from './ipip.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK } from './rtnetlink.ts'
import { decodeVxlan, encodeVxlan, type Vxlan } from './vxlan.ts'

export const IFF_UP = 0x1
export const IFF_BROADCAST = 0x2
export const IFF_LOOPBACK = 0x8
export const IFF_POINTOPOINT = 0x10
export const IFF_RUNNING = 0x40
export const IFF_NOARP = 0x80
export const IFF_PROMISC = 0x100
export const IFF_MULTICAST = 0x1000
export const IFF_LOWER_UP = 0x10000

/** `hardwareType`s. */
export const ARPHRD_ETHER = 1
export const ARPHRD_LOOPBACK = 772
export const ARPHRD_NONE = 0xfffe

const IFLA_ADDRESS = 1
const IFLA_IFNAME = 3
const IFLA_MTU = 4
const IFLA_LINK = 5
const IFLA_MASTER = 10
const IFLA_TXQLEN = 13
const IFLA_OPERSTATE = 16
const IFLA_LINKINFO = 18
const IFLA_NET_NS_PID = 19
const IFLA_NET_NS_FD = 28
const IFLA_EXT_MASK = 29
const IFLA_LINK_NETNSID = 37

const IFLA_INFO_KIND = 1
const IFLA_INFO_DATA = 2
const VETH_INFO_PEER = 1

/** Leave out the counters. */
const RTEXT_FILTER_SKIP_STATS = 8

const IFINFOMSG = 16

export interface Link {
  readonly family: number
  /** ARPHRD_* */
  readonly hardwareType: number
  /** 0 in a request: by name, or a new one. */
  readonly index: number
  /** IFF_* */
  readonly flags: number
  /** Which of the flags a request sets. */
  readonly change: number
  readonly name?: string | undefined
  readonly mtu?: number | undefined
  /** Absent for a link whose address is not one of Ethernet. */
  readonly mac?: Mac | undefined
  /** Index of the bridge (or bond, VRF) that it is a port of. In a request, 0 takes it out. */
  readonly master?: number | undefined
  readonly txqlen?: number | undefined
  /** Index of the lower link; a veth's peer, in the namespace `linkNamespace`. */
  readonly link?: number | undefined
  /** Id of the namespace of `link`, where that is another one; -1 where it has no id. */
  readonly linkNamespace?: number | undefined
  /** IF_OPER_* (RFC 2863): 0 unknown, 2 down, 6 up. */
  readonly operstate?: number | undefined
  /** The namespace to move it to, in a request: an open file of it, or a process in it. */
  readonly namespaceFd?: number | undefined
  readonly namespacePid?: number | undefined
  /** RTEXT_FILTER_*, in a request. */
  readonly extendedMask?: number | undefined
  /** `vxlan`, `ipip`, `veth`, `bridge`; absent for hardware. */
  readonly kind?: string | undefined
  readonly vxlan?: Vxlan | undefined
  readonly ipip?: Ipip | undefined
  readonly bridge?: Bridge | undefined
  readonly veth?: Veth | undefined
  /** IFLA_INFO_*: the data of other kinds, and what the link is as a port of its master. */
  readonly unknownInfo: readonly Attribute[]
  readonly unknown: readonly Attribute[]
}

/** In a request for a pair; the kernel tells the peer as `link` and `linkNamespace`. */
export interface Veth {
  readonly peer?: Partial<Link> | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

/** @throws {DecodeError} */
export function decodeLink(payload: Uint8Array): Link {
  const reader = new Reader(payload, IFINFOMSG)
  const link = decodeHeader(reader)
  while (reader.next()) {
    if (reader.type === IFLA_LINKINFO) decodeInfo(reader.nested(), link)
    else decodeAttribute(reader, link)
  }
  return link
}

type LinkDraft = Mutable<Link> & { readonly unknownInfo: Attribute[]; readonly unknown: Attribute[] }

function decodeHeader(reader: Reader): LinkDraft {
  return {
    family: reader.u8(0),
    hardwareType: reader.u16(2),
    index: reader.i32(4),
    flags: reader.u32(8),
    change: reader.u32(12),
    unknownInfo: [],
    unknown: [],
  }
}

function decodeAttribute(reader: Reader, link: LinkDraft): void {
  switch (reader.type) {
    case IFLA_ADDRESS:
      // Links that are not Ethernet have addresses of other lengths.
      if (reader.length === 6) link.mac = reader.mac()
      else link.unknown.push(reader.attribute())
      break
    case IFLA_IFNAME:
      link.name = reader.text()
      break
    case IFLA_MTU:
      link.mtu = reader.u32()
      break
    case IFLA_LINK:
      link.link = reader.u32()
      break
    case IFLA_MASTER:
      link.master = reader.u32()
      break
    case IFLA_TXQLEN:
      link.txqlen = reader.u32()
      break
    case IFLA_OPERSTATE:
      link.operstate = reader.u8()
      break
    case IFLA_NET_NS_PID:
      link.namespacePid = reader.u32()
      break
    case IFLA_NET_NS_FD:
      link.namespaceFd = reader.u32()
      break
    case IFLA_LINK_NETNSID:
      link.linkNamespace = reader.i32()
      break
    case IFLA_EXT_MASK:
      link.extendedMask = reader.u32()
      break
    default:
      link.unknown.push(reader.attribute())
  }
}

/** The kind comes before its data: the kernel tells it so, and `ip` too. */
function decodeInfo(reader: Reader, link: LinkDraft): void {
  while (reader.next()) {
    const data = reader.type === IFLA_INFO_DATA
    if (reader.type === IFLA_INFO_KIND) link.kind = reader.text()
    else if (data && link.kind === 'vxlan') link.vxlan = decodeVxlan(reader.nested())
    else if (data && link.kind === 'ipip') link.ipip = decodeIpip(reader.nested())
    else if (data && link.kind === 'bridge') link.bridge = decodeBridge(reader.nested())
    else if (data && link.kind === 'veth') link.veth = decodeVeth(reader.nested())
    else link.unknownInfo.push(reader.attribute())
  }
}

function decodeVeth(reader: Reader): Veth {
  const unknown: Attribute[] = []
  const veth: Mutable<Veth> = { unknown }
  while (reader.next()) {
    if (reader.type === VETH_INFO_PEER) veth.peer = decodePeer(reader.nested(IFINFOMSG))
    else unknown.push(reader.attribute())
  }
  return veth
}

/** A link without a kind of its own: what is nested in a peer is not followed, however deep. */
function decodePeer(reader: Reader): Link {
  const peer = decodeHeader(reader)
  while (reader.next()) decodeAttribute(reader, peer)
  return peer
}

export function encodeLink(link: Partial<Link>, writer = POOL): Uint8Array {
  writer.start(IFINFOMSG)
  putLink(link, writer, 0)
  return writer.finish()
}

/** @param at The offset of `struct ifinfomsg`: 0, or that of a veth's peer. */
function putLink(link: Partial<Link>, writer: Writer, at: number): void {
  writer.u8(at, link.family ?? 0)
  writer.u16(at + 2, link.hardwareType ?? 0)
  writer.u32(at + 4, link.index ?? 0)
  writer.u32(at + 8, link.flags ?? 0)
  writer.u32(at + 12, link.change ?? 0)
  writer.putText(IFLA_IFNAME, link.name)
  writer.putMac(IFLA_ADDRESS, link.mac)
  writer.putU32(IFLA_MTU, link.mtu)
  writer.putU32(IFLA_LINK, link.link)
  writer.putU32(IFLA_MASTER, link.master)
  writer.putU32(IFLA_TXQLEN, link.txqlen)
  writer.putU8(IFLA_OPERSTATE, link.operstate)
  writer.putU32(IFLA_NET_NS_PID, link.namespacePid)
  writer.putU32(IFLA_NET_NS_FD, link.namespaceFd)
  writer.putU32(IFLA_LINK_NETNSID, link.linkNamespace)
  writer.putU32(IFLA_EXT_MASK, link.extendedMask)
  if (hasInfo(link)) writer.nest(IFLA_LINKINFO, () => putInfo(link, writer))
  writer.putAll(link.unknown)
}

function hasInfo({ kind, unknownInfo = [] }: Partial<Link>): boolean {
  return kind !== undefined || unknownInfo.length > 0
}

function putInfo({ kind, vxlan, ipip, bridge, veth, unknownInfo }: Partial<Link>, writer: Writer): void {
  writer.putText(IFLA_INFO_KIND, kind)
  if (vxlan !== undefined) writer.nest(IFLA_INFO_DATA, () => encodeVxlan(vxlan, writer))
  if (ipip !== undefined) writer.nest(IFLA_INFO_DATA, () => encodeIpip(ipip, writer))
  if (bridge !== undefined) writer.nest(IFLA_INFO_DATA, () => encodeBridge(bridge, writer))
  if (veth !== undefined) writer.nest(IFLA_INFO_DATA, () => putVeth(veth, writer))
  writer.putAll(unknownInfo)
}

function putVeth({ peer, unknown }: Veth, writer: Writer): void {
  if (peer !== undefined) writer.nest(VETH_INFO_PEER, (at) => putLink(peer, writer, at), IFINFOMSG)
  writer.putAll(unknown)
}

/**
 * Makes a link, or changes the one with that index or name.
 *
 * @param flags NLM_F_CREATE | NLM_F_EXCL to make one, 0 to change one.
 */
export function newLink(link: Partial<Link>, flags: number): Request {
  return { type: RTM_NEWLINK, flags: NLM_F_REQUEST | flags, payload: encodeLink(link) }
}

export function deleteLink(index: number): Request {
  return { type: RTM_DELLINK, flags: NLM_F_REQUEST, payload: encodeLink({ index }) }
}

/** One link by name: ENODEV when there is none. */
export function getLink(name: string): Request {
  const payload = encodeLink({ name, extendedMask: RTEXT_FILTER_SKIP_STATS })
  return { type: RTM_GETLINK, flags: NLM_F_REQUEST, payload }
}

/** A dump of all links. */
export function getLinks(): Request {
  const payload = encodeLink({ extendedMask: RTEXT_FILTER_SKIP_STATS })
  return { type: RTM_GETLINK, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
}
