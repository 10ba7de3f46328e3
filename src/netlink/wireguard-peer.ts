/** A peer of a WireGuard device: WGPEER_A_* and WGALLOWEDIP_A_* (linux/wireguard.h), inside WGDEVICE_A_PEERS. */

import { familyBits, formatIp, type Ip, ipBytes, ipFamily } from '../address/ip.ts'
import { type Prefix, prefixBase, prefixFamily, prefixLength, prefixOf } from '../address/prefix.ts'
import { type Attribute, type Mutable, NLA_F_NESTED, type Reader, type Writer } from './attribute.ts'
import { AF_INET, AF_INET6 } from './rtnetlink.ts'
import { formatKey, KEY_BYTES, keyBytes, type WireguardKey } from '../address/key.ts'
import type { Endpoint, WireguardPeer } from './wireguard-device.ts'

/** Padding before a u64, on machines that want it aligned. */
const WGPEER_A_UNSPEC = 0
const WGPEER_A_PUBLIC_KEY = 1
const WGPEER_A_PRESHARED_KEY = 2
const WGPEER_A_FLAGS = 3
const WGPEER_A_ENDPOINT = 4
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL = 5
const WGPEER_A_LAST_HANDSHAKE_TIME = 6
const WGPEER_A_RX_BYTES = 7
const WGPEER_A_TX_BYTES = 8
const WGPEER_A_ALLOWEDIPS = 9
const WGPEER_A_PROTOCOL_VERSION = 10

const WGALLOWEDIP_A_FAMILY = 1
const WGALLOWEDIP_A_IPADDR = 2
const WGALLOWEDIP_A_CIDR_MASK = 3

const WGPEER_F_REMOVE_ME = 1
const WGPEER_F_REPLACE_ALLOWEDIPS = 2
const WGPEER_F_UPDATE_ONLY = 4

/** `struct sockaddr_in`: u16 family, u16 port in network order, the address, zeros. */
const SOCKADDR_IN = 16
/** `struct sockaddr_in6`: u16 family, u16 port in network order, u32 flow label, the address, u32 index of the link. */
const SOCKADDR_IN6 = 28
/** `struct __kernel_timespec`: i64 seconds, i64 nanoseconds. */
const TIMESPEC = 16

const NANOSECONDS = 1_000_000_000n

/** @throws {DecodeError} */
export function decodePeer(reader: Reader): WireguardPeer {
  const unknown: Attribute[] = []
  const allowedIps: Prefix[] = []
  const peer: Mutable<Partial<WireguardPeer>> = {}
  while (reader.next()) {
    if (reader.type === WGPEER_A_ALLOWEDIPS) decodeAllowedIps(reader.nested(), allowedIps)
    else if (!decodeSettings(reader, peer) && !decodeReport(reader, peer)) unknown.push(reader.attribute())
  }
  const { publicKey } = peer
  if (publicKey === undefined) throw reader.error('a peer with a public key')
  return { ...peer, publicKey, allowedIps, unknown }
}

function decodeSettings(reader: Reader, peer: Mutable<Partial<WireguardPeer>>): boolean {
  switch (reader.type) {
    case WGPEER_A_PUBLIC_KEY:
      peer.publicKey = decodeKey(reader)
      return true
    case WGPEER_A_PRESHARED_KEY:
      peer.presharedKey = decodeKey(reader)
      return true
    case WGPEER_A_FLAGS:
      decodeFlags(reader.u32(), peer)
      return true
    case WGPEER_A_ENDPOINT:
      peer.endpoint = decodeEndpoint(reader)
      return true
    case WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL:
      peer.persistentKeepalive = reader.u16()
      return true
    default:
      return false
  }
}

function decodeFlags(flags: number, peer: Mutable<Partial<WireguardPeer>>): void {
  if ((flags & WGPEER_F_REMOVE_ME) !== 0) peer.remove = true
  if ((flags & WGPEER_F_REPLACE_ALLOWEDIPS) !== 0) peer.replaceAllowedIps = true
  if ((flags & WGPEER_F_UPDATE_ONLY) !== 0) peer.updateOnly = true
}

function decodeReport(reader: Reader, peer: Mutable<Partial<WireguardPeer>>): boolean {
  switch (reader.type) {
    case WGPEER_A_LAST_HANDSHAKE_TIME:
      peer.lastHandshake = reader.i64(0) * NANOSECONDS + reader.i64(8)
      return true
    case WGPEER_A_RX_BYTES:
      peer.rxBytes = reader.u64()
      return true
    case WGPEER_A_TX_BYTES:
      peer.txBytes = reader.u64()
      return true
    case WGPEER_A_PROTOCOL_VERSION:
      peer.protocolVersion = reader.u32()
      return true
    case WGPEER_A_UNSPEC:
      return true
    default:
      return false
  }
}

/** @throws {DecodeError} */
export function decodeKey(reader: Reader): WireguardKey {
  if (reader.length !== KEY_BYTES) throw reader.error('a key of 32')
  return formatKey(reader.bytes(0, KEY_BYTES))
}

