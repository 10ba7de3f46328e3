/** Prefixes (CIDR blocks, RFC 4632) as canonical text: host bits are zero, `10.10.11.0/24`. */

import {
  AddressError,
  type Family,
  familyBits,
  formatIp,
  formatIpv4,
  type Ip,
  ipBytes,
  ipFamily,
  ipFromNumber,
  ipToNumber,
  ipv4Bits,
  parseIp,
} from './ip.ts'

declare const prefixBrand: unique symbol

/** A prefix in canonical text. Two equal prefixes are the same string. */
export type Prefix = string & { readonly [prefixBrand]: true }

const LENGTH = /^(?:0|[1-9][0-9]{0,2})$/
const ZERO = '0'.charCodeAt(0)

/** Host bits are masked off, as flannel does. @throws {AddressError} */
export function parsePrefix(text: string): Prefix {
  const slash = text.indexOf('/')
  const length = text.slice(slash + 1)
  if (slash < 0 || !LENGTH.test(length)) {
    throw new AddressError(`${JSON.stringify(text)} is not a prefix of the form address/length`)
  }
  return prefixOf(parseIp(text.slice(0, slash)), Number(length))
}

/** The prefix of that length which holds the address. @throws {AddressError} for a length outside 0 … 32 or 128. */
export function prefixOf(ip: Ip, length: number): Prefix {
  const bits = familyBits(ipFamily(ip))
  if (!Number.isInteger(length) || length < 0 || length > bits) {
    throw new AddressError(`a prefix length is 0 to ${bits}, not ${length}`)
  }
  // Joined and not in a template, which would be kept in its parts.
  return [masked(ip, length), length].join('/') as Prefix
}

/** The address without the bits after the first `length`. */
function masked(ip: Ip, length: number): Ip {
  const bits = ipv4Bits(ip)
  if (bits === undefined) {
    const bytes = ipBytes(ip)
    return mask(bytes, length) ? formatIp(bytes) : ip
  }
  const kept = length === 0 ? 0 : (bits & (-1 << (32 - length))) >>> 0
  return kept === bits ? ip : formatIpv4(kept)
}

/** The first address: the one that flannel gives to the VTEP. */
export function prefixBase(prefix: Prefix): Ip {
  return prefix.slice(0, prefix.lastIndexOf('/')) as Ip
}

export function prefixLength(prefix: Prefix): number {
  let length = 0
  for (let i = prefix.lastIndexOf('/') + 1; i < prefix.length; i++)
    length = 10 * length + prefix.charCodeAt(i) - ZERO
  return length
}

export function prefixFamily(prefix: Prefix): Family {
  return prefix.includes(':') ? 'inet6' : 'inet'
}

/** The number of addresses. */
export function prefixSize(prefix: Prefix): bigint {
  return 1n << BigInt(familyBits(prefixFamily(prefix)) - prefixLength(prefix))
}

/** The last address, as a number. */
export function prefixEnd(prefix: Prefix): bigint {
  return ipToNumber(prefixBase(prefix)) + prefixSize(prefix) - 1n
}

export function prefixContains(prefix: Prefix, ip: Ip): boolean {
  return agree(prefix, ip, prefixLength(prefix))
}

/** Whether every address of `inner` is in `outer`. */
export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  const length = prefixLength(outer)
  return length <= prefixLength(inner) && agree(outer, inner, length)
}

/** Whether two prefixes share an address. Of two prefixes that do, one covers the other. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return agree(a, b, Math.min(prefixLength(a), prefixLength(b)))
}

/** The prefixes of that length that it is made of, in order. */
export function* subPrefixes(prefix: Prefix, length: number): Generator<Prefix> {
  const family = prefixFamily(prefix)
  const size = 1n << BigInt(familyBits(family) - length)
  const end = prefixEnd(prefix)
  for (let base = ipToNumber(prefixBase(prefix)); base <= end; base += size) {
    yield `${ipFromNumber(base, family)}/${length}` as Prefix
  }
}

function endOfBase(text: Ip | Prefix): number {
  const slash = text.indexOf('/')
  return slash < 0 ? text.length : slash
}

/** Sets the bits after the first `length` to zero. Returns whether one was not. */
function mask(bytes: Uint8Array, length: number): boolean {
  let changed = false
  for (let i = length >> 3; i < bytes.length; i++) {
    const byte = bytes[i] ?? 0
    const kept = i === length >> 3 ? byte & (0xff00 >> (length & 7)) : 0
    changed ||= kept !== byte
    bytes[i] = kept
  }
  return changed
}

/** Whether two addresses, or the first ones of prefixes, are of one family and begin with the same `length` bits. */
function agree(a: Ip | Prefix, b: Ip | Prefix, length: number): boolean {
  const bits = ipv4Bits(a, endOfBase(a))
  const others = ipv4Bits(b, endOfBase(b))
  if (bits !== undefined && others !== undefined)
    return length === 0 || (bits ^ others) >>> (32 - length) === 0
  if (bits !== others) return false
  const [first, second] = [ipBytes(a.slice(0, endOfBase(a)) as Ip), ipBytes(b.slice(0, endOfBase(b)) as Ip)]
  mask(first, length)
  mask(second, length)
  return first.every((byte, i) => byte === second[i])
}
