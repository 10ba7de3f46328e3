/**
 * WireGuard devices as values, the same for the kernel (`wireguard.ts`) and for a process that stands in for it
 * (`wireguard-uapi.ts`). What is absent in what was read was not told; what is absent in a change stays as it is.
 */

import type { Ip } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'
import type { Attribute } from './attribute.ts'

declare const keyBrand: unique symbol

/** 32 bytes as base64, the form of `wg`: 43 characters and `=`. Two equal keys are the same string. */
export type WireguardKey = string & { readonly [keyBrand]: true }

export const KEY_BYTES = 32

/** As a private or preshared key: none. */
export const NO_KEY = formatKey(new Uint8Array(KEY_BYTES))

/** Text that is not a key. The message does not repeat it, since it may be a secret. */
export class WireguardKeyError extends Error {
  override readonly name = 'WireguardKeyError'
}

/** @throws {WireguardKeyError} */
export function parseKey(text: string): WireguardKey {
  const bytes = Buffer.from(text, 'base64')
  // Buffer reads base64 liberally; there is one way to write a key.
  if (bytes.length !== KEY_BYTES || bytes.toString('base64') !== text) {
    throw new WireguardKeyError(
      `a WireGuard key is 32 bytes in base64, 44 characters with the "=" at their end`,
    )
  }
  return text as WireguardKey
}

/** The key of 32 bytes. @throws {WireguardKeyError} for another number of them. */
export function formatKey(bytes: Uint8Array): WireguardKey {
  if (bytes.length !== KEY_BYTES) {
    throw new WireguardKeyError(`a WireGuard key has ${KEY_BYTES} bytes, not ${bytes.length}`)
  }
  return Buffer.from(bytes).toString('base64') as WireguardKey
}

export function keyBytes(key: WireguardKey): Uint8Array {
  return Buffer.from(key, 'base64')
}

/** Where a peer's datagrams go to and came from. */
export interface Endpoint {
  readonly address: Ip
  readonly port: number
  /**
   * Of a link-local IPv6 address: the link. The kernel says its index; a process says its index or its name, and
   * takes both.
   */
  readonly zone?: string | undefined
}

export interface WireguardPeer {
  readonly publicKey: WireguardKey
  /** NO_KEY: there is none. */
  readonly presharedKey?: WireguardKey | undefined
  /** Not told before one is known. */
  readonly endpoint?: Endpoint | undefined
  /** Seconds; 0: off. */
  readonly persistentKeepalive?: number | undefined
  /** Of one device no two peers have the same: the last who is given it takes it from the other. */
  readonly allowedIps: readonly Prefix[]

  /** Told only. Nanoseconds since 1970; 0: never. */
  readonly lastHandshake?: bigint | undefined
  /** Told only. Bytes, with the headers. */
  readonly rxBytes?: bigint | undefined
  readonly txBytes?: bigint | undefined
  readonly protocolVersion?: number | undefined

  /** In a change: the peer goes. */
  readonly remove?: boolean | undefined
  /** In a change: nothing happens when there is no such peer. */
  readonly updateOnly?: boolean | undefined
  /** In a change: `allowedIps` are all, and not to be added. */
  readonly replaceAllowedIps?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

export interface WireguardDevice {
  readonly ifindex?: number | undefined
  readonly name?: string | undefined
  /** Not told when there is none; NO_KEY in a change removes it. */
  readonly privateKey?: WireguardKey | undefined
  /** Told by the kernel only, and only with a private key. */
  readonly publicKey?: WireguardKey | undefined
  /** UDP. 0 in a change: any that is free. A process does not tell 0. */
  readonly listenPort?: number | undefined
  /** SO_MARK of what is sent; 0: none, which a process does not tell. */
  readonly fwmark?: number | undefined
  readonly peers: readonly WireguardPeer[]

  /** In a change: `peers` are all, and not to be added or changed. */
  readonly replacePeers?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}
