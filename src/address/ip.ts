/**
 * IPv4 and IPv6 addresses as canonical text: dotted quad (RFC 791) or RFC 5952.
 *
 * Text is the representation because it is a value: `===` compares it, a `Map` takes it as a key, a log prints it.
 * Bytes exist at the edges only (the netlink codec, arithmetic on subnets). Both families are one code path: the
 * family is the number of bytes.
 */

declare const ipBrand: unique symbol

/** An address in canonical text. Two equal addresses are the same string. */
export type Ip = string & { readonly [ipBrand]: true }

export type Family = 'inet' | 'inet6'

/** In the order in which plans say them. */
export const FAMILIES: readonly Family[] = ['inet', 'inet6']

/** One value for each enabled family. */
export type PerFamily<T> = Readonly<Partial<Record<Family, T>>>

/** Text or bytes that are not the address, prefix or MAC that they were said to be. */
export class AddressError extends Error {
  override readonly name = 'AddressError'
}

/** @throws {AddressError} Octal, short, zoned and otherwise liberal forms are not accepted. */
export function parseIp(text: string): Ip {
  // What is read as IPv4 can be written in one way only.
  return ipv4Bits(text) === undefined ? formatIp(parseBytes(text)) : (text as Ip)
}

/** The canonical text of 4 (IPv4) or 16 (IPv6) bytes in network order. @throws {AddressError} */
export function formatIp(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Ip
  if (bytes.length !== 16) throw new AddressError(`an IP address has 4 or 16 bytes, not ${bytes.length}`)
  return formatIpv6(bytes) as Ip
}

/** The 4 or 16 bytes of an address, in network order. */
export function ipBytes(ip: Ip): Uint8Array {
  return parseBytes(ip)
}

export function ipFamily(ip: Ip): Family {
  return ip.includes(':') ? 'inet6' : 'inet'
}

/** The number of bits of an address of the family. */
export function familyBits(family: Family): 32 | 128 {
  return family === 'inet' ? 32 : 128
}

/** The address as an unsigned number, for arithmetic and order. */
export function ipToNumber(ip: Ip): bigint {
  const bits = ipv4Bits(ip)
  if (bits !== undefined) return BigInt(bits)
  let value = 0n
  for (const byte of ipBytes(ip)) value = (value << 8n) | BigInt(byte)
  return value
}

/** @throws {AddressError} when the number does not fit the family. */
export function ipFromNumber(value: bigint, family: Family): Ip {
  const bits = familyBits(family)
  if (value < 0n || value >> BigInt(bits) !== 0n) {
    throw new AddressError(`${value} is not an address of ${bits} bits`)
  }
  const bytes = new Uint8Array(bits / 8)
  for (let i = bytes.length - 1, rest = value; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn)
  return formatIp(bytes)
}

/** 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291). */
export function isMulticast(ip: Ip): boolean {
  const bits = ipv4Bits(ip)
  return bits === undefined ? ipBytes(ip)[0] === 0xff : bits >>> 28 === 0xe
}

/** 127.0.0.0/8 (RFC 1122) and ::1 (RFC 4291). */
export function isLoopback(ip: Ip): boolean {
  const bits = ipv4Bits(ip)
  return bits === undefined ? ip === '::1' : bits >>> 24 === 127
}

/** 0.0.0.0 and ::, "this host": never a peer. */
export function isUnspecified(ip: Ip): boolean {
  return ip === '0.0.0.0' || ip === '::'
}

/** 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291). */
export function isLinkLocal(ip: Ip): boolean {
  const [first = 0, second = 0] = ipBytes(ip)
  return ipFamily(ip) === 'inet'
    ? first === 169 && second === 254
    : first === 0xfe && (second & 0xc0) === 0x80
}

const ZERO = '0'.charCodeAt(0)
const DOT = '.'.charCodeAt(0)
const GROUP = /^[0-9a-fA-F]{1,4}$/

/**
 * The 32 bits of an IPv4 address, which ends where the text does or before; undefined for any other text. Character by character and without an array, because
 * with tens of thousands of leases a start spends its time here.
 */
export function ipv4Bits(text: string, end = text.length): number | undefined {
  let bits = 0
  let octets = 0
  let digits = 0
  let value = 0
  for (let i = 0; i < end; i++) {
    const char = text.charCodeAt(i)
    if (char === DOT) {
      if (digits === 0 || octets === 3) return undefined
      bits = (bits << 8) | value
      octets++
      digits = 0
      value = 0
    } else {
      const digit = char - ZERO
      const leadingZero = digits > 0 && value === 0
      if (digit < 0 || digit > 9 || leadingZero) return undefined
      value = 10 * value + digit
      digits++
      if (value > 255) return undefined
    }
  }
  return octets === 3 && digits > 0 ? ((bits << 8) | value) >>> 0 : undefined
}

/** The address of these 32 bits. */
export function formatIpv4(bits: number): Ip {
  return `${bits >>> 24}.${(bits >>> 16) & 0xff}.${(bits >>> 8) & 0xff}.${bits & 0xff}` as Ip
}

function parseBytes(text: string): Uint8Array {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text)
  if (bytes === undefined) throw new AddressError(`${JSON.stringify(text)} is not an IP address`)
  return bytes
}

function parseIpv4(text: string): Uint8Array | undefined {
  const bits = ipv4Bits(text)
  return bits === undefined ? undefined : Uint8Array.of(bits >>> 24, bits >>> 16, bits >>> 8, bits)
}

function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const head = parseGroups(halves[0] ?? '', halves.length === 1)
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '', true) : []
  if (head === undefined || tail === undefined) return undefined
  const known = head.length + tail.length
  if (halves.length === 1 ? known !== 16 : known > 14) return undefined
  const bytes = new Uint8Array(16)
  bytes.set(head, 0)
  bytes.set(tail, 16 - tail.length)
  return bytes
}

/** The bytes of colon-separated groups; the last may be an embedded IPv4 address (RFC 4291, 2.2). */
function parseGroups(text: string, embedded: boolean): number[] | undefined {
  if (text === '') return []
  const bytes: number[] = []
  const groups = text.split(':')
  for (const [i, group] of groups.entries()) {
    const last = i === groups.length - 1
    const quad = embedded && last && group.includes('.') ? parseIpv4(group) : undefined
    if (quad !== undefined) bytes.push(...quad)
    else if (GROUP.test(group)) bytes.push(Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff)
    else return undefined
  }
  return bytes
}

/** RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups (the first of equals) as `::`. */
function formatIpv6(bytes: Uint8Array): string {
  if (isMappedIpv4(bytes)) return `::ffff:${formatIp(bytes.subarray(12))}`
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0))
  let best = { start: 0, length: 1 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const hex = groups.map((group) => group.toString(16))
  if (best.length < 2) return hex.join(':')
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`
}

/** ::ffff:0:0/96, which RFC 5952 section 5 writes with a dotted quad. */
function isMappedIpv4(bytes: Uint8Array): boolean {
  return bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
}
