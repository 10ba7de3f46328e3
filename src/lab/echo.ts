/**
 * ICMP echo (RFC 792, and RFC 4443 for IPv6) as bytes: u8 type, u8 code, u16 checksum, u16 identifier, u16 sequence, all
 * big endian.
 */

import { type Family, type Ip, formatIp } from '../address/ip.ts'

const ECHO_REPLY = { inet: 0, inet6: 129 } as const satisfies Record<Family, number>
const ECHO_REQUEST = { inet: 8, inet6: 128 } as const satisfies Record<Family, number>
const HEADER = 8
/** `struct iphdr` without options. */
const IPV4_HEADER = 20

export interface EchoReply {
  /** Undefined of IPv6, where a raw socket gives no IP header: who it is connected to. */
  readonly from: Ip | undefined
  readonly ttl: number | undefined
  readonly identifier: number
  /** Modulo 2^16. */
  readonly sequence: number
  /** Bytes of ICMP, as ping(8) counts them. */
  readonly length: number
}

/** An echo request; `dataLength` bytes that count up follow the header. The kernel puts in the checksum of ICMPv6. */
export function encodeEchoRequest(
  family: Family,
  identifier: number,
  sequence: number,
  dataLength: number,
): Uint8Array {
  const bytes = Uint8Array.from({ length: HEADER + dataLength }, (_, i) => i - HEADER)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, ECHO_REQUEST[family])
  view.setUint8(1, 0)
  view.setUint16(2, 0)
  view.setUint16(4, identifier)
  view.setUint16(6, sequence)
  if (family === 'inet') view.setUint16(2, checksum(bytes))
  return bytes
}

/** What a raw socket receives; undefined when it is anything but a whole echo reply. */
export function decodeEchoReply(family: Family, packet: Uint8Array): EchoReply | undefined {
  const headerLength = family === 'inet' ? ((packet[0] ?? 0) & 0xf) * 4 : 0
  const icmp = packet.subarray(headerLength)
  if ((family === 'inet' && headerLength < IPV4_HEADER) || icmp.length < HEADER) return undefined
  if (icmp[0] !== ECHO_REPLY[family] || icmp[1] !== 0) return undefined
  if (family === 'inet' && checksum(icmp) !== 0) return undefined
  const view = new DataView(icmp.buffer, icmp.byteOffset)
  return {
    from: family === 'inet' ? formatIp(packet.subarray(12, 16)) : undefined,
    ttl: family === 'inet' ? packet[8] : undefined,
    identifier: view.getUint16(4),
    sequence: view.getUint16(6),
    length: icmp.length,
  }
}

/** The Internet checksum (RFC 1071): over bytes that hold their own checksum it is 0. */
export function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (const [i, byte] of bytes.entries()) sum += i % 2 === 0 ? byte << 8 : byte
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