function decodeEndpoint(reader: Reader): Endpoint {
  const family = reader.u16(0)
  const port = reader.u16BigEndian(2)
  if (family === AF_INET) return { address: formatIp(reader.bytes(4, 4)), port }
  if (family !== AF_INET6) throw reader.error('a sockaddr of AF_INET or AF_INET6')
  const address = formatIp(reader.bytes(8, 16))
  const zone = reader.u32(24)
  return zone === 0 ? { address, port } : { address, port, zone: String(zone) }
}

function decodeAllowedIps(list: Reader, allowedIps: Prefix[]): void {
  while (list.next()) allowedIps.push(decodeAllowedIp(list.nested()))
}

/** The family is not looked at: the length of the address says it. */
function decodeAllowedIp(reader: Reader): Prefix {
  let ip: Ip | undefined
  let length: number | undefined
  while (reader.next()) {
    if (reader.type === WGALLOWEDIP_A_IPADDR) ip = reader.ip()
    if (reader.type === WGALLOWEDIP_A_CIDR_MASK) length = reader.u8()
  }
  if (ip === undefined || length === undefined || length > familyBits(ipFamily(ip))) {
    throw reader.error('an address with the length of its prefix')
  }
  return prefixOf(ip, length)
}

export function putPeer(peer: WireguardPeer, writer: Writer): void {
  const { endpoint, allowedIps, lastHandshake } = peer
  putKey(writer, WGPEER_A_PUBLIC_KEY, peer.publicKey)
  writer.putU32(WGPEER_A_FLAGS, peerFlags(peer) || undefined)
  putKey(writer, WGPEER_A_PRESHARED_KEY, peer.presharedKey)
  if (endpoint !== undefined) putEndpoint(endpoint, writer)
  writer.putU16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, peer.persistentKeepalive)
  if (lastHandshake !== undefined) putTime(lastHandshake, writer)
  writer.putU64(WGPEER_A_RX_BYTES, peer.rxBytes)
  writer.putU64(WGPEER_A_TX_BYTES, peer.txBytes)
  writer.putU32(WGPEER_A_PROTOCOL_VERSION, peer.protocolVersion)
  if (allowedIps.length > 0) {
    writer.nest(WGPEER_A_ALLOWEDIPS | NLA_F_NESTED, () => putAllowedIps(allowedIps, writer))
  }
  writer.putAll(peer.unknown)
}

function peerFlags({ remove, replaceAllowedIps, updateOnly }: WireguardPeer): number {
  return (
    (remove === true ? WGPEER_F_REMOVE_ME : 0) |
    (replaceAllowedIps === true ? WGPEER_F_REPLACE_ALLOWEDIPS : 0) |
    (updateOnly === true ? WGPEER_F_UPDATE_ONLY : 0)
  )
}

export function putKey(writer: Writer, type: number, key: WireguardKey | undefined): void {
  if (key !== undefined) writer.putBytes(type, keyBytes(key))
}

function putEndpoint({ address, port, zone = '0' }: Endpoint, writer: Writer): void {
  const inet = ipFamily(address) === 'inet'
  const at = writer.put(WGPEER_A_ENDPOINT, inet ? SOCKADDR_IN : SOCKADDR_IN6)
  writer.u16(at, inet ? AF_INET : AF_INET6)
  writer.u16BigEndian(at + 2, port)
  writer.bytes(at + (inet ? 4 : 8), ipBytes(address))
  if (inet) return
  if (!/^\d{1,10}$/.test(zone))
    throw new RangeError(`zone ${zone} of ${address}: the kernel takes the index of a link`)
  writer.u32(at + 24, Number(zone))
}

/** Before 1970 the nanoseconds count forward too. */
function putTime(time: bigint, writer: Writer): void {
  const nanoseconds = ((time % NANOSECONDS) + NANOSECONDS) % NANOSECONDS
  const at = writer.put(WGPEER_A_LAST_HANDSHAKE_TIME, TIMESPEC)
  writer.u64(at, BigInt.asUintN(64, (time - nanoseconds) / NANOSECONDS))
  writer.u64(at + 8, nanoseconds)
}

function putAllowedIps(allowedIps: readonly Prefix[], writer: Writer): void {
  for (const prefix of allowedIps) {
    writer.nest(NLA_F_NESTED, () => {
      writer.putU16(WGALLOWEDIP_A_FAMILY, prefixFamily(prefix) === 'inet' ? AF_INET : AF_INET6)
      writer.putIp(WGALLOWEDIP_A_IPADDR, prefixBase(prefix))
      writer.putU8(WGALLOWEDIP_A_CIDR_MASK, prefixLength(prefix))
    })
  }
}

/** At most how many bytes a change of the peer takes. */
export function peerSize({ allowedIps, unknown = [] }: WireguardPeer): number {
  const settings = 4 + 36 + 8 + 36 + 32 + 8 + 4
  const reports = 20 + 12 + 12 + 8
  const others = unknown.reduce((sum, { value }) => sum + 8 + value.length, 0)
  return settings + reports + others + allowedIps.length * (4 + 8 + 20 + 8)
}
