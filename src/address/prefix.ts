/** Prefixes (CIDR blocks, RFC 4632) as canonical text: host bits are zero, `10.10.11.0/24`. */

import {
  AddressError,
  type Family,
  familyBits,
  formatIp,
  type Ip,
  ipBytes,
  ipFamily,
  ipFromNumber,
  ipToNumber,
  parseIp,
} from './ip.ts'

declare const prefixBrand: unique symbol

/** A prefix in canonical text. Two equal prefixes are the same string. */
export type Prefix = string & { readonly [prefixBrand]: true }

const LENGTH = /^(?:0|[1-9][0-9]{0,2})$/

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
  const bytes = ipBytes(ip)
  return `${mask(bytes, length) ? formatIp(bytes) : ip}/${length}` as Prefix
}

/** The first address: the one that flannel gives to the VTEP. */
export function prefixBase(prefix: Prefix): Ip {
  return prefix.slice(0, prefix.indexOf('/')) as Ip
}

export function prefixLength(prefix: Prefix): number {
  return Number(prefix.slice(prefix.indexOf('/') + 1))
}

export function prefixFamily(prefix: Prefix): Family {
  return ipFamily(prefixBase(prefix))
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
  const base = prefixBase(prefix)
  return ipFamily(base) === ipFamily(ip) && agree(ipBytes(base), ipBytes(ip), prefixLength(prefix))
}

/** Whether every address of `inner` is in `outer`. */
export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  return prefixLength(outer) <= prefixLength(inner) && prefixContains(outer, prefixBase(inner))
}

/** Whether two prefixes share an address. Of two prefixes that do, one covers the other. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return prefixCovers(a, b) || prefixCovers(b, a)
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

/** Whether the first `length` bits are the same. */
function agree(a: Uint8Array, b: Uint8Array, length: number): boolean {
  const whole = length >> 3
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false
  const rest = 0xff00 >> (length & 7)
  return (((a[whole] ?? 0) ^ (b[whole] ?? 0)) & rest & 0xff) === 0
}
