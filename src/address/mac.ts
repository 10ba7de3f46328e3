/** Ethernet addresses (EUI-48) as canonical text: lower-case hex pairs with colons, as flannel and `ip` write them. */

import { AddressError } from './ip.ts'

declare const macBrand: unique symbol

/** A MAC address in canonical text. Two equal addresses are the same string. */
export type Mac = string & { readonly [macBrand]: true }

export const ZERO_MAC = '00:00:00:00:00:00' as Mac

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const ZERO = '0'.charCodeAt(0)
const LETTER_A = 'a'.charCodeAt(0)
const MAC = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/

/** @throws {AddressError} Six pairs of hex digits with colons, upper or lower case; nothing else. */
export function parseMac(text: string): Mac {
  const lower = text.toLowerCase()
  if (!MAC.test(lower)) throw new AddressError(`${JSON.stringify(text)} is not a MAC address`)
  return lower as Mac
}

/** @throws {AddressError} unless there are 6 bytes. */
export function formatMac(bytes: Uint8Array): Mac {
  if (bytes.length !== 6) throw new AddressError(`a MAC address has 6 bytes, not ${bytes.length}`)
  let text = HEX[bytes[0] ?? 0] ?? ''
  for (let i = 1; i < 6; i++) text += `:${HEX[bytes[i] ?? 0]}`
  return text as Mac
}

/** Its 6 bytes, from `at` on. */
export function writeMac(mac: Mac, bytes: Uint8Array, at: number): void {
  for (let i = 0; i < 6; i++) bytes[at + i] = (hexDigit(mac, 3 * i) << 4) | hexDigit(mac, 3 * i + 1)
}

function hexDigit(text: string, at: number): number {
  const char = text.charCodeAt(at)
  return char >= LETTER_A ? char - LETTER_A + 10 : char - ZERO
}

/** The group bit (IEEE 802): multicast and broadcast. Such a MAC can be no host's own. */
export function isGroupMac(mac: Mac): boolean {
  return (hexDigit(mac, 1) & 1) === 1
}

/** A locally administered unicast MAC out of 6 random bytes, as flannel makes one for a VTEP. */
export function localMac(random: Uint8Array): Mac {
  const bytes = Uint8Array.from(random)
  bytes[0] = ((bytes[0] ?? 0) & 0xfe) | 0x02
  return formatMac(bytes)
}
