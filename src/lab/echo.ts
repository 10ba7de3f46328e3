/** ICMP echo (RFC 792) as bytes: u8 type, u8 code, u16 checksum, u16 identifier, u16 sequence, all big endian. */

import { type Ip, formatIp } from '../address/ip.ts'

const ECHO_REPLY = 0
const ECHO_REQUEST = 8
const HEADER = 8
/** `struct iphdr` without options. */
const IPV4_HEADER = 20

export interface EchoReply {
  readonly from: Ip
  readonly ttl: number
  readonly identifier: number
  /** Modulo 2^16. */
  readonly sequence: number
  /** Bytes of ICMP, as ping(8) counts them. */
  readonly length: number
}

/** An echo request; `dataLength` bytes that count up follow the header. */
export function encodeEchoRequest(identifier: number, sequence: number, dataLength: number): Uint8Array {
  const bytes = Uint8Array.from({ length: HEADER + dataLength }, (_, i) => i - HEADER)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, ECHO_REQUEST)
  view.setUint8(1, 0)
  view.setUint16(2, 0)
  view.setUint16(4, identifier)
  view.setUint16(6, sequence)
  view.setUint16(2, checksum(bytes))
  return bytes
}

/** What a raw socket receives, IPv4 header included; undefined when it is anything but a whole echo reply. */
export function decodeEchoReply(packet: Uint8Array): EchoReply | undefined {
  const headerLength = ((packet[0] ?? 0) & 0xf) * 4
  const icmp = packet.subarray(headerLength)
  if (headerLength < IPV4_HEADER || icmp.length < HEADER) return undefined
  if (icmp[0] !== ECHO_REPLY || icmp[1] !== 0 || checksum(icmp) !== 0) return undefined
  const view = new DataView(icmp.buffer, icmp.byteOffset)
  return {
    from: formatIp(packet.subarray(12, 16)),
    ttl: packet[8] ?? 0,
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
